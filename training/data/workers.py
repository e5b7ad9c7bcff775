"""Processes that prepare images beside a training, each with a Python lock of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lambda_function.metadata import InputSpec
from training.data.images import vary_images

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


class ImageProcesses:
    """Processes that vary images.

    The images go through a file, because a pool's pipe takes a short result in one piece. If a
    process were killed within a longer one, the pool would wait for the rest without end.
    """

    def __init__(self, processes: int) -> None:
        """Take the number of processes. They start with the first tasks."""
        self._pool = build_pool(processes)
        self._folder = tempfile.TemporaryDirectory(prefix="batches-")

    def vary(
        self, paths: list[Path], spec: InputSpec, rng: np.random.Generator, *, min_area: float
    ) -> NDArray[np.uint8]:
        """Do ``vary_images`` in one of the processes.

        Raises:
            BrokenProcessPool: a process was killed.
            DatasetError: as there.
        """
        folder = Path(self._folder.name)
        task = self._pool.submit(_save_varied, folder, paths, spec, rng, min_area=min_area)
        file, used = task.result()
        images: NDArray[np.uint8] = np.load(file)
        file.unlink()
        rng.bit_generator.state = used.bit_generator.state
        return images

    def close(self) -> None:
        """End the processes and remove what they left."""
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()


def block_interrupts() -> None:
    """Keep Ctrl-C from this thread and from all processes that it starts. It is for the parent."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _save_varied(
    folder: Path, paths: list[Path], spec: InputSpec, rng: np.random.Generator, *, min_area: float
) -> tuple[Path, np.random.Generator]:
    """Return the ``.npy`` file of the images, and the random generator as it is afterwards."""
    images = vary_images(paths, spec, rng, min_area=min_area)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".npy", delete=False) as file:
        np.save(file, images)
    return Path(file.name), rng


def _watch_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # a killed parent closes no pool
        os._exit(1)
