"""Run a command with a Docker API that has the base image.

    python -m tools.container_engine pytest -m container tests/docker

Where ../shared/container exists, its stand-in for AWS's base image and its engine are used.
Elsewhere the machine's own Docker is used.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from lambda_function import REPOSITORY

STANDIN = REPOSITORY.parent / "shared" / "container"


def default_base_image() -> str:
    """Return the Dockerfile's default of BASE_IMAGE.

    Raises:
        ValueError: the Dockerfile has no such line.
    """
    text = (REPOSITORY / "Dockerfile").read_text()
    match = re.search(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)
    if not match:
        raise ValueError("the Dockerfile has no ARG BASE_IMAGE")
    return match[1]


def run_in_engine(command: list[str]) -> int:
    """Run a command where a Docker API answers and the base image exists.

    Args:
        command: the program and its arguments.

    Returns:
        The command's exit status, or that of the step that failed before it.
    """
    if not STANDIN.is_dir():
        return subprocess.run(command, cwd=REPOSITORY).returncode
    base = [str(STANDIN / "standin-base"), "--tag", default_base_image()]
    made = subprocess.run(base, cwd=REPOSITORY)
    if made.returncode:
        return made.returncode
    environment = {**os.environ, "CONTAINER_BASE": "stand-in"}
    engine = [str(STANDIN / "engine"), "run"]
    return subprocess.run([*engine, *command], cwd=REPOSITORY, env=environment).returncode


if __name__ == "__main__":
    sys.exit(run_in_engine(sys.argv[1:]))
