"""What all benchmarks share: statistics, interleaved runs under the emulator, result files.

One run of a handler is one fresh process. Its first response is a cold start, the others are warm.
At the end its memory and processor time are read from the kernel. A round goes through all handlers
and lanes (``benchmarks.masking``) before it repeats, so a slow minute of the machine hits all.

Directly before each counted run the same handler is started once, uncounted. Which files are still
in the caches must not depend on how many handlers a round has.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.baselines import CORE, Baseline
from benchmarks.masking import visible
from lambda_function import EXAMPLES, REPOSITORY
from tools.emulator import Emulator, EmulatorError, Reply
from tools.image_server import ImageServer, Resource
from training.files import write_json
from training.provenance import provenance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from benchmarks.masking import Lane

RESULTS = REPOSITORY / "benchmarks" / "results"
MEMORY_MB = 1769  # AWS: one vCPU. Every handler gets one core here.
REQUESTS = 20  # to each process, before its memory is read
BATCH = 16  # images
SLOW_S = 0.2  # until a slow image server starts to respond


@dataclasses.dataclass(frozen=True)
class Summary:
    """A measured quantity.

    Attributes:
        median: of all measurements.
        low: the first quartile.
        high: the third quartile.
        p95: the 95th percentile. With few measurements it is close to the largest one.
        count: number of measurements.
    """

    median: float
    low: float
    high: float
    p95: float
    count: int


@dataclasses.dataclass(frozen=True)
class Run:
    """What one process of one handler showed.

    Attributes:
        cold_s: from just before process start to the first response.
        warm_s: of each later request, as the caller sees it.
        cpu_s: processor time of the handler for one warm request, on average.
        peak_bytes: highest memory, after all requests but the slow batch.
        slow_batch_s: for ``BATCH`` images from slow servers. None where it was not measured.
    """

    cold_s: float
    warm_s: tuple[float, ...]
    cpu_s: float
    peak_bytes: int
    slow_batch_s: float | None


def summarise(values: Iterable[float]) -> Summary:
    """Reduce measurements to median, quartiles and 95th percentile.

    Raises:
        ValueError: there is no measurement.
    """
    measured = list(values)
    if not measured:
        raise ValueError("no measurement to summarise")
    low, median, high, p95 = np.percentile(measured, (25, 50, 75, 95)).tolist()
    return Summary(median, low, high, p95, count=len(measured))


def origin(measured_lanes: Mapping[str, Lane] | None = None) -> dict[str, Any]:
    """Return the provenance record of a measurement. Call it before measuring.

    Args:
        measured_lanes: the lanes of the started programs, checked here. By default the record
            names the instruction sets of this process.

    Raises:
        MaskingError: a lane does not hide what it must.
    """
    sets: Any = visible()
    if measured_lanes:
        sets = {name: lane.instruction_sets() for name, lane in measured_lanes.items()}
    return {"provenance": {**provenance(), "instruction_sets": sets}}


def write_result(name: str, measured: Mapping[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write a benchmark's result, print where it is, and return the file."""
    path = folder / f"{name}.json"
    write_json(path, to_plain(measured))
    print(f"written: {path}")
    return path


def to_plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries, and round to four digits: no more can be measured."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def command_line(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser for ``python -m benchmarks NAME``."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def at_least_one(text: str) -> int:
    """Read a number of rounds or requests from a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on. Received: {text}")
    return int(text)


def run_rounds(
    handlers: Iterable[Baseline],
    lanes: Mapping[str, Lane],
    rounds: int,
    *,
    requests: int,
    batch: int,
) -> dict[str, dict[str, list[Run]]]:
    """Run every handler in every lane once a round, each time from a filled file cache.

    Args:
        handlers: prepared ones.
        lanes: by name.
        rounds: counted rounds.
        requests: to each process.
        batch: images from slow servers at the end of a run. 0 for none.

    Returns:
        The runs by lane and handler.

    Raises:
        EmulatorError: a handler did not classify an image. A fast error is no fast response.
    """
    handlers = list(handlers)
    runs: dict[str, dict[str, list[Run]]] = {
        lane: {handler.name: [] for handler in handlers} for lane in lanes
    }
    with example_server() as server:
        leave_the_core()
        for _ in tqdm(range(rounds), desc="measuring", unit="round", disable=None):
            for handler in handlers:
                for lane in lanes.values():
                    run_once(handler, lane, server, requests=1, batch=0)
                    run = run_once(handler, lane, server, requests=requests, batch=batch)
                    runs[lane.name][handler.name].append(run)
    return runs


def run_once(
    handler: Baseline, lane: Lane, server: ImageServer, *, requests: int, batch: int
) -> Run:
    """Start one process, send its requests, and read its memory and processor time."""
    urls = [server.url(path) for path in sorted(server.resources) if path.startswith("/fast/")]
    events = [handler.event(urls[number % len(urls)]) for number in range(requests)]
    with handler.emulator(lane, trusted_hosts=[server.host], memory_mb=MEMORY_MB) as emulator:
        classify(emulator, handler, events[0])
        cold_s = time.perf_counter() - emulator.started_at
        cpu_before_s = emulator.cpu_seconds()
        warm_s = tuple(classify(emulator, handler, event).elapsed_s for event in events[1:])
        cpu_s = (emulator.cpu_seconds() - cpu_before_s) / max(1, len(warm_s))
        peak_bytes = emulator.peak_resident_bytes()
        slow_urls = [server.url(f"/slow/{number}.jpg") for number in range(batch)]
        slow_batch_s = classify_batch(emulator, handler, slow_urls) if slow_urls else None
    return Run(cold_s, warm_s, cpu_s, peak_bytes, slow_batch_s)


def classify(emulator: Emulator, handler: Baseline, event: dict[str, Any]) -> Reply:
    """Send one event and check that the image was classified.

    Raises:
        EmulatorError: it was not.
    """
    reply = emulator.invoke(event)
    body = reply.body
    if not isinstance(body, dict) or not (body.get("statusCode") == 200 or "pants" in body):
        raise EmulatorError(f"{handler.name} responded {str(body)[:500]}")
    return reply


def classify_batch(emulator: Emulator, handler: Baseline, urls: list[str]) -> float:
    """Return the seconds for several images: one request where the handler takes many.

    Raises:
        EmulatorError: not every image was classified.
    """
    if not handler.takes_batches:
        return sum(classify(emulator, handler, handler.event(url)).elapsed_s for url in urls)
    reply = emulator.invoke({"urls": urls})
    results = reply.body.get("results", []) if isinstance(reply.body, dict) else []
    if len([item for item in results if "predictions" in item]) != len(urls):
        raise EmulatorError(f"{handler.name} responded {str(reply.body)[:500]}")
    return reply.elapsed_s


def example_server() -> ImageServer:
    """Return a server of the example images: under /fast/ at once, under /slow/ after a delay."""
    images = [file.read_bytes() for file in sorted(EXAMPLES.iterdir())]
    resources = {f"/fast/{number}.jpg": Resource(data) for number, data in enumerate(images)}
    for number in range(BATCH):
        data = images[number % len(images)]
        resources[f"/slow/{number}.jpg"] = Resource(data, delay_s=SLOW_S)
    return ImageServer(resources)


def leave_the_core() -> None:
    """Keep this process, and threads that it starts from now on, off the handlers' core."""
    others = os.sched_getaffinity(0) - {CORE}
    if others:
        os.sched_setaffinity(0, others)
