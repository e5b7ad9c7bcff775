"""Starts every handler turn by turn under the real emulator, and asks each the same.

One run of a peer is one fresh process: its first answer is a cold start, the others are warm,
and at the end its memory and processor time are read from the kernel. Rounds go through all
peers before they repeat, so that a slow minute of the machine hits all of them.

Directly before each run the same peer is started once more, uncounted: which of its files, and of
those that it shares with the peer before it, are still in the caches must not depend on how many
peers a round has. A round of all of them takes minutes, one of two takes seconds.
"""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import CORE, EXAMPLES, Peer
from tools.emulator import Emulator, EmulatorError, Reply
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Iterable

MEMORY_MB = 1769  # AWS: one vCPU; and one core is what every handler gets here
REQUESTS = 20  # a run; memory is read after them
BATCH = 16  # pictures
SLOW_S = 0.2  # until a slow image server begins to answer


@dataclasses.dataclass(frozen=True)
class Run:
    """What one process of one peer showed.

    Attributes:
        cold_s: from just before process start to the first answer.
        warm_s: of each later request, the caller's view.
        cpu_s: processor time of the handler for one warm request, on average.
        peak_bytes: most memory held, after all requests but the slow batch.
        slow_batch_s: for ``BATCH`` pictures from slow servers; None where not asked for.
    """

    cold_s: float
    warm_s: tuple[float, ...]
    cpu_s: float
    peak_bytes: int
    slow_batch_s: float | None


def run_rounds(
    peers: Iterable[Peer], rounds: int, *, requests: int = REQUESTS, batch: int = BATCH
) -> dict[str, list[Run]]:
    """Run every peer once a round, each time from a filled file cache.

    Args:
        peers: prepared ones.
        rounds: counted rounds.
        requests: to each process.
        batch: pictures from slow servers at the end of a run; 0 for none.

    Returns:
        The runs by peer name.

    Raises:
        EmulatorError: a peer did not classify the picture: a fast error is no fast answer.
    """
    peers = list(peers)
    runs: dict[str, list[Run]] = {peer.name: [] for peer in peers}
    with example_server() as server:
        leave_the_core()
        for _ in range(rounds):
            for peer in peers:
                runs[peer.name].append(run_from_cache(peer, server, requests=requests, batch=batch))
    return runs


def run_from_cache(peer: Peer, server: ImageServer, *, requests: int, batch: int) -> Run:
    """Start a peer and ask it once, to have its files in memory; then ``run_once``."""
    run_once(peer, server, requests=1, batch=0)
    return run_once(peer, server, requests=requests, batch=batch)


def run_once(peer: Peer, server: ImageServer, *, requests: int, batch: int) -> Run:
    """Start one process of a peer, ask it, and read its memory and processor time."""
    urls = [server.url(path) for path in sorted(server.resources) if path.startswith("/fast/")]
    events = [peer.event(urls[number % len(urls)]) for number in range(requests)]
    with peer.emulator(memory_mb=MEMORY_MB, trusted_hosts=[server.host]) as emulator:
        ask(emulator, peer, events[0])
        cold_s = time.perf_counter() - emulator.started_at
        cpu_before_s = emulator.cpu_seconds()
        warm_s = tuple(ask(emulator, peer, event).elapsed_s for event in events[1:])
        cpu_s = (emulator.cpu_seconds() - cpu_before_s) / max(1, len(warm_s))
        peak_bytes = emulator.peak_resident_bytes()
        slow_urls = [server.url(f"/slow/{number}.jpg") for number in range(batch)]
        slow_batch_s = ask_batch(emulator, peer, slow_urls) if slow_urls else None
    return Run(cold_s, warm_s, cpu_s, peak_bytes, slow_batch_s)


def ask(emulator: Emulator, peer: Peer, event: dict[str, Any]) -> Reply:
    """Invoke and check that the picture was classified.

    Raises:
        EmulatorError: it was not.
    """
    reply = emulator.invoke(event)
    body = reply.body
    if not isinstance(body, dict) or not (body.get("statusCode") == 200 or "pants" in body):
        raise EmulatorError(f"{peer.name} answered {str(body)[:500]}")
    return reply


def ask_batch(emulator: Emulator, peer: Peer, urls: list[str]) -> float:
    """Return the seconds for several pictures: one request where the peer takes many.

    Raises:
        EmulatorError: not every picture was classified.
    """
    if not peer.takes_batches:
        return sum(ask(emulator, peer, peer.event(url)).elapsed_s for url in urls)
    reply = emulator.invoke({"urls": urls})
    results = reply.body.get("results", []) if isinstance(reply.body, dict) else []
    if len([item for item in results if "predictions" in item]) != len(urls):
        raise EmulatorError(f"{peer.name} answered {str(reply.body)[:500]}")
    return reply.elapsed_s


def example_server() -> ImageServer:
    """Return a server of the project's example pictures: at once, and from a slow server."""
    pictures = [file.read_bytes() for file in sorted(EXAMPLES.glob("*.jpg"))]
    resources = {f"/fast/{number}.jpg": Resource(data) for number, data in enumerate(pictures)}
    for number in range(BATCH):
        data = pictures[number % len(pictures)]
        resources[f"/slow/{number}.jpg"] = Resource(data, delay_s=SLOW_S)
    return ImageServer(resources)


def leave_the_core() -> None:
    """Keep this process, and threads it starts from now on, off the handlers' core."""
    others = os.sched_getaffinity(0) - {CORE}
    if others:
        os.sched_setaffinity(0, others)
