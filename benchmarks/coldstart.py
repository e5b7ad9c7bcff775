"""From process start to the first answer: ours beside the course handler, in one run.

    python -m benchmarks.coldstart --rounds 15

Both run under the real emulator, each on one core, with the same pictures over loopback HTTP,
turn by turn. Ours gets what API Gateway sends for ``POST /predict``, the course handler its own
``{"url": ...}``. The bar is a ratio of at most 0.65, the goal 0.50.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.baselines import COURSE, OURS, PEERS, Peer, PeerError
from benchmarks.measure import Summary, at_least_one, summarise, surroundings, write_result
from benchmarks.rounds import run_rounds
from tools.emulator import EmulatorError

BAR, GOAL = 0.65, 0.50
REQUESTS = 6  # a start: one cold, the others warm


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coldstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=at_least_one, default=15)
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS])
    parser.add_argument("--write", action="store_true", help="benchmarks/results/coldstart.json")
    arguments = parser.parse_args()
    named = arguments.peers or [COURSE.name, OURS.name]
    peers = [peer for peer in PEERS if peer.name in named]
    context = surroundings()
    for peer in peers:
        peer.prepare()
    runs = run_rounds(peers, arguments.rounds, requests=REQUESTS, batch=0)
    cold = {name: summarise(run.cold_s for run in found) for name, found in runs.items()}
    warm = {name: summarise(s for run in found for s in run.warm_s) for name, found in runs.items()}
    _print(peers, cold, warm)
    if arguments.write:
        versions = {peer.name: peer.versions() for peer in peers}
        result = {**context, "versions": versions, "cold_s": cold, "warm_s": warm}
        print(f"written: {write_result('coldstart', result)}")


def _print(peers: list[Peer], cold: dict[str, Summary], warm: dict[str, Summary]) -> None:
    for peer in peers:
        first, later = cold[peer.name], warm[peer.name]
        print(
            f"{peer.shown}: start to first answer {first.median:.3f} s "
            f"({first.low:.3f}-{first.high:.3f}, n={first.count}), "
            f"warm {later.median:.3f} s ({later.low:.3f}-{later.high:.3f}, n={later.count})"
        )
    if COURSE.name in cold and OURS.name in cold:
        ratio = cold[OURS.name].median / cold[COURSE.name].median
        print(f"start to first answer, ours / course: {ratio:.2f} (bar {BAR}, goal {GOAL})")


if __name__ == "__main__":
    try:
        main()
    except (EmulatorError, PeerError) as error:
        sys.exit(str(error))
