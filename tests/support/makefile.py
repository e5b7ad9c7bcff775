"""The names that the Makefile declares."""

from __future__ import annotations

import re

from lambda_function import REPOSITORY


def targets() -> set[str]:
    """Return the names after ``TARGETS :=``. ``make`` refuses every other name."""
    return set(words("TARGETS"))


def words(variable: str) -> list[str]:
    """Return what the Makefile assigns to a variable by ``:=``."""
    text = (REPOSITORY / "Makefile").read_text()
    assigned = re.search(rf"^{variable} := ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert assigned
    return assigned[1].replace("\\", " ").split()
