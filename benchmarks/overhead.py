"""What a warm request costs beside fetching, decoding and inference: routing, JSON, logging.

    python -m benchmarks.overhead --write

The handler runs in this process with a service that has its answer ready, so that nothing but
the overhead is left. The bar is 5 ms.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from benchmarks.measure import at_least_one, summarise, surroundings, write_result
from lambda_function import SHIPPED_MODEL
from lambda_function.app import handle
from lambda_function.classifier import Classifier
from lambda_function.service import Prediction, Service
from lambda_function.settings import Settings
from tools.emulator import http_event

if TYPE_CHECKING:
    from collections.abc import Callable

BAR_MS = 5.0


class ReadyService(Service):
    """A service whose image is fetched, decoded and classified already."""

    def fetch(self, url: str, **_: object) -> bytes:
        """Return some bytes at once."""
        return url.encode()

    def predict(self, data: bytes, *, fetch_ms: float = 0.0) -> Prediction:
        """Return a prediction of full size at once."""
        labels = self.classifier.metadata.labels
        scores = tuple((label, 1 / len(labels)) for label in labels)
        timings_ms = dict.fromkeys(STAGES, 1.0) | {"fetch": fetch_ms}
        return Prediction(scores, timings_ms, len(data), (533, 400))


STAGES = ("fetch", "decode", "preprocess", "inference")


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=at_least_one, default=2000)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/overhead.json")
    arguments = parser.parse_args()
    context = surroundings()
    lines: list[str] = []
    found = summarise(handler_ms(arguments.requests, lines.append))
    print(
        f"routing, JSON and logging: {found.median:.3f} ms ({found.low:.3f}-{found.high:.3f}, "
        f"95th percentile {found.p95:.3f}, n={found.count}); bar {BAR_MS} ms"
    )
    if arguments.write:
        result = {**context, "handler_ms": found, "bar_ms": BAR_MS}
        print(f"written: {write_result('overhead', result)}")


def handler_ms(requests: int, write: Callable[[str], None]) -> list[float]:
    """Return the milliseconds of each request; the first tenth, warming up, is left out."""
    service = ReadyService(Settings(), Classifier(SHIPPED_MODEL))
    event = http_event("POST", "/predict", json_body={"url": "https://example.com/pants.jpg"})
    taken = []
    for _ in range(requests):
        start = time.perf_counter()
        answer = handle(event, None, service, write=write)
        taken.append((time.perf_counter() - start) * 1e3)
        assert answer["statusCode"] == 200, answer
    return taken[requests // 10 :]


if __name__ == "__main__":
    main()
