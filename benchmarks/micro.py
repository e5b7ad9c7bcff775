"""What the function's own code takes beside inference, in this process.

    python -m benchmarks micro --write

``overhead``: routing, JSON and logging of one warm request. The service has its prediction
ready. The bar is 5 ms.

``batch``: 16 images whose servers take 200 ms each. The bar is the first download plus 1.15 times
the bare decoding and inference of 16. Each round measures all three, so a change of the machine's
speed meets all. Handler, fetching and servers share this process on an otherwise idle machine.

Both run with the instruction sets of Lambda.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from benchmarks.harness import (
    BATCH,
    SLOW_S,
    at_least_one,
    command_line,
    origin,
    summarise,
    write_result,
)
from benchmarks.masking import enter_lane, lambda_lane
from lambda_function import EXAMPLES, SHIPPED_MODEL
from lambda_function.app import handle
from lambda_function.classifier import Classifier
from lambda_function.service import Prediction, RequestContext, Service, load_service
from lambda_function.settings import Settings
from tools.gateway import http_event
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

OVERHEAD_BAR_MS = 5.0
BATCH_BAR = 1.15
STAGES = ("fetch", "decode", "preprocess", "inference")


class ReadyService(Service):
    """A service whose image is fetched, decoded and classified already."""

    def fetch(self, url: str, **_: object) -> bytes:
        """Return some bytes at once."""
        return url.encode()

    def predict(self, data: bytes, *, fetch_ms: float = 0.0, **_: object) -> Prediction:
        """Return a prediction of full size at once."""
        labels = self.classifier.metadata.labels
        scores = tuple((label, 1 / len(labels)) for label in labels)
        timings_ms = dict.fromkeys(STAGES, 1.0) | {"fetch": fetch_ms}
        return Prediction(scores, timings_ms, len(data), (533, 400))


def main(arguments: list[str]) -> None:
    """Measure, print and keep the results."""
    parser = command_line("micro", __doc__)
    parser.add_argument("--requests", type=at_least_one, default=2000, help="of overhead")
    parser.add_argument("--rounds", type=at_least_one, default=11, help="of batch")
    parser.add_argument("--quick", action="store_true", help="100 requests, 1 round")
    parser.add_argument("--write", action="store_true", help="results/overhead.json, batch.json")
    options = parser.parse_args(arguments)
    enter_lane(lambda_lane())
    record = origin()
    requests, rounds = (100, 1) if options.quick else (options.requests, options.rounds)
    overhead = summarise(overhead_ms(requests))
    print(
        f"routing, JSON and logging: {overhead.median:.3f} ms ({overhead.low:.3f}-"
        f"{overhead.high:.3f}, n={overhead.count}), bar {OVERHEAD_BAR_MS} ms"
    )
    batch = summarise(batch_ratios(rounds))
    print(
        f"(batch - first download) / {BATCH} bare: {batch.median:.3f} "
        f"({batch.low:.3f}-{batch.high:.3f}, n={batch.count}), bar {BATCH_BAR}"
    )
    if options.write:
        write_result("overhead", {**record, "handler_ms": overhead, "bar_ms": OVERHEAD_BAR_MS})
        write_result("batch", {**record, "ratio": batch, "bar": BATCH_BAR})


def overhead_ms(requests: int) -> list[float]:
    """Return the milliseconds of each request. The first tenth warms up and is left out."""
    service = ReadyService(Settings(), Classifier(SHIPPED_MODEL))
    event = http_event("POST", "/predict", json_body={"url": "https://example.com/pants.jpg"})
    taken = []
    for _ in range(requests):
        start = time.perf_counter()
        response = handle(event, None, service, write=lambda _: None)
        taken.append((time.perf_counter() - start) * 1e3)
        assert response["statusCode"] == 200, response
    return taken[requests // 10 :]


def batch_ratios(rounds: int) -> list[float]:
    """Return each round's (batch - first download) / bare work, after one that warms up."""
    files = [file.read_bytes() for file in sorted(EXAMPLES.iterdir())]
    images = list(itertools.islice(itertools.cycle(files), BATCH))
    resources = {f"/{n}.jpg": Resource(image, delay_s=SLOW_S) for n, image in enumerate(images)}
    with ImageServer(resources) as server:
        service = load_service(Settings(trusted_image_hosts=frozenset({server.host})))
        urls = [server.url(path) for path in resources]
        return [_batch_ratio(service, urls, images) for _ in range(rounds + 1)][1:]


def _batch_ratio(service: Service, urls: list[str], images: Sequence[bytes]) -> float:
    start = time.perf_counter()
    for image in images:
        service.predict(image)
    bare_s = time.perf_counter() - start
    start = time.perf_counter()
    RequestContext(service, None, is_http=True).fetch(urls[0])
    first_download_s = time.perf_counter() - start
    start = time.perf_counter()
    response = handle({"urls": urls}, None, service, write=lambda _: None)
    batch_s = time.perf_counter() - start
    failed = [item for item in response["results"] if "predictions" not in item]
    assert not failed, failed[0]
    return (batch_s - first_download_s) / bare_s
