"""What more outputs cost: the medians of services that take a known time."""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks import micro


class Slow:
    """A service that takes a known time for a request, and more for its first one."""

    def __init__(self, took_s: float) -> None:
        self.took_s, self.images = took_s, []  # type: ignore[var-annotated]

    def predict(self, data: bytes) -> None:
        time.sleep(self.took_s if self.images else 0.1)
        self.images.append(data)


def test_medians_are_of_warm_requests_with_the_same_images_for_each_service() -> None:
    services: Any = [Slow(0.002), Slow(0.02)]

    fast_ms, slow_ms = micro.warm_medians_ms(services, 6)

    assert services[0].images == services[1].images
    assert len(services[0].images) == 7
    assert 2 <= fast_ms < 20
    assert slow_ms == pytest.approx(20, abs=15)
    assert slow_ms > fast_ms
