"""The commands of ``python -m training`` and the modules that run them."""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from lambda_function.classifier import ArtifactError
from lambda_function.metadata import MetadataError
from training.errors import TrainingError
from training.provenance import provenance

DESCRIPTION = "From images to a scored model, one command per stage."
WRONG_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM)


class Command(NamedTuple):
    """One line of ``python -m training --help``, and the module that does the work."""

    module: str
    help: str


class CommandModule(Protocol):
    """What the module of a command defines."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's options."""

    def run(self, parsed: argparse.Namespace) -> None:
        """Do the work."""


COMMANDS = {
    "data": Command("training.data.clothing", "fetch the data set at its pinned commit"),
    "weights": Command("training.data.imagenet", "fetch Xception's complete ImageNet weights"),
    "data-check": Command(
        "training.data.check", "what a folder of images holds, and what is wrong with it"
    ),
    "split": Command("training.data.split", "split a folder of class folders into a new folder"),
    "train": Command("training.fit.train", "fine-tune Xception; writes runs/<name>/"),
    "evaluate": Command(
        "training.evaluation.evaluate", "score one or two models; writes an HTML report"
    ),
    "robustness": Command(
        "training.evaluation.robustness", "accuracy on resaved, resized and turned images"
    ),
    "deletion": Command(
        "training.evaluation.deletion", "whether the activation map shows what the model uses"
    ),
    "feature-maps": Command(
        "training.experiments.feature_maps", "draw what the network sees, for the course's page"
    ),
    "card": Command(
        "training.evaluation.model_card", "an evaluation's figures as the model card's tables"
    ),
    "label-noise": Command(
        "training.experiments.label_noise", "list probable label errors, cross-validated"
    ),
    "steps": Command("training.experiments.course", "the course's nine steps, one by one"),
    "folds": Command("training.experiments.folds", "judge a recipe by people it has never seen"),
    "release": Command("training.release", "keep a run's trained weights in the repository"),
    "restore": Command("training.restore", "write a released model's run folder again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m training", description=DESCRIPTION)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    added = {name: parsers.add_parser(name, help=COMMANDS[name].help) for name in COMMANDS}
    if not words or words[0] not in COMMANDS:
        parser.parse_args(words)  # prints the help or an error, and exits
        return 2
    try:
        module = cast("CommandModule", importlib.import_module(COMMANDS[words[0]].module))
    except ModuleNotFoundError as error:
        print(
            f"error: `{words[0]}` needs {error.name}, which is not installed here: run it in the "
            "training environment (make .venv/training/.ok)",
            file=sys.stderr,
        )
        return 2
    module.add_arguments(added[words[0]])
    parsed = parser.parse_args(words)
    provenance()  # describes the code that runs from here on
    return _run(module, parsed)


def _run(module: CommandModule, parsed: argparse.Namespace) -> int:
    try:
        module.run(parsed)
    except (TrainingError, ArtifactError, MetadataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        advice = "" if error.errno in WRONG_PATHS else " What was finished is kept; run it again."
        print(f"error: {error}.{advice}", file=sys.stderr)
        return 1
    return 0
