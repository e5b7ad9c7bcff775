"""From process start to the first answer: ours beside the course handler, in one run.

    python -m benchmarks.coldstart --rounds 15

Both run under the real emulator with the same picture over loopback HTTP, turn by turn, so that
a slow minute of the machine hits both. Ours gets what API Gateway sends for ``POST /predict``,
the course handler its own ``{"url": ...}``. The bar is a ratio of at most 0.65, the goal 0.50.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time

from benchmarks.measure import Summary, summarise, surroundings, write_result
from benchmarks.peers import COURSE, OURS, PEERS, Peer, PeerError
from tests.emulator import EmulatorError, Reply
from tests.support_server import PictureServer, Resource, encoded, trousers

MEMORY_MB = 1769  # one vCPU on Lambda, so one thread: the course handler uses one as well
BAR, GOAL = 0.65, 0.50
WARM_REQUESTS = 5


@dataclasses.dataclass(frozen=True)
class Start:
    """One start of one peer: seconds to the first answer, and of each one after it."""

    cold_s: float
    warm_s: tuple[float, ...]


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coldstart",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS])
    parser.add_argument("--write", action="store_true", help="benchmarks/results/coldstart.json")
    arguments = parser.parse_args()
    named = arguments.peers or [COURSE.name, OURS.name]
    peers = [peer for peer in PEERS if peer.name in named]
    context = surroundings()
    for peer in peers:
        peer.prepare()
    starts = measure(peers, arguments.rounds)
    cold = {name: summarise(start.cold_s for start in runs) for name, runs in starts.items()}
    warm = {
        name: summarise(second for start in runs for second in start.warm_s)
        for name, runs in starts.items()
    }
    _print(peers, cold, warm)
    if arguments.write:
        versions = {peer.name: peer.versions() for peer in peers}
        result = {**context, "versions": versions, "cold_s": cold, "warm_s": warm}
        print(f"written: {write_result('coldstart', result)}")


def measure(peers: list[Peer], rounds: int) -> dict[str, list[Start]]:
    """Start every peer once a round, after one unmeasured start of each (file cache)."""
    picture = Resource(encoded(trousers()))
    starts: dict[str, list[Start]] = {peer.name: [] for peer in peers}
    with PictureServer({"/trousers.jpg": picture}) as server:
        for number in range(rounds + 1):
            for peer in peers:
                start = start_once(peer, server)
                if number:
                    starts[peer.name].append(start)
    return starts


def start_once(peer: Peer, server: PictureServer, *, warm: int = WARM_REQUESTS) -> Start:
    """Start a peer, ask it once, then ``warm`` times more."""
    event = peer.event(server.url("/trousers.jpg"))
    with peer.emulator(memory_mb=MEMORY_MB, trusted_hosts=[server.host]) as emulator:
        check_answer(peer, emulator.invoke(event))
        cold_s = time.perf_counter() - emulator.started_at
        replies = [emulator.invoke(event) for _ in range(warm)]
    for reply in replies:
        check_answer(peer, reply)
    return Start(cold_s, tuple(reply.elapsed_s for reply in replies))


def check_answer(peer: Peer, reply: Reply) -> None:
    """A fast error is no fast answer.

    Raises:
        EmulatorError: the peer did not classify the picture.
    """
    body = reply.body
    good = isinstance(body, dict) and (body.get("statusCode") == 200 or "pants" in body)
    if not good:
        raise EmulatorError(f"{peer.name} answered {str(body)[:500]}")


def _print(peers: list[Peer], cold: dict[str, Summary], warm: dict[str, Summary]) -> None:
    for peer in peers:
        first, later = cold[peer.name], warm[peer.name]
        print(
            f"{peer.title}: start to first answer {first.median:.3f} s "
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
