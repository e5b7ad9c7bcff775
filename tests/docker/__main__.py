"""Runs the container tests with whatever Docker API there is: `make test-container`.

Where ../shared/container is, its stand-in for AWS's base image and its engine are used; elsewhere
the machine's own Docker; without either the tests are skipped and say why.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from lambda_function import REPOSITORY

STANDIN = REPOSITORY.parent / "shared" / "container"


def default_base_image() -> str:
    """Return the Dockerfile's default of BASE_IMAGE."""
    text = (REPOSITORY / "Dockerfile").read_text()
    match = re.search(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)
    assert match
    return match[1]


def in_engine(command: list[str]) -> int:
    """Run a command where the stand-in has the base image's name and a Docker API answers."""
    base = [str(STANDIN / "standin-base"), "--tag", default_base_image()]
    made = subprocess.run(base, cwd=REPOSITORY)
    if made.returncode:
        return made.returncode
    environment = {**os.environ, "CONTAINER_BASE": "stand-in"}
    engine = [str(STANDIN / "engine"), "run"]
    return subprocess.run([*engine, *command], cwd=REPOSITORY, env=environment).returncode


def main() -> int:
    folders = ["tests/docker", "tests/deploy/test_requirements.py"]
    tests = [sys.executable, "-m", "pytest", "-m", "container", *folders, *sys.argv[1:]]
    if STANDIN.is_dir():
        return in_engine(tests)
    return subprocess.run(tests, cwd=REPOSITORY).returncode


if __name__ == "__main__":
    sys.exit(main())
