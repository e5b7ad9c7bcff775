"""``make benchmark``: our function beside the handlers that people copy, in one run.

    python -m benchmarks.compare --rounds 10        writes benchmarks/results/compare.json
    python -m benchmarks.compare --quick            one round, for CI; writes nothing

All run under the real emulator, each on one core with 1,769 MB (one vCPU on Lambda), with the
same pictures over loopback HTTP, turn by turn. Every process is asked 20 times, then for 16
pictures whose servers take 200 ms each: one request where the handler takes many, otherwise one
after another, as a caller would have to. Ours is asked through API Gateway events.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any

from benchmarks.baselines import (
    COURSE,
    COURSE_ONNX,
    COURSE_SIZE,
    PEERS,
    Peer,
    PeerError,
    at_size,
)
from benchmarks.measure import at_least_one, summarise, surroundings, write_result
from benchmarks.rounds import BATCH, MEMORY_MB, REQUESTS, SLOW_S, Run, run_rounds
from benchmarks.table import comparison_table
from deploy import costs
from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import read_metadata
from tools.emulator import EmulatorError


def main() -> None:
    """Measure all peers, print the table, keep the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=at_least_one, default=10)
    parser.add_argument("--peers", nargs="+", help="names; default: all")
    parser.add_argument("--quick", action="store_true", help="one round, few requests, no file")
    arguments = parser.parse_args()
    peers = chosen_peers(arguments.peers)
    for peer in peers:
        peer.prepare()
    context = surroundings()
    if arguments.quick:
        runs = run_rounds(peers, 1, requests=3, batch=4)
        print(comparison_table(describe(peers, runs, batch=4)))
        return
    runs = run_rounds(peers, arguments.rounds)
    result = {**context, **setting(arguments.rounds), **describe(peers, runs, batch=BATCH)}
    print(comparison_table(result))
    if arguments.peers:
        print("nothing was written: the file holds all peers, measured in one run")
        return
    print(f"written: {write_result('compare', result)}")


def chosen_peers(names: list[str] | None) -> list[Peer]:
    """Return the named peers, or all; the course's handlers also at our model's size.

    Raises:
        PeerError: there is no peer of that name.
    """
    released_size = read_metadata(SHIPPED_MODEL).input.height
    peers = list(PEERS)
    if released_size != COURSE_SIZE:
        peers += [at_size(peer, released_size) for peer in (COURSE, COURSE_ONNX)]
    known = {peer.name: peer for peer in peers}
    unknown = set(names or ()) - known.keys()
    if unknown:
        raise PeerError(f"no peer {sorted(unknown)}; there are {sorted(known)}")
    return [peer for name, peer in known.items() if not names or name in names]


def setting(rounds: int) -> dict[str, Any]:
    """Describe how it was measured."""
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


def describe(peers: list[Peer], runs: dict[str, list[Run]], *, batch: int) -> dict[str, Any]:
    """Reduce all runs to figures, by peer, with each one's ratio to the course handler."""
    figures = {peer.name: describe_peer(peer, runs[peer.name], batch=batch) for peer in peers}
    base = figures.get(COURSE.name)
    for figure in figures.values() if base else ():
        figure["ratio"] = ratios(figure, base)
    return {"peers": figures}


def ratios(figure: dict[str, Any], base: dict[str, Any]) -> dict[str, float]:
    """Return one peer's figures divided by another's."""
    return {key: value(figure) / value(base) for key, value in COMPARED.items()}


COMPARED = {
    "cold_s": lambda figure: figure["cold_s"]["median"],
    "warm_s": lambda figure: figure["warm_s"]["median"],
    "warm_p95_s": lambda figure: figure["warm_s"]["p95"],
    "cpu_s": lambda figure: figure["cpu_s"]["median"],
    "peak_mb": lambda figure: figure["peak_mb"]["median"],
    "artifact_mb": lambda figure: figure["artifact_mb"],
    "installed_mb": lambda figure: figure["installed_mb"],
    "slow_pictures_per_s": lambda figure: figure["slow_pictures_per_s"]["median"],
    "usd_per_million": lambda figure: figure["usd_per_million"]["x86_64"],
    "usd_per_million_slow": lambda figure: figure["usd_per_million_slow"]["x86_64"],
}


def describe_peer(peer: Peer, runs: list[Run], *, batch: int) -> dict[str, Any]:
    """Reduce one peer's runs to medians and quartiles, sizes and prices.

    The arm64 prices assume that a request takes as long there as it took here.
    """
    warm = summarise(second for run in runs for second in run.warm_s)
    slow = summarise(run.slow_batch_s for run in runs if run.slow_batch_s)
    rates = summarise(batch / run.slow_batch_s for run in runs if run.slow_batch_s)
    requests = 1 if peer.takes_batches else batch
    return {
        "title": peer.shown if peer.size else our_title(),
        "python": peer.python_version(),
        "versions": peer.versions(),
        "cold_s": dataclasses.asdict(summarise(run.cold_s for run in runs)),
        "warm_s": dataclasses.asdict(warm),
        "cpu_s": dataclasses.asdict(summarise(run.cpu_s for run in runs)),
        "peak_mb": dataclasses.asdict(summarise(run.peak_bytes / 1e6 for run in runs)),
        "artifact_mb": peer.artifact.stat().st_size / 1e6,
        "installed_mb": peer.installed_bytes() / 1e6,
        "slow_pictures_per_s": dataclasses.asdict(rates),
        "usd_per_million": {
            name: costs.usd_per_million(warm.median, memory_mb=MEMORY_MB, architecture=name)
            for name in costs.USD_PER_GB_SECOND
        },
        "usd_per_million_slow": {
            name: costs.usd_per_million(
                slow.median / requests,
                memory_mb=MEMORY_MB,
                architecture=name,
                images_per_request=batch // requests,
            )
            for name in costs.USD_PER_GB_SECOND
        },
    }


def our_title() -> str:
    """Return our column's title: what the shipped artifact says about itself."""
    metadata = read_metadata(SHIPPED_MODEL)
    return f"**this project, as shipped**, {metadata.recipe}, {metadata.input.height} px"


if __name__ == "__main__":
    try:
        main()
    except (EmulatorError, PeerError) as error:
        sys.exit(str(error))
