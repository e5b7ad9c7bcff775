"""How time and memory grow: with the image's megapixels, the batch and the threads.

    python -m benchmarks scaling --write

Each figure comes from the real emulator, with the instruction sets of Lambda. Memory is the highest
that a fresh process has held, so every point has a process of its own. Time is the median of a few
warm requests. Images are drawn here: noise over a gradient, as hard to decode as a photo's grain.

Two threads stand for 3,538 MB, where Lambda gives two vCPUs. More cannot be measured on two cores.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.baselines import CORE, OURS
from benchmarks.harness import (
    MEMORY_MB,
    at_least_one,
    command_line,
    origin,
    summarise,
    write_result,
)
from benchmarks.masking import lambda_lane
from tools.emulator import EmulatorError
from tools.image_server import ImageServer, Resource
from training.data.augment import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.masking import Lane

MEGAPIXELS = (0.2, 1, 3, 6, 12, 24, 48)
BATCHES = (1, 2, 4, 8, 16, 32)


def main(arguments: list[str]) -> None:
    """Measure, print and keep the result."""
    parser = command_line("scaling", __doc__)
    parser.add_argument("--requests", type=at_least_one, default=10, help="warm ones a point")
    parser.add_argument("--quick", action="store_true", help="two points a row, few requests")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/scaling.json")
    options = parser.parse_args(arguments)
    OURS.prepare()
    lane = lambda_lane()
    record = origin({lane.name: lane})
    requests = 2 if options.quick else options.requests
    count = 2 if options.quick else None
    result: dict[str, list[dict[str, Any]]] = {"megapixels": [], "batch": [], "threads": []}
    for name, point in points(lane, requests, count):
        print(f"{name} {point['at']}: {point['elapsed_s'].median:.3f} s, {point['peak_mb']:.0f} MB")
        result[name].append(point)
    if options.write:
        write_result("scaling", {**record, **result})


def points(lane: Lane, requests: int, count: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure and yield (what grows, point).

    Args:
        lane: instruction sets that the function sees.
        requests: warm ones for each point.
        count: points for each thing that grows. None for all.
    """
    images = {f"/{size}.jpg": Resource(draw_photo(size)) for size in MEGAPIXELS[:count]}
    with ImageServer(images) as server:
        small = server.url(f"/{MEGAPIXELS[0]}.jpg")
        for size in MEGAPIXELS[:count]:
            event: dict[str, Any] = {"url": server.url(f"/{size}.jpg")}
            yield "megapixels", measure(size, event, lane, server.host, requests)
        for images_per_request in BATCHES[:count]:
            event = {"urls": [f"{small}?{number}" for number in range(images_per_request)]}
            yield "batch", measure(images_per_request, event, lane, server.host, requests)
        for threads in range(1, len(os.sched_getaffinity(0)) + 1):
            yield (
                "threads",
                measure(threads, {"url": small}, lane, server.host, requests, threads=threads),
            )


def measure(
    at: float,
    event: dict[str, Any],
    lane: Lane,
    host: str,
    requests: int,
    *,
    threads: int | None = None,
) -> dict[str, Any]:
    """Return one point: a fresh process, its warm time and its highest memory.

    Args:
        at: the number that grows.
        event: to send.
        lane: instruction sets that the function sees.
        host: of the image server.
        requests: warm ones.
        threads: of the interpreter, on as many cores. None for one core and the default.

    Raises:
        EmulatorError: an image was not classified.
    """
    emulator = OURS.emulator(
        lane,
        memory_mb=MEMORY_MB * (threads or 1),
        trusted_hosts=[host],
        env={"INTERPRETER_THREADS": str(threads)} if threads else {},
        core=CORE if threads in (None, 1) else None,
    )
    with emulator:
        replies = [emulator.invoke(event) for _ in range(requests + 1)]
        peak_mb = emulator.peak_resident_bytes() / 1e6
    for reply in replies:
        items = reply.body.get("results", [reply.body]) if isinstance(reply.body, dict) else []
        if not items or any("predictions" not in item for item in items):
            raise EmulatorError(f"at {at}: {str(reply.body)[:500]}")
    elapsed_s = summarise(reply.elapsed_s for reply in replies[1:])
    return {"at": at, "elapsed_s": elapsed_s, "peak_mb": peak_mb}


def draw_photo(megapixels: float) -> bytes:
    """Return a JPEG of 3:4 with that many million pixels."""
    height = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    width = round(height * 3 / 4)
    rows = np.linspace(40, 200, height, dtype=np.float32)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3)).astype(np.float32)
    pixels = (rows + noise).clip(0, 255).astype(np.uint8)
    return encoded(Image.fromarray(pixels), "JPEG", quality=85)
