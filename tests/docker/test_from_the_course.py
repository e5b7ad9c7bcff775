"""The student's page: its docker commands build and start the image, and its client reaches it."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lambda_function import REPOSITORY
from tests.docker.conftest import IMAGES_PORT, PLATFORM

pytestmark = [pytest.mark.container, pytest.mark.slow]
PAGE = (REPOSITORY / "docs" / "from-the-course.md").read_text()
BUILD, RUN = (
    shlex.split(line) for line in re.findall(r"^\$ docker ((?:build|run) .*)$", PAGE, re.MULTILINE)
)
CLIENT = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def address(docker: Callable[..., Any]) -> Iterator[str]:
    """Run the page's two commands, with a free port and without a terminal."""
    names = [f"course-{uuid.uuid4().hex[:8]}" for _ in range(2)]
    docker(BUILD[0], "--platform", PLATFORM, *BUILD[1:], cwd=REPOSITORY)
    options = [word.replace("8080:8080", "127.0.0.1::8080") for word in RUN[1:] if word != "-it"]
    trusted = f"TRUSTED_IMAGE_HOSTS=127.0.0.1:{IMAGES_PORT}"
    docker("run", "--detach", "--name", names[0], "--env", trusted, *options)
    docker(
        *("run", "--detach", "--name", names[1], "--network", f"container:{names[0]}"),
        *("--volume", f"{REPOSITORY / 'examples'}:/images:ro", "--entrypoint", "python"),
        *(RUN[-1], "-m", "http.server", str(IMAGES_PORT), "--directory", "/images"),
    )
    port = docker("port", names[0], "8080/tcp").stdout.split()[0].rpartition(":")[2]
    yield f"http://127.0.0.1:{port}"
    for name in reversed(names):
        docker("rm", "--force", name, check=False)


def test_the_page_s_commands_and_client_classify_an_image(address: str) -> None:
    client = CLIENT.replace("http://localhost:8080", address).replace(
        "https://example.com/pants.jpg", f"http://127.0.0.1:{IMAGES_PORT}/pants.jpg"
    )
    shown = io.StringIO()
    for _ in range(60):  # until the emulator inside listens
        with contextlib.suppress(OSError), contextlib.redirect_stdout(shown):
            exec(client, {})  # noqa: S102 (our own page)
            break
        time.sleep(0.5)

    assert shown.getvalue() == "pants\n"
