"""Many images in one request: downloads run side by side and overlap inference.

Up to ``parallel`` images are downloaded or wait for inference at the same time. The next download
starts when one of them is classified. So ``parallel`` bounds the memory, in whatever order the
images arrive. Inference stays in the calling thread, which takes the next image that has arrived.
All threads have ended when ``run_batch`` returns: Lambda would freeze a running thread and wake it
inside the next request.
"""

from __future__ import annotations

import itertools
import queue
import time
import traceback
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from lambda_function.errors import DeadlineError
from lambda_function.stopwatch import Stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
GRACE_S = 0.5  # that an image may take beyond the deadline. A second is kept for the response


class _Arrival(NamedTuple):
    """An image or an error that has arrived."""

    position: int
    data: bytes | Exception
    fetch_ms: float


def run_batch(
    sources: Sequence[str | bytes],
    *,
    fetch: Callable[[str], bytes],
    classify: Callable[[bytes, float], T],
    on_error: Callable[[Exception], T],
    deadline: float,
    parallel: int,
) -> list[T]:
    """Fetch and classify each image.

    Args:
        sources: URLs, or images that are here already.
        fetch: returns the bytes that a URL names. Must itself give up at the deadline, since
            ``run_batch`` waits for it. Called in several threads.
        classify: of (bytes, milliseconds that the download took). Called in this thread.
        on_error: turns an error into the item's result at once. A kept exception would keep its
            traceback, and the traceback the image. A failed download's traceback still prints, but
            its frames are empty.
        deadline: ``time.monotonic()`` moment. An image that is not done by then is a
            ``DeadlineError``. No image is started that would end more than ``GRACE_S`` later if it
            took as long as the longest so far.
        parallel: most images in memory or on their way at once.

    Returns:
        For each source, in order, the result of ``classify`` or ``on_error``.
    """
    from concurrent.futures import ThreadPoolExecutor  # imported here: only batches need it

    results: dict[int, T] = {}
    arrivals: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()

    def download(position: int) -> None:
        stopwatch = Stopwatch()
        data = _fetch_or_error(fetch, sources[position], deadline)
        if isinstance(data, Exception):
            _clear_frames(data)  # the frames would keep the received part of the image
        arrivals.put(_Arrival(position, data, stopwatch.lap_ms()))

    waiting = iter(range(len(sources)))
    longest_s = 0.0
    with ThreadPoolExecutor(parallel, "download") as pool:
        for position in itertools.islice(waiting, parallel):
            pool.submit(download, position)
        for _ in sources:
            arrival = arrivals.get()
            start = time.monotonic()
            start_by = deadline - max(0.0, longest_s - GRACE_S)
            results[arrival.position] = _classify_or_error(arrival, classify, on_error, start_by)
            longest_s = max(longest_s, time.monotonic() - start)
            del arrival  # frees the image before the next download starts
            for position in itertools.islice(waiting, 1):
                pool.submit(download, position)
    return [results[position] for position in range(len(sources))]


def _fetch_or_error(
    fetch: Callable[[str], bytes], source: str | bytes, deadline: float
) -> bytes | Exception:
    if isinstance(source, bytes):
        return source
    try:
        _check_time(deadline)
        return fetch(source)
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
        raise DeadlineError("The time for this request ran out before this image's turn.")
