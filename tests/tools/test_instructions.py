"""Instruction counts: read from QEMU's plugin, or missing with a reason."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.instructions import count

COUNTING = "import sys; print('total insns:', 1000 + 7 * int(sys.argv[-1]), file=sys.stderr)"
REFUSING = "import sys; sys.exit(\"qemu: unknown option 'plugin'\")"


def test_the_total_is_read_from_the_plugins_output() -> None:
    command = [sys.executable, "-c", COUNTING]
    counts = [count(command, Path("model.tflite"), Path(), runs) for runs in (1, 2)]
    assert counts == [1007, 1014]


def test_a_qemu_without_plugins_is_named_as_the_reason() -> None:
    with pytest.raises(ValueError, match="unknown option 'plugin'"):
        count([sys.executable, "-c", REFUSING], Path("model.tflite"), Path(), 1)
