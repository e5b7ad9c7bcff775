"""This function beside the handlers that people copy, in one interleaved run.

    python -m benchmarks compare --write       writes benchmarks/results/compare.json
    python -m benchmarks compare --quick       one round, for CI, writes nothing

Every handler runs under the real emulator, on one core with 1,769 MB (one vCPU on Lambda), with
the instruction sets of Lambda (AVX2) and, beside it, with the machine's own. All get the same
images over loopback HTTP. Every process gets 20 requests, then 16 images whose servers take
200 ms each: in one request where the handler takes many, otherwise one after another, as a caller
would have to send them. This function gets API Gateway events.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from benchmarks.baselines import COURSE, COURSE_ONNX, COURSE_SIZE, HANDLERS, Baseline, at_size
from benchmarks.harness import (
    BATCH,
    MEMORY_MB,
    REQUESTS,
    RESULTS,
    SLOW_S,
    Run,
    at_least_one,
    command_line,
    origin,
    run_rounds,
    summarise,
    to_plain,
    write_result,
)
from benchmarks.masking import lanes
from benchmarks.report.tables import comparison_table
from deploy import costs
from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import read_metadata


def main(arguments: list[str]) -> None:
    """Measure, print the tables and keep the result."""
    parser = command_line("compare", __doc__)
    parser.add_argument("--rounds", type=at_least_one, default=10)
    handlers = all_handlers()
    names = [handler.name for handler in handlers]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--quick", action="store_true", help="one round, few requests")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/compare.json")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="for any choice of the above")
    options = parser.parse_args(arguments)
    if options.write and (options.only != names or options.quick):
        parser.error("--write keeps all handlers, measured in one run of full length")
    handlers = [handler for handler in handlers if handler.name in options.only]
    for handler in handlers:
        handler.prepare()
    chosen = lanes()
    record = origin(chosen)
    rounds, requests, batch = (1, 3, 4) if options.quick else (options.rounds, REQUESTS, BATCH)
    runs = run_rounds(handlers, chosen, rounds, requests=requests, batch=batch)
    measured = {
        lane: {h.name: describe_handler(h, taken[h.name], batch=batch) for h in handlers}
        for lane, taken in runs.items()
    }
    result = {**record, **setting(rounds), "handlers": measured}
    for lane in measured:
        print(f"\n{lane}: {', '.join(record['provenance']['instruction_sets'][lane])}\n")
        print(comparison_table(result, lane))
    if options.write or options.out:
        write_result("compare", result, folder=options.out or RESULTS)


def all_handlers() -> list[Baseline]:
    """Return all handlers. The course's also come at our model's size."""
    released_size = read_metadata(SHIPPED_MODEL).input.height
    if released_size == COURSE_SIZE:
        return list(HANDLERS)
    return [*HANDLERS, *(at_size(handler, released_size) for handler in (COURSE, COURSE_ONNX))]


def setting(rounds: int) -> dict[str, Any]:
    """Return how it is measured, and with which model and costs."""
    metadata = read_metadata(SHIPPED_MODEL)
    return {
        "rounds": rounds,
        "requests_per_process": REQUESTS,
        "memory_mb": MEMORY_MB,
        "cores_per_handler": 1,
        "slow_server_s": SLOW_S,
        "prices": {"date": costs.DATE, "source": costs.SOURCE, "region": costs.REGION},
        "our_model": {
            "version": metadata.version,
            "recipe": metadata.recipe,
            "size": metadata.input.height,
        },
    }


def describe_handler(handler: Baseline, runs: list[Run], *, batch: int) -> dict[str, Any]:
    """Reduce one handler's runs to medians and quartiles, sizes and costs.

    The arm64 prices assume that a request takes as long there as it took here.
    """
    warm = summarise(second for run in runs for second in run.warm_s)
    slow = [run.slow_batch_s for run in runs if run.slow_batch_s]
    requests = 1 if handler.takes_batches else batch
    return {
        "title": handler.shown if handler.size else our_title(),
        "python": handler.python_version(),
        "versions": handler.versions(),
        "cold_s": dataclasses.asdict(summarise(run.cold_s for run in runs)),
        "warm_s": dataclasses.asdict(warm),
        "cpu_s": dataclasses.asdict(summarise(run.cpu_s for run in runs)),
        "peak_mb": dataclasses.asdict(summarise(run.peak_bytes / 1e6 for run in runs)),
        "artifact_mb": handler.artifact.stat().st_size / 1e6,
        "installed_mb": handler.installed_bytes() / 1e6,
        "slow_images_per_s": dataclasses.asdict(summarise(batch / taken_s for taken_s in slow)),
        # Of the figure that the file shows, so that deploy.costs comes to the same price.
        "usd_per_million": _usd_per_million(to_plain(warm.median), 1),
        "usd_per_million_slow": _usd_per_million(
            summarise(slow).median / requests, batch // requests
        ),
    }


def our_title() -> str:
    """Return our column's title: what the shipped artifact says about itself."""
    metadata = read_metadata(SHIPPED_MODEL)
    return f"**this project, as shipped**, {metadata.recipe}, {metadata.input.height} px"


def _usd_per_million(request_s: float, images_per_request: int) -> dict[str, float]:
    return {
        name: costs.usd_per_million(
            request_s,
            memory_mb=MEMORY_MB,
            architecture=name,
            images_per_request=images_per_request,
        )
        for name in costs.USD_PER_GB_SECOND
    }
