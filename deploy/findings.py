"""The result of a check before a deployment, and how the terminal shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any


class CheckFailed(Exception):  # noqa: N818 - it is a result on its way, not an error of the program
    """A reason not to deploy. Carries one sentence with the value and the next step."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        level: ``"ok"``, ``"note"`` (worth knowing) or ``"stop"``.
        text: one sentence.
    """

    level: str
    text: str


def run_check(check: Callable[..., str | Finding], *arguments: Any, **named: Any) -> Finding:
    """Run a check and return its finding. ``CheckFailed`` becomes a finding that stops."""
    try:
        result = check(*arguments, **named)
    except CheckFailed as failed:
        return Finding("stop", str(failed))
    return result if isinstance(result, Finding) else Finding("ok", result)


def show(findings: Iterable[Finding]) -> bool:
    """Print findings and return whether nothing stops the deployment."""
    marks = {"ok": "  ok  ", "note": " note ", "stop": " STOP "}
    stopped = False
    for finding in findings:
        print(f"{marks[finding.level]} {finding.text}")
        stopped |= finding.level == "stop"
    return not stopped
