"""Batches: order, one result or error each, overlap, memory, deadline, no thread left."""

from __future__ import annotations

import gc
import threading
import time
import traceback
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from lambda_function.batches.batch import run_batch
from lambda_function.errors import DeadlineError
from tests.conftest import Api

if TYPE_CHECKING:
    from collections.abc import Callable

    from tools.image_server import ImageServer


def far() -> float:
    return time.monotonic() + 30


def run(urls: list[str], fetch: Callable[[str], bytes], **changed: Any) -> list[Any]:
    """Run a batch whose results are (bytes) or the error's class name."""
    options: dict[str, Any] = {
        "classify": lambda data, fetch_ms: data,
        "on_error": lambda error: type(error).__name__,
        "deadline": far(),
        "parallel": 4,
    }
    return run_batch(urls, fetch=fetch, **options | changed)


def test_results_keep_the_order_of_the_addresses() -> None:
    def fetch(url: str) -> bytes:
        time.sleep(0.05 if url == "0" else 0)  # the first arrives last
        return url.encode()

    urls = [str(i) for i in range(8)]
    assert run(urls, fetch) == [url.encode() for url in urls]


def test_each_item_gets_its_own_error() -> None:
    def fetch(url: str) -> bytes:
        if url == "bad":
            raise LookupError
        return url.encode()

    def classify(data: bytes, fetch_ms: float) -> bytes:
        if data == b"damaged":
            raise ArithmeticError
        return data

    urls = ["a", "bad", "b", "damaged", "c"]
    expected = [b"a", "LookupError", b"b", "ArithmeticError", b"c"]
    assert run(urls, fetch, classify=classify) == expected


def test_downloads_overlap_inference() -> None:
    first_is_classified = threading.Event()

    def fetch(url: str) -> bytes:
        if url == "last" and not first_is_classified.wait(10):
            raise TimeoutError
        return url.encode()

    def classify(data: bytes, fetch_ms: float) -> bytes:
        first_is_classified.set()
        return data

    assert run(["first", "last"], fetch, classify=classify) == [b"first", b"last"]


@pytest.mark.parametrize("parallel", [1, 4, 16])
def test_exactly_the_allowed_number_of_images_is_held_at_once(parallel: int) -> None:
    """An image counts from the start of its download to the end of its inference."""
    lock, held, most = threading.Lock(), 0, 0

    def fetch(url: str) -> bytes:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        time.sleep(0.02 if held < parallel else 0)  # until the others have begun
        return b"x"

    def classify(data: bytes, fetch_ms: float) -> None:
        nonlocal held
        time.sleep(0.002)
        with lock:
            held -= 1

    run(["u"] * 32, fetch, classify=classify, parallel=parallel)
    assert most == parallel


def test_images_that_are_here_already_are_not_fetched() -> None:
    def fetch(url: str) -> bytes:
        raise LookupError

    assert run([b"here", "there", b"too"], fetch) == [b"here", "LookupError", b"too"]  # type: ignore[list-item]


def test_a_failed_download_makes_room_for_the_next() -> None:
    def fetch(url: str) -> bytes:
        raise LookupError

    assert run(["u"] * 32, fetch) == ["LookupError"] * 32


class Held(bytearray):
    """Bytes that a weak reference can watch, as it cannot watch a bytes object."""


@pytest.mark.parametrize("error", [LookupError, DeadlineError])
def test_a_failed_download_keeps_nothing_of_its_image(error: type[Exception]) -> None:
    """Its error waits for its turn beside whole images, so its bytes must be gone."""
    began: list[weakref.ref[Held]] = []
    alive_when_classified: list[int] = []
    all_failed = threading.Event()

    def fetch(url: str) -> bytes:
        if url == "good":
            all_failed.wait(5)
            time.sleep(0.05)  # the last of them has still to be put away
            return b"x"
        body = Held(1000)
        began.append(weakref.ref(body))
        if len(began) == 15:
            all_failed.set()
        try:
            raise OSError(url)
        except OSError as cause:
            raise error("broken off") from cause

    def on_error(error: Exception) -> str:
        time.sleep(0.05)  # the others are waiting
        alive_when_classified.append(sum(body() is not None for body in began))
        return "in fetch\n" if "in fetch\n" in "".join(traceback.format_exception(error)) else "?"

    gc.disable()  # nothing may be left for it to find
    try:
        results = run(["bad"] * 15 + ["good"], fetch, on_error=on_error, parallel=16)
    finally:
        gc.enable()
    assert results == ["in fetch\n"] * 15 + [b"x"]
    assert alive_when_classified[-1] == 0


