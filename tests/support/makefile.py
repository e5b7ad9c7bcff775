"""The targets that the Makefile declares."""

from __future__ import annotations

import re

from lambda_function import REPOSITORY


def targets() -> set[str]:
    """Return the names after ``TARGETS :=``. ``make`` refuses every other name."""
    text = (REPOSITORY / "Makefile").read_text()
    assigned = re.search(r"^TARGETS := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert assigned
    return set(assigned[1].replace("\\", " ").split())
