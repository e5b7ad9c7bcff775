"""Lookups end at the deadline, and give back their slots whatever happens."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from lambda_function.errors import DeadlineError, FetchError
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.fetching.deadline import Deadline
from lambda_function.fetching.lookup import LookupPool, start_thread
from tests.support.servers import PUBLIC, Names

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

SLACK_S = 3.0  # that a busy machine may add to a deadline
NAMES = Names({"shop.example": [[PUBLIC]]})


class StuckResolver:
    """A name lookup that does not return until it is released, like getaddrinfo's."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def __call__(self, _name: str) -> list[str]:
        self.released.wait(30)
        return [PUBLIC]


@pytest.fixture
def stuck() -> Iterator[StuckResolver]:
    resolver = StuckResolver()
    yield resolver
    resolver.released.set()
    for _ in range(200):
        if not lookup_threads():
            return
        time.sleep(0.01)
    raise AssertionError("lookups are still running")


def lookup_threads() -> int:
    return sum(thread.name == "lookup" for thread in threading.enumerate())


def in_seconds(seconds: float) -> Deadline:
    return Deadline(time.monotonic() + seconds)


def test_a_stuck_lookup_ends_at_the_deadline_and_its_late_result_is_dropped(
    stuck: StuckResolver,
) -> None:
    connected: list[str] = []

    def connect(address: str, _port: int, _timeout_s: float) -> socket.socket:
        connected.append(address)
        raise ConnectionRefusedError

    start = time.monotonic()
    with pytest.raises(DeadlineError):
        fetch_image("http://s.example/", FetchLimits(9, 0.2), resolve=stuck, connect=connect)
    assert 0.2 <= time.monotonic() - start < 0.2 + SLACK_S
    stuck.released.set()
    assert connected == []


def test_stuck_lookups_are_bounded_and_give_back_their_slots(stuck: StuckResolver) -> None:
    pool = LookupPool(max_lookups=3)
    for _ in range(5):
        with pytest.raises(DeadlineError):
            pool.resolve("s.example", stuck, in_seconds(0.01))
    assert lookup_threads() == 3
    stuck.released.set()
    assert pool.resolve("shop.example", NAMES, in_seconds(SLACK_S)) == [PUBLIC]


def test_a_name_without_addresses_gives_back_its_slot() -> None:
    pool = LookupPool(max_lookups=1)
    for _ in range(3):
        assert pool.resolve("missing.example", NAMES, in_seconds(SLACK_S)) == []


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_a_thread_that_cannot_start_gives_back_its_slot(error: Exception) -> None:
    failures = [error] * 3

    def start(run: Callable[[], None]) -> None:
        if failures:
            raise failures.pop()
        start_thread(run)

    pool = LookupPool(max_lookups=1, start=start)
    for _ in range(3):
        with pytest.raises(FetchError, match="could not be looked up just now"):
            pool.resolve("shop.example", NAMES, in_seconds(SLACK_S))
    assert pool.resolve("shop.example", NAMES, in_seconds(SLACK_S)) == [PUBLIC]
