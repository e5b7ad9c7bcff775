"""Runs the container tests: `make test-container`. Without a Docker API they skip and say why."""

from __future__ import annotations

import sys

from tools.container_engine import run_in_engine

FOLDERS = ["tests/docker", "tests/deploy/test_requirements.py", "tests/deploy/test_template.py"]

if __name__ == "__main__":
    sys.exit(
        run_in_engine([sys.executable, "-m", "pytest", "-m", "container", *FOLDERS, *sys.argv[1:]])
    )
