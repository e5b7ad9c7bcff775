"""Python in a process of its own, as a user or Lambda starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

from lambda_function import REPOSITORY


def run_python(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the tests' interpreter in the repository and return what it printed.

    Args:
        words: of the command line, after ``python``.
        options: of ``subprocess.run``. By default it takes 2 minutes at most, and any exit status.
    """
    given = {"cwd": REPOSITORY, "timeout": 120, "check": False, **options}
    words = (sys.executable, *map(str, words))
    return subprocess.run(words, capture_output=True, text=True, **given)


def hear_interrupts() -> None:
    """Let a process be interrupted: a shell's background job is started deaf to it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
