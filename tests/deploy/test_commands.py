"""Each deploy command as its own process, in an environment like the one that make gives it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from lambda_function import REPOSITORY

COMMANDS = sorted(set(re.findall(r"-m (deploy\.[a-z.]+)", (REPOSITORY / "Makefile").read_text())))
# requirements/sam.txt has none of these.
NOT_INSTALLED = ("numpy", "PIL", "ai_edge_litert")
RUN = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({NOT_INSTALLED!r}))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *words],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def test_the_commands_of_make_are_known() -> None:
    assert {"deploy.up", "deploy.preflight", "deploy.smoke", "deploy.destroy"} <= set(COMMANDS)


@pytest.mark.parametrize("name", [n for n in COMMANDS if n != "deploy.image.names"])
@pytest.mark.parametrize(
    "environment",
    [
        {"AWS_PROFILE": "typo"},
        {"AWS_DEFAULT_REGION": "not a region"},
        {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"},
    ],
    ids=["profile", "region", "unreachable"],
)
def test_a_wrong_environment_ends_every_command_with_a_sentence(
    name: str, environment: dict[str, str]
) -> None:
    fast = {"AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = command(name, "--stack", "s", **{**fast, **environment})

    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert said.strip() and "Traceback" not in said
