"""An image built by the project's own Dockerfile, and containers of it, for one test run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INVOKE_PATH = "/2015-03-31/functions/function/invocations"
IMAGES_PORT = 8000
PLATFORM = {"aarch64": "linux/arm64"}.get(os.uname().machine, "linux/amd64")
IS_STANDIN = os.environ.get("CONTAINER_BASE") == "stand-in"


def run(*command: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command and return what it said."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, **options)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="session")
def docker() -> Callable[..., subprocess.CompletedProcess[str]]:
    """The docker command. Tests are skipped where no Docker API responds."""
    if not shutil.which("docker") or run("docker", "version", check=False).returncode:
        pytest.skip("no Docker API responds here: `make test-container` starts one where it can")
    return lambda *arguments, **options: run("docker", *arguments, **options)


def build(docker: Callable[..., Any], context: Path, *options: str, check: bool = True) -> Any:
    """Build the project's image from a context. The Dockerfile has the options."""
    return docker(
        *("build", "--platform", PLATFORM, *options, str(context)),
        check=check,
        env={**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
    )


@pytest.fixture(scope="session")
def image(docker: Callable[..., Any]) -> Iterator[str]:
    """The image, built as `make image` builds it."""
    name = f"clothing-test:{uuid.uuid4().hex[:8]}"
    build(docker, REPOSITORY, "--tag", name)
    yield name
    docker("image", "rm", "--force", name, check=False)


class Container:
    """A running container of the image, with Lambda's emulator inside."""

    def __init__(self, docker: Callable[..., Any], name: str) -> None:
        self._docker = docker
        self.name = name
        port = docker("port", name, "8080/tcp").stdout.split()[0].rpartition(":")[2]
        self.url = f"http://127.0.0.1:{port}{INVOKE_PATH}"

    def invoke(self, event: Any) -> Any:
        """Send an event to the emulator and return the reply."""
        request = urllib.request.Request(self.url, json.dumps(event).encode())
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def execute(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        done: subprocess.CompletedProcess[str] = self._docker(
            "exec", self.name, *command, check=check
        )
        return done

    def python(self, code: str) -> Any:
        """Run Python code inside and return the JSON that it prints."""
        return json.loads(self.execute("python", "-c", code).stdout)

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the function's own log lines."""
        logs = self._docker("logs", self.name)
        lines = [line for line in (logs.stdout + logs.stderr).splitlines() if line[:1] == "{"]
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def container(docker: Callable[..., Any], image: str) -> Iterator[Container]:
    """The function as Lambda runs it: only /tmp is writable. An image server runs beside it.

    The server is a second container in the first one's network, on its loopback.
    """
    names = [f"clothing-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    trusted = f"TRUSTED_IMAGE_HOSTS=127.0.0.1:{IMAGES_PORT}"
    docker(
        *("run", "--detach", "--name", names[0], "--read-only", "--tmpfs", "/tmp"),
        *("--publish", "127.0.0.1::8080", "--env", trusted, image),
    )
    docker(
        *("run", "--detach", "--name", names[1], "--network", f"container:{names[0]}"),
        *("--volume", f"{REPOSITORY / 'examples'}:/images:ro", "--entrypoint", "python", image),
        *("-m", "http.server", str(IMAGES_PORT), "--bind", "127.0.0.1"),
        *("--directory", "/images"),
    )
    running = Container(docker, names[0])
    _wait_for_emulator(running)
    yield running
    for name in reversed(names):
        docker("rm", "--force", name, check=False)


def _wait_for_emulator(running: Container) -> None:
    for _ in range(60):
        try:
            running.invoke({})
        except OSError:
            time.sleep(0.5)
        else:
            return
    pytest.fail("the emulator in the container does not respond")
