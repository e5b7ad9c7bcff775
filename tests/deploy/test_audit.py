"""`make audit` tells "nothing known" from "nothing asked", which pip-audit itself does not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools.audit import LOCKS, REQUIREMENTS, audit

FOUND = """\
Name   Version ID        Fix Versions
------ ------- --------- ------------
pillow 9.0.0   GHSA-xxxx 9.0.1
"""
SKIPPED = """\
Name  Skip Reason
----- --------------------------------
numpy Dependency not found on PyPI
"""


@pytest.mark.parametrize(
    ("status", "stdout", "stderr", "expected"),
    [
        (0, "", "No known vulnerabilities found", 0),
        (1, FOUND, "Found 1 known vulnerability", 1),
        (0, SKIPPED, "No known vulnerabilities found", 2),
        (1, "", "requests.exceptions.ConnectionError: refused", 2),
        (1, "", "", 2),
    ],
    ids=["clean", "found", "skipped", "unreachable", "silent"],
)
def test_status_tells_clean_from_found_from_not_asked(
    status: int, stdout: str, stderr: str, expected: int
) -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, status, stdout, stderr)

    assert audit(Path("serving.txt"), run=run) == expected


def test_every_lock_that_can_be_deployed_is_audited() -> None:
    assert all((REQUIREMENTS / f"{name}.txt").is_file() for name in LOCKS)
    dockerfile = (REQUIREMENTS.parent / "Dockerfile").read_text()
    assert "s3.txt" in dockerfile and "s3" in LOCKS
    ignored = (REQUIREMENTS.parent / ".dockerignore").read_text()
    copied = {name for name in LOCKS if f"!requirements/{name}.txt" in ignored}
    assert copied == set(LOCKS)