def test_what_is_not_done_by_the_deadline_is_a_deadline_error() -> None:
    started = []
    deadline = time.monotonic() + 0.3

    def fetch(url: str) -> bytes:
        started.append(url)
        if url == "quick":
            return b"x"
        time.sleep(max(0.0, deadline - time.monotonic()))  # as fetch_image: gives up in time
        raise DeadlineError("too slow")

    results = run(["quick", *["slow"] * 15], fetch, deadline=deadline)
    assert results == [b"x", *["DeadlineError"] * 15]
    assert time.monotonic() - deadline < 0.2
    assert len(started) <= 5  # no download starts after the deadline


def test_no_inference_starts_after_the_deadline() -> None:
    classified = []

    def classify(data: bytes, fetch_ms: float) -> str:
        classified.append(data)
        time.sleep(0.06)
        return "done"

    results = run(["u"] * 8, lambda _: b"x", classify=classify, deadline=time.monotonic() + 0.1)
    assert results.count("done") == len(classified) == 2
    assert results.count("DeadlineError") == 6


def test_no_inference_starts_that_would_end_after_lambda_s_deadline() -> None:
    """After one of 0.8 s none is begun in the last 0.3 s before the deadline."""
    classified = []

    def classify(data: bytes, fetch_ms: float) -> str:
        classified.append(data)
        time.sleep(0.8)
        return "done"

    results = run(["u"] * 3, lambda _: b"x", classify=classify, deadline=time.monotonic() + 1)
    assert results.count("done") == len(classified) == 1
    assert results.count("DeadlineError") == 2


def test_no_thread_outlives_the_batch() -> None:
    before = set(threading.enumerate())
    run(["u"] * 8, lambda _: b"x")
    assert set(threading.enumerate()) == before


def test_a_batch_returns_results_and_errors_in_order(api: Api, server: Any) -> None:
    urls = [server.url("/red.png"), server.url("/missing"), "ftp://x/y", server.url("/blue.png")]
    body = api.post_json({"urls": urls, "top_k": 1}).json
    assert set(body) == {"results", "model", "timings_ms", "request_id"}
    red, missing, ftp, blue = body["results"]
    assert red["predictions"][0]["label"] == "red"
    assert set(red["timings_ms"]) == {"fetch", "decode", "preprocess", "inference"}
    assert blue["predictions"][0]["label"] == "blue"
    assert len(blue["predictions"]) == 1
    assert set(missing["error"]) == {"type", "title", "status", "detail", "code"}
    assert (missing["error"]["status"], missing["error"]["code"]) == (502, "fetch_failed")
    assert ftp["error"]["status"] == 400


def test_32_addresses_work_and_the_log_counts_them(api: Api, server: Any) -> None:
    urls = [server.url("/red.png")] * 31 + [server.url("/missing")]
    assert len(api.invoke({"urls": urls})["results"]) == 32
    line = api.lines[-1]
    assert (line["items"], line["items_done"]) == (32, 31)
    assert line["item_codes"] == ["fetch_failed"]
    assert line["ServerError"] == 0
    assert "code" not in line  # the request itself went well


def test_an_address_that_is_named_twice_is_fetched_once(api: Api, server: ImageServer) -> None:
    urls = [server.url(path) for path in ("/red.png", "/gone", "/red.png", "/blue.png", "/gone")]
    before = server.requests
    results = api.post_json({"urls": urls}).json["results"]
    assert server.requests - before == 3
    best = [r["predictions"][0]["label"] if "predictions" in r else None for r in results]
    assert best == ["red", None, "red", "blue", None]
    line = api.lines[-1]
    assert (line["items"], line["items_done"], line["labels"]) == (5, 3, {"red": 2, "blue": 1})


def test_items_without_time_left_get_504(api: Api, server: ImageServer) -> None:
    api.remaining_s = 1.8  # less the margin of 1 s
    urls = [server.url("/slow.png"), server.url("/red.png")] + [
        server.url(f"/slow.png?{n}") for n in range(6)
    ]
    before = set(threading.enumerate())
    results = api.post_json({"urls": urls}).json["results"]
    assert results[1]["predictions"][0]["label"] == "red"
    slow = results[:1] + results[2:]
    assert [item["error"]["status"] for item in slow] == [504] * 7
    assert api.lines[-1]["Latency"] < 1700
    ours = [t for t in set(threading.enumerate()) - before if t.name.startswith("download")]
    assert ours == []
