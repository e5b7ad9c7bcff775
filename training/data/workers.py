"""Processes that prepare images beside a training, each with a Python lock of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor

# Up to 4 cores, threads do: Pillow works without Python's lock, and few threads wait for it. With
# 16 cores they left most of them idle (docs/gpu.md).
MAX_THREADED_CORES = 4


def usable_cores() -> int:
    """Return how many cores this process may use. A container or ``taskset`` may allow a part."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def build_pool(processes: int) -> ProcessPoolExecutor:
    """Return a pool whose processes start with the first tasks and end with their parent.

    They are spawned, because a fork of a process with a running backend can hang.

    Args:
        processes: their number.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, mp_context=context, initializer=_watch_parent)


def block_interrupts() -> None:
    """Keep Ctrl-C from this thread and from all processes that it starts. It is for the parent."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a killed parent closes no pool
        os._exit(1)
