"""Accuracy on the test split, each peer asked through its own handler, as shipped.

    python -m benchmarks.accuracy --peers ours course --write

Every test picture goes over loopback HTTP through the real emulator, so that a handler's own
resizing and decoding count. The peers' columns are the course's own recipe, trained on the same
data by ``python -m training steps larger``. Build their models with
``python -m benchmarks.baselines.build runs/steps/larger/model.keras --sizes 299 --into FOLDER``
and name the folder with ``--course-models``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import OURS, PEERS, Peer, PeerError
from benchmarks.measure import surroundings, write_result
from benchmarks.rounds import MEMORY_MB, ask
from tools.emulator import EmulatorError
from tools.image_server import ImageServer, Resource
from training.data.dataset import find_dataset, load_split
from training.errors import DatasetError
from training.evaluation.metrics import wilson_interval

if TYPE_CHECKING:
    from tools.emulator import Reply


def main() -> None:
    """Score and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [peer.name for peer in PEERS]
    parser.add_argument("--peers", nargs="+", choices=names, default=[OURS.name], help="ours")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    parser.add_argument("--dataset", type=Path)
    parser.add_argument("--course-models", type=Path, help="folder with the course recipe's models")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/accuracy.json")
    arguments = parser.parse_args()
    if arguments.write and arguments.split != "test":
        parser.error("--write keeps figures on test, which README and tables call so")
    context = surroundings()
    peers = [peer for peer in PEERS if peer.name in arguments.peers]
    if arguments.course_models:
        peers = [
            dataclasses.replace(peer, models=arguments.course_models) if peer.source else peer
            for peer in peers
        ]
    scored = {}
    for peer in peers:
        peer.prepare()
        scored[peer.name] = score(peer, find_dataset(arguments.dataset), arguments.split)
        found = scored[peer.name]
        low, high = found["interval"]
        print(
            f"{peer.shown}: {found['correct']}/{found['total']} = {found['accuracy']:.4f} "
            f"({low:.4f}-{high:.4f}, 95 %)"
        )
    if arguments.write:
        result = {**context, "split": arguments.split, "peers": scored}
        print(f"written: {write_result('accuracy', result)}")


def score(peer: Peer, root: Path, split_name: str) -> dict[str, Any]:
    """Ask a peer about every picture of a split.

    Raises:
        EmulatorError: a picture was not classified.
    """
    split = load_split(root, split_name)
    resources = {f"/{n}.jpg": Resource(path.read_bytes()) for n, path in enumerate(split.paths)}
    correct = 0
    with (
        ImageServer(resources) as server,
        peer.emulator(memory_mb=MEMORY_MB, trusted_hosts=[server.host]) as emulator,
    ):
        for number, label in enumerate(split.labels):
            reply = ask(emulator, peer, peer.event(server.url(f"/{number}.jpg")))
            correct += best_label(reply) == split.class_names[label]
    total = len(split.paths)
    return {
        "accuracy": correct / total,
        "correct": correct,
        "total": total,
        "interval": list(wilson_interval(correct, total)),
        "model_bytes": peer.artifact.stat().st_size,
    }


def best_label(reply: Reply) -> str:
    """Return the first label of our answer, or the highest of a dictionary of scores."""
    if "body" in reply.body:
        return str(json.loads(reply.body["body"])["predictions"][0]["label"])
    return str(max(reply.body, key=reply.body.get))


if __name__ == "__main__":
    try:
        main()
    except (EmulatorError, PeerError, DatasetError) as error:
        sys.exit(str(error))
