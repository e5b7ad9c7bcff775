"""Looks the deployed packages up in the public lists of vulnerabilities: `make audit`.

Uses pip-audit on the locks as they are, without installing anything. Exit status 1: something is
known; 2: a list could not be asked, so nothing is known either way.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable

LOCKS = ("serving", "s3", "tflite-runtime")
REQUIREMENTS = REPOSITORY / "requirements"


def audit(
    lock: Path, *, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> int:
    """Audit one lock and return 0, 1 or 2, as above."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    done = run([*command, "-r", str(lock)], capture_output=True, text=True)
    if "Fix Versions" in done.stdout:
        print(f"{lock.name}:\n{done.stdout}")
        return 1
    if done.returncode == 0 and "Skip Reason" not in done.stdout:
        print(f"{lock.name}: nothing known")
        return 0
    # A mirror without vulnerability data answers "not found", and pip-audit calls that a success.
    told = done.stdout if "Skip Reason" in done.stdout else done.stderr
    said = told.strip().splitlines() or ["no reason given"]
    reason = said[-1].strip()
    print(f"{lock.name}: not audited, the list could not be asked ({reason[:120]})")
    return 2


def main() -> int:
    """Audit every lock that is deployed."""
    statuses = [audit(REQUIREMENTS / f"{name}.txt") for name in LOCKS]
    return 1 if 1 in statuses else max(statuses)


if __name__ == "__main__":
    sys.exit(main())
