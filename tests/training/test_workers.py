"""Worker processes use the cores that they may, and end with their parent."""

from __future__ import annotations

import os

import pytest

from tests.support.processes import run_python
from training.data.workers import usable_cores

PATIENCE_S = 30.0  # on a busy machine
START_AND_DIE = """
import os, signal
from training.data.workers import build_pool
print(build_pool(1).submit(os.getpid).result(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_of_a_killed_parent_ends() -> None:
    # Returns when the worker, too, has closed its output.
    died = run_python("-c", START_AND_DIE, timeout=PATIENCE_S)
    assert died.stdout.strip().isdigit(), died.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system has no affinity")
def test_cores_that_are_not_allowed_do_not_count() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)
