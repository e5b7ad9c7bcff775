"""Many pictures in one request: downloads run side by side and overlap inference.

Servers are waited for side by side; a picture's bytes are read only in one of few slots, and a slot
is free again when its picture is classified. So a slow server costs no slot, and at most ``slots``
pictures are in memory, whatever the order in which they arrive. Inference stays in the calling
thread, which takes whichever picture is there first. All threads have ended when ``run_batch``
returns: Lambda freezes what is left running, and it would wake inside the next request.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from typing import TYPE_CHECKING, TypeVar

from lambda_function.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
SLOTS = 4  # 4 pictures of 50 megapixels are 600 MB as RGB, were all decoded at once
GRACE_S = 0.5  # that a picture may take beyond the deadline: the caller keeps a second to answer in
CONNECTIONS = 16  # so that servers taking 200 ms keep an inference of 20 ms busy


def run_batch(
    urls: Sequence[str],
    *,
    load: Callable[[str, Callable[[], None]], bytes],
    classify: Callable[[bytes, float], T],
    refuse: Callable[[Exception], T],
    deadline: float,
    slots: int = SLOTS,
    connections: int = CONNECTIONS,
) -> list[T]:
    """Load and classify each address.

    Args:
        urls: of the pictures.
        load: of (address, admit); returns a picture's bytes. Must call ``admit`` before it holds
            them, which waits for a slot, and must itself give up at the deadline, since it is
            waited for. Called in several threads.
        classify: of (bytes, milliseconds that the download took); called in this thread.
        refuse: turns what went wrong into the item's result, at once: an exception kept would
            keep its traceback, and that the picture. A failed download's traceback still prints,
            but its frames are empty.
        deadline: ``time.monotonic()`` moment; what is not done by then is a ``DeadlineError``.
            No picture is begun that, taking as long as the longest so far, would end more than
            ``GRACE_S`` later.
        slots: most pictures in memory at once.
        connections: most servers waited for at once.

    Returns:
        For each address, in order, what ``classify`` or ``refuse`` made of it.
    """
    from concurrent.futures import ThreadPoolExecutor  # imported here: only batches need it

    results: dict[int, T] = {}
    arrived: queue.SimpleQueue[tuple[int, bytes | Exception, float, bool]] = queue.SimpleQueue()
    free = threading.Semaphore(slots)

    def download(index: int) -> None:
        slot = _Slot(free, deadline)
        start = time.perf_counter()
        loaded = _try(load, urls[index], slot, deadline)
        fetch_ms = _since_ms(start + slot.waited_s)
        if isinstance(loaded, Exception):
            _let_go(loaded)  # else the frames keep what had arrived of the picture
            slot.give_back()
        arrived.put((index, loaded, fetch_ms, slot.is_held))

    longest_s = 0.0
    with ThreadPoolExecutor(connections, "download") as pool:
        for index in range(len(urls)):
            pool.submit(download, index)
        for _ in urls:
            index, loaded, fetch_ms, is_held = arrived.get()
            start = time.perf_counter()
            start_by = deadline - max(0.0, longest_s - GRACE_S)
            results[index] = _settle(loaded, fetch_ms, classify, refuse, start_by)
            longest_s = max(longest_s, time.perf_counter() - start)
            del loaded  # before its slot is given away
            if is_held:
                free.release()
    return [results[index] for index in range(len(urls))]


class _Slot:
    """One download's claim to a place in memory; calling it is ``admit``.

    Attributes:
        is_held: whether the claim was granted and not given back.
        waited_s: for the grant.
    """

    def __init__(self, free: threading.Semaphore, deadline: float) -> None:
        self._free = free
        self._deadline = deadline
        self.is_held = False
        self.waited_s = 0.0

    def __call__(self) -> None:
        if self.is_held:
            return
        start = time.perf_counter()
        self.is_held = self._free.acquire(timeout=max(0.0, self._deadline - time.monotonic()))
        self.waited_s = time.perf_counter() - start
        if not self.is_held:  # not left to the clock: a wait may end a hair before its timeout
            raise _late()
        _check_time(self._deadline)

    def give_back(self) -> None:
        if self.is_held:
            self.is_held = False
            self._free.release()


def _let_go(error: BaseException | None) -> None:
    """Empty the frames of an error and of those that led to it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _try(
    load: Callable[[str, Callable[[], None]], bytes], url: str, slot: _Slot, deadline: float
) -> bytes | Exception:
    try:
        _check_time(deadline)
        return load(url, slot)
    except Exception as error:
        return error


def _settle(
    loaded: bytes | Exception,
    fetch_ms: float,
    classify: Callable[[bytes, float], T],
    refuse: Callable[[Exception], T],
    start_by: float,
) -> T:
    if isinstance(loaded, Exception):
        return refuse(loaded)
    try:
        _check_time(start_by)
        return classify(loaded, fetch_ms)
    except Exception as error:
        return refuse(error)


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise _late()


def _late() -> DeadlineError:
    return DeadlineError("The time for this request ran out before this image's turn.")


def _since_ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1e3, 1)
