"""For tests that need the emulator: say why where it cannot run."""

from __future__ import annotations

import importlib.util
import os

import pytest

from tools.emulator import EmulatorError, emulator_binary


def require_emulator() -> None:
    """Skip with the reason where the emulator is missing. In CI that is a failure."""
    if importlib.util.find_spec("awslambdaric") is None:
        pytest.skip("this environment has no awslambdaric; requirements/test.txt brings it")
    try:
        emulator_binary()
    except EmulatorError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
