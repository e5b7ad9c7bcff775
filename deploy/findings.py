"""The result of a check before a deployment, and how the terminal shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError


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


def run_command(command: Callable[[], int]) -> int:
    """Run a command of the terminal and return its exit status. What stops it becomes a sentence.

    Args:
        command: returns an exit status. It may raise ``CheckFailed``.
    """
    try:
        return command()
    except CheckFailed as failed:
        show([Finding("stop", str(failed))])
        return 1
    except (BotoCoreError, ClientError) as error:
        show([Finding("stop", f"AWS refused: {short_reason(error)}.")])
        return 1
    except EOFError:
        print("\nThere is no terminal that could answer. YES=1 asks nothing.")
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. What CloudFormation has begun goes on without this command.")
        return 130


def short_reason(error: Exception) -> str:
    """Return AWS's code and message of an error on one line, without a full stop."""
    if not isinstance(error, ClientError):
        return " ".join(str(error).split()).rstrip(".")
    said = error.response.get("Error", {})
    message = " ".join(str(said.get("Message", "")).split())
    return f"{said.get('Code', 'unknown')}: {message}".rstrip(": .")


def show(findings: Iterable[Finding]) -> bool:
    """Print findings and return whether nothing stops the deployment."""
    marks = {"ok": "  ok  ", "note": " note ", "stop": " STOP "}
    stopped = False
    for finding in findings:
        print(f"{marks[finding.level]} {finding.text}")
        stopped |= finding.level == "stop"
    return not stopped
