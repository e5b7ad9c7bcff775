"""The commands of ``python -m training``, and what each says when something is wrong."""

from __future__ import annotations

import argparse
import dataclasses
import errno
import sys
from pathlib import Path
from typing import Any

from lambda_function.classifier import ArtifactError
from lambda_function.metadata import InputSpec, MetadataError
from training import archive as release
from training.config import ConfigError, TrainConfig, WeightsError, warmup_for
from training.data import download as data
from training.data.dataset import DatasetError, find_dataset
from training.data.download import DownloadError
from training.evaluation import evaluate, label_noise, robustness
from training.evaluation import model_card as card
from training.evaluation.loaded_model import ModelFileError
from training.evaluation.test_log import LedgerError
from training.experiments import course as steps
from training.experiments import study, tune
from training.fit import soup
from training.provenance import provenance

DESCRIPTION = "From pictures to a scored model, one command per stage."

WRONG_PATHS = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM)

# Every one of these says in one sentence what is wrong and what to do.
EXPECTED_ERRORS = (
    ArtifactError,
    ConfigError,
    DatasetError,
    DownloadError,
    LedgerError,
    MetadataError,
    ModelFileError,
    WeightsError,
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parsed = _parser().parse_args(arguments)
    provenance()  # of what runs from here on
    try:
        parsed.run(parsed)
    except EXPECTED_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        advice = "" if error.errno in WRONG_PATHS else " What was finished is kept; run it again."
        print(f"error: {error}.{advice}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=DESCRIPTION)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands.add_parser("train", help="fine-tune Xception; writes runs/<name>/"))
    card.add_arguments(commands)
    data.add_arguments(commands)
    evaluate.add_arguments(commands)
    label_noise.add_arguments(commands)
    release.add_arguments(commands)
    robustness.add_arguments(commands)
    soup.add_arguments(commands)
    steps.add_arguments(commands)
    study.add_arguments(commands)
    tune.add_arguments(commands)
    return parser


def _add_train(parser: argparse.ArgumentParser) -> None:
    _add_sources(parser)
    parser.add_argument("--size", type=int, default=224, help="input height and width, pixels")
    parser.add_argument("--limit", type=int, default=0, help="images per split, for a quick try")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--licence", default="MIT", help="of the weights, an SPDX identifier")
    parser.add_argument(
        "--cache", type=Path, default=Path(".cache") / "features", help="of activations, gigabytes"
    )
    for field in dataclasses.fields(TrainConfig):
        if field.name != "input":
            adapts = field.name == "warmup_epochs"
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                type=type(field.default),
                default=None if adapts else field.default,
                help=f"default {field.default!r}" + (", half of --epochs at most" * adapts),
            )
    parser.set_defaults(run=_train)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", type=Path, help="else $CLOTHING_DATASET, data/, ../shared/")
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        help="else $BACKBONE_WEIGHTS, data/, ../shared/, Keras's",
    )


def _train(parsed: argparse.Namespace) -> None:
    from training.fit.backbone import find_weights
    from training.fit.train import train

    settings: dict[str, Any] = {
        field.name: getattr(parsed, field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name != "input"
    }
    if settings["warmup_epochs"] is None:
        settings["warmup_epochs"] = warmup_for(parsed.epochs)
    config = TrainConfig(input=InputSpec(parsed.size, parsed.size), **settings)
    train(
        config,
        dataset=find_dataset(parsed.dataset),
        weights=find_weights(parsed.backbone_weights),
        runs=parsed.runs,
        cache=parsed.cache,
        limit=parsed.limit,
        licence=parsed.licence,
    )
