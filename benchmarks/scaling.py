"""How latency and memory grow: with the picture's megapixels, the batch, and the threads.

    python -m benchmarks.scaling --write

Each figure comes from the real emulator. Memory is the highest that a fresh process has held, so
every point has a process of its own; latency is its median over a few warm requests. Pictures are
drawn here: noise over a gradient, as hard on a decoder as a photograph's grain.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.baselines import CORE, OURS, PeerError
from benchmarks.measure import at_least_one, summarise, surroundings, write_result
from benchmarks.rounds import MEMORY_MB
from tools.emulator import Emulator, EmulatorError
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEGAPIXELS = (0.2, 1, 3, 6, 12, 24, 48)
BATCHES = (1, 2, 4, 8, 16, 32)


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--requests", type=at_least_one, default=10, help="warm ones a point")
    parser.add_argument("--quick", action="store_true", help="two points a row, few requests")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/growth.json")
    arguments = parser.parse_args()
    OURS.prepare()
    context = surroundings()
    requests = 2 if arguments.quick else arguments.requests
    take = slice(0, 2) if arguments.quick else slice(None)
    result = {
        "megapixels": by_megapixels(MEGAPIXELS[take], requests),
        "batch": by_batch(BATCHES[take], requests),
        "threads": by_threads(range(1, len(os.sched_getaffinity(0)) + 1), requests),
    }
    for name, points in result.items():
        for point in points:
            print(
                f"{name} {point['at']}: {point['elapsed_s'].median:.3f} s, "
                f"{point['peak_mb']:.0f} MB"
            )
    if arguments.write:
        print(f"written: {write_result('growth', {**context, **result})}")


def by_megapixels(sizes: Sequence[float], requests: int) -> list[dict[str, Any]]:
    """Ask for one JPEG of each size, in megapixels, on one core."""
    resources = {f"/{size}.jpg": Resource(photograph(size)) for size in sizes}
    with ImageServer(resources) as server:
        return [
            measure(size, {"url": server.url(f"/{size}.jpg")}, server, requests) for size in sizes
        ]


def by_batch(sizes: Sequence[int], requests: int) -> list[dict[str, Any]]:
    """Ask for several pictures of 0.2 megapixels in one request, on one core."""
    with ImageServer({"/a.jpg": Resource(photograph(0.2))}) as server:
        return [
            measure(
                size,
                {"urls": [server.url(f"/a.jpg?{number}") for number in range(size)]},
                server,
                requests,
            )
            for size in sizes
        ]


def by_threads(counts: Sequence[int], requests: int) -> list[dict[str, Any]]:
    """Give the interpreter several threads, and the function as many cores as there are."""
    with ImageServer({"/a.jpg": Resource(photograph(0.2))}) as server:
        event = {"url": server.url("/a.jpg")}
        return [
            measure(
                count, event, server, requests, env={"INTERPRETER_THREADS": str(count)}, core=None
            )
            for count in counts
        ]


def measure(
    at: float,
    event: dict[str, Any],
    server: ImageServer,
    requests: int,
    *,
    env: Mapping[str, str] | None = None,
    core: int | None = CORE,
) -> dict[str, Any]:
    """Return one point: a fresh process, its warm latency and its highest memory.

    Raises:
        EmulatorError: a picture was not classified.
    """
    emulator = Emulator(
        python=OURS.venv / "bin" / "python",
        env={"TRUSTED_IMAGE_HOSTS": server.host, **(env or {})},
        memory_mb=MEMORY_MB,
        core=core,
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


def photograph(megapixels: float) -> bytes:
    """Return a JPEG of 3:4 with that many million pixels."""
    height = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    width = round(height * 3 / 4)
    rows = np.linspace(40, 200, height, dtype=np.float32)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 12, (height, width, 3)).astype(np.float32)
    pixels = (rows + noise).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    try:
        main()
    except (EmulatorError, PeerError) as error:
        sys.exit(str(error))
