"""How a command ends: with an exit status and a sentence, never with a traceback."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import NoRegionError

from deploy.findings import CheckFailed, run_command, short_reason
from tests.deploy.conftest import client_error


@pytest.mark.parametrize(
    ("problem", "status", "said"),
    [
        (CheckFailed("No model."), 1, "STOP  No model."),
        (client_error("AccessDenied", "not\nyou."), 1, "AWS refused: AccessDenied: not you."),
        (NoRegionError(), 1, "You must specify a region."),
        (EOFError(), 1, "YES=1 asks nothing"),
        (KeyboardInterrupt(), 130, "Interrupted"),
    ],
)
def test_what_stops_a_command_is_a_sentence(
    problem: BaseException, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int:
        raise problem

    assert run_command(command) == status
    assert said in capsys.readouterr().out


def test_a_command_that_ends_keeps_its_status() -> None:
    assert run_command(lambda: 3) == 3


@pytest.mark.parametrize("response", [{}, {"Error": {}}])
def test_an_error_without_a_message_has_a_reason(response: Any) -> None:
    error = client_error("x")
    error.response = response
    assert short_reason(error) == "unknown"
