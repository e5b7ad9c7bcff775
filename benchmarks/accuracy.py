"""Accuracy on the test split: each handler gets every image, as shipped.

    python -m benchmarks accuracy --only ours course --course-models FOLDER --write

Every image goes over loopback HTTP through the real emulator, so a handler's own decoding and
resizing count. The baselines have the course's own recipe, trained on the same data by
``python -m training steps larger``. Write their models with
``python -m benchmarks models runs/steps/larger/model.keras --sizes 299 --into FOLDER``.
``--write`` keeps the rows of handlers that were not scored again.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import HANDLERS, OURS, Baseline
from benchmarks.harness import MEMORY_MB, RESULTS, classify, command_line, origin, write_result
from benchmarks.masking import MACHINE, Lane
from tools.image_server import ImageServer, Resource
from training.data.dataset import find_dataset, load_split
from training.evaluation.metrics import wilson_interval
from training.files import read_json
from training.options import add_options

if TYPE_CHECKING:
    from tools.emulator import Reply


def main(arguments: list[str]) -> None:
    """Score, print and keep the result."""
    parser = command_line("accuracy", __doc__)
    names = [handler.name for handler in HANDLERS]
    parser.add_argument("--only", nargs="+", choices=names, default=[OURS.name], help="ours")
    parser.add_argument("--split", default="test", choices=["validation", "test"])
    add_options(parser, "dataset")
    parser.add_argument("--course-models", type=Path, help="folder with the course recipe's models")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/accuracy.json")
    options = parser.parse_args(arguments)
    if options.write and options.split != "test":
        parser.error("--write keeps figures on test, which README and tables call so")
    record = origin()
    scored = {}
    for handler in (handler for handler in HANDLERS if handler.name in options.only):
        if options.course_models and handler.source:
            handler = dataclasses.replace(handler, models=options.course_models)
        handler.prepare()
        scores = score(handler, find_dataset(options.dataset), options.split)
        scored[handler.name] = {**scores, "commit": record["provenance"]["commit"]}
        low, high = scores["interval"]
        print(
            f"{handler.shown}: {scores['correct']}/{scores['total']} = {scores['accuracy']:.4f} "
            f"({low:.4f}-{high:.4f}, 95 %)"
        )
    if options.write:
        earlier = read_json(RESULTS / "accuracy.json")["handlers"]
        handlers = {**earlier, **scored}
        write_result("accuracy", {**record, "split": options.split, "handlers": handlers})


def score(handler: Baseline, root: Path, split_name: str) -> dict[str, Any]:
    """Send a handler every image of a split and compare its best label with the true one.

    Raises:
        EmulatorError: an image was not classified.
    """
    split = load_split(root, split_name)
    resources = {f"/{n}.jpg": Resource(path.read_bytes()) for n, path in enumerate(split.paths)}
    correct = 0
    with (
        ImageServer(resources) as server,
        handler.emulator(
            Lane(MACHINE), memory_mb=MEMORY_MB, trusted_hosts=[server.host]
        ) as emulator,
    ):
        for number, label in enumerate(split.labels):
            reply = classify(emulator, handler, handler.event(server.url(f"/{number}.jpg")))
            correct += best_label(reply) == split.class_names[label]
    total = len(split.paths)
    return {
        "accuracy": correct / total,
        "correct": correct,
        "total": total,
        "interval": list(wilson_interval(correct, total)),
        "model_bytes": handler.artifact.stat().st_size,
    }


def best_label(reply: Reply) -> str:
    """Return the first label of our response, or the highest of a dictionary of scores."""
    if "body" in reply.body:
        return str(json.loads(reply.body["body"])["predictions"][0]["label"])
    return str(max(reply.body, key=reply.body.get))
