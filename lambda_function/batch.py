"""Many pictures in one request: downloads run side by side and overlap inference.

Downloads take slots; a slot is free again when its picture is classified. So at most ``slots``
pictures are in memory, whatever the order in which they arrive. Inference stays in the calling
thread, which takes whichever picture is there first. All threads have ended when ``run_batch``
returns: Lambda freezes what is left running, and it would wake inside the next request.
"""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from typing import TYPE_CHECKING, TypeVar

from lambda_function.errors import DeadlineError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")
SLOTS = 4  # 4 pictures of 50 megapixels are 600 MB as RGB, were all decoded at once


def run_batch(
    urls: Sequence[str],
    *,
    load: Callable[[str], bytes],
    classify: Callable[[bytes, float], T],
    refuse: Callable[[Exception], T],
    deadline: float,
    slots: int = SLOTS,
) -> list[T]:
    """Load and classify each address.

    Args:
        urls: of the pictures.
        load: returns a picture's bytes; must itself give up at the deadline, since it is waited
            for. Called in several threads.
        classify: of (bytes, milliseconds that the download took); called in this thread.
        refuse: turns what went wrong into the item's result, at once: an exception kept would
            keep its traceback, and that the picture.
        deadline: ``time.monotonic()`` moment; what is not done by then is a ``DeadlineError``.
        slots: most pictures in memory at once, and most downloads at a time.

    Returns:
        For each address, in order, what ``classify`` or ``refuse`` made of it.
    """
    results: dict[int, T] = {}
    arrived: queue.SimpleQueue[tuple[int, bytes | Exception, float]] = queue.SimpleQueue()
    free = threading.Semaphore(slots)

    def download(index: int) -> None:
        free.acquire()  # given back once per arrival, so this waits no longer than one of them
        start = time.perf_counter()
        arrived.put((index, _try(load, urls[index], deadline), _since_ms(start)))

    with concurrent.futures.ThreadPoolExecutor(slots, "download") as pool:
        for index in range(len(urls)):
            pool.submit(download, index)
        for _ in urls:
            index, loaded, fetch_ms = arrived.get()
            results[index] = _settle(loaded, fetch_ms, classify, refuse, deadline)
            del loaded  # before its slot is given away
            free.release()
    return [results[index] for index in range(len(urls))]


def _try(load: Callable[[str], bytes], url: str, deadline: float) -> bytes | Exception:
    try:
        _check_time(deadline)
        return load(url)
    except Exception as error:
        return error


def _settle(
    loaded: bytes | Exception,
    fetch_ms: float,
    classify: Callable[[bytes, float], T],
    refuse: Callable[[Exception], T],
    deadline: float,
) -> T:
    try:
        if isinstance(loaded, Exception):
            raise loaded
        _check_time(deadline)
        return classify(loaded, fetch_ms)
    except Exception as error:
        return refuse(error)


def _check_time(deadline: float) -> None:
    if time.monotonic() >= deadline:
        raise DeadlineError("The time for this request ran out before this image's turn.")


def _since_ms(start: float) -> float:
    return round((time.perf_counter() - start) * 1e3, 1)
