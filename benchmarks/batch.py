"""What a batch of slow servers takes beside its bare work: 16 pictures, 200 ms a server.

    python -m benchmarks.batch --write

The bar: the first download plus 1.15 times 16 bare decode-and-inference times. Each round measures
all three, so that a change of the machine's speed meets all; the median of the rounds counts.
Handler, fetching and servers share this process, on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import time
from typing import TYPE_CHECKING

from benchmarks.measure import at_least_one, summarise, surroundings, write_result
from lambda_function.app import handle
from lambda_function.service import Service, load_service
from lambda_function.settings import Settings
from tools.emulator import REPOSITORY
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Sequence

BAR = 1.15
PICTURES = 16
DELAY_S = 0.2
EXAMPLES = sorted((REPOSITORY / "examples").glob("*.jpg"))


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.batch",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=at_least_one, default=11)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/batch.json")
    arguments = parser.parse_args()
    context = surroundings()
    found = summarise(measure(arguments.rounds))
    print(
        f"(batch - first download) / {PICTURES} bare: {found.median:.3f} "
        f"({found.low:.3f}-{found.high:.3f}, n={found.count}); bar {BAR}"
    )
    if arguments.write:
        print(f"written: {write_result('batch', {**context, 'ratio': found, 'bar': BAR})}")


def measure(rounds: int, *, service: Service | None = None) -> list[float]:
    """Return each round's (batch - first download) / bare work.

    Args:
        rounds: after one that warms up.
        service: whose settings are replaced; the shipped model by default.
    """
    photos = [photo.read_bytes() for photo in EXAMPLES]
    photos = list(itertools.islice(itertools.cycle(photos), PICTURES))
    resources = {f"/{n}.jpg": Resource(photo, delay_s=DELAY_S) for n, photo in enumerate(photos)}
    with ImageServer(resources) as server:
        settings = Settings(trusted_image_hosts=frozenset({server.host}))
        loaded = service or load_service(settings)
        ready = Service(settings, loaded.classifier)
        urls = [server.url(path) for path in resources]
        return [_ratio(ready, urls, photos) for _ in range(rounds + 1)][1:]


def _ratio(service: Service, urls: list[str], photos: Sequence[bytes]) -> float:
    start = time.perf_counter()
    for photo in photos:
        service.predict(photo)
    bare_s = time.perf_counter() - start
    start = time.perf_counter()
    service.fetch(urls[0], deadline=None, allow_s3=False)
    first_download_s = time.perf_counter() - start
    start = time.perf_counter()
    answer = handle({"urls": urls}, None, service, write=lambda _: None)
    batch_s = time.perf_counter() - start
    assert all("predictions" in item for item in answer["results"]), answer
    return (batch_s - first_download_s) / bare_s


if __name__ == "__main__":
    main()
