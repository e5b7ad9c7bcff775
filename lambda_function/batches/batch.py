"""Many images in one request: downloads run side by side and overlap inference.

All servers are waited for at the same time. An image's bytes are read only in one of few slots, and
a slot is free again when its image is classified. So a slow server takes no slot, and at most
``slots`` images are in memory, in whatever order they arrive. Inference stays in the calling
thread, which takes the next image that has arrived. All threads have ended when ``run_batch``
returns: Lambda would freeze a running thread and wake it inside the next request.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lambda_function.errors import DeadlineError
from lambda_function.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
SLOTS = 4  # 4 images of 50 megapixels are 600 MB as RGB, if all were decoded at once
GRACE_S = 0.5  # that an image may take beyond the deadline. A second is kept for the response
CONNECTIONS = 16  # so that servers taking 200 ms keep an inference of 20 ms busy


class _Arrival(NamedTuple):
    """An image or an error that has arrived, with the slot that it may hold."""

    position: int
    data: bytes | Exception
    fetch_ms: float
    holds_slot: bool


def run_batch(
    sources: Sequence[str | bytes],
    *,
    fetch: Callable[[str, Callable[[], None]], bytes],
    classify: Callable[[bytes, float], T],
    on_error: Callable[[Exception], T],
    deadline: float,
    slots: int = SLOTS,
    connections: int = CONNECTIONS,
) -> list[T]:
    """Fetch and classify each image.

    Args:
        sources: URLs, or images that are here already.
        fetch: of (URL, admit). Returns an image's bytes. Must call ``admit`` before it holds
            them, which waits for a slot. Must itself give up at the deadline, since ``run_batch``
            waits for it. Called in several threads.
        classify: of (bytes, milliseconds that the download took). Called in this thread.
        on_error: turns an error into the item's result at once. A kept exception would keep its
            traceback, and the traceback the image. A failed download's traceback still prints, but
            its frames are empty.
        deadline: ``time.monotonic()`` moment. An image that is not done by then is a
            ``DeadlineError``. No image is started that would end more than ``GRACE_S`` later if it
            took as long as the longest so far.
        slots: most fetched images in memory at once.
        connections: most servers waited for at once.

    Returns:
        For each source, in order, the result of ``classify`` or ``on_error``.
    """
    from concurrent.futures import ThreadPoolExecutor  # imported here: only batches need it

    results: dict[int, T] = {}
    arrivals: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
    free_slots = threading.Semaphore(slots)

    def download(index: int) -> None:
        source = sources[index]
        if isinstance(source, bytes):
            arrivals.put(_Arrival(index, source, 0.0, holds_slot=False))
            return
        slot = _Slot(free_slots, deadline)
        stopwatch = Stopwatch()
        data = _fetch_or_error(fetch, source, slot, deadline)
        fetch_ms = round(stopwatch.total_ms() - slot.waited_ms, 1)
        if isinstance(data, Exception):
            _clear_frames(data)  # the frames would keep the received part of the image
            slot.give_back()
        arrivals.put(_Arrival(index, data, fetch_ms, slot.is_held))

    longest_s = 0.0
    with ThreadPoolExecutor(connections, "download") as pool:
        for index in range(len(sources)):
            pool.submit(download, index)
        for _ in sources:
            arrival = arrivals.get()
            start = time.monotonic()
            start_by = deadline - max(0.0, longest_s - GRACE_S)
            results[arrival.position] = _classify_or_error(arrival, classify, on_error, start_by)
            longest_s = max(longest_s, time.monotonic() - start)
            holds_slot = arrival.holds_slot
            del arrival  # frees the image before its slot
            if holds_slot:
                free_slots.release()
    return [results[index] for index in range(len(sources))]


class _Slot:
    """One download's place in memory. Calling it is ``admit``.

    Attributes:
        is_held: whether the place was granted and not given back.
        waited_ms: until it was granted.
    """

    def __init__(self, free_slots: threading.Semaphore, deadline: float) -> None:
        self._free_slots = free_slots
        self._deadline = deadline
        self.is_held = False
        self.waited_ms = 0.0

    def __call__(self) -> None:
        if self.is_held:
            return
        stopwatch = Stopwatch()
        remaining_s = max(0.0, self._deadline - time.monotonic())
        self.is_held = self._free_slots.acquire(timeout=remaining_s)
        self.waited_ms = stopwatch.lap_ms()
        if (
            not self.is_held
        ):  # the clock alone does not tell: a wait may end just before its timeout
            raise _too_late()
        _check_time(self._deadline)

    def give_back(self) -> None:
        if self.is_held:
            self.is_held = False
            self._free_slots.release()


def _fetch_or_error(
    fetch: Callable[[str, Callable[[], None]], bytes], url: str, slot: _Slot, deadline: float
) -> bytes | Exception:
    try:
        _check_time(deadline)
        return fetch(url, slot)
    except Exception as error:
        return error


def _classify_or_error(
    arrival: _Arrival,
    classify: Callable[[bytes, float], T],
    on_error: Callable[[Exception], T],
    start_by: float,
) -> T:
    if isinstance(arrival.data, Exception):
        return on_error(arrival.data)
    try:
        _check_time(start_by)
        return classify(arrival.data, arrival.fetch_ms)
    except Exception as error:
        return on_error(error)


def _clear_frames(error: BaseException | None) -> None:
    """Empty the frames of an error and of the errors that led to it."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise _too_late()


def _too_late() -> DeadlineError:
    return DeadlineError("The time for this request ran out before this image's turn.")
