"""`python -m training soup NAME RUN RUN ...`: one model of several runs' averaged weights.

Runs that were fine-tuned from the same weights lie in one basin. The average of their weights is
as good as the average of their predictions, at the price of one model. It is better than each run
on images of another origin (Wortsman et al., "Model soups", ICML 2022, arXiv:2203.05482). The run
that they started from may be one of them ("Robust fine-tuning", CVPR 2022, arXiv:2109.01903).
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data.dataset import find_dataset, load_split
from training.data.folds import refuse_fold
from training.data.imagenet import find_weights
from training.errors import ConfigError
from training.files import sha256_of
from training.fit import run_folder
from training.fit.backbone import assign_weights, named_weights, without_probabilities
from training.fit.calibration import calibrate, print_report
from training.fit.train import prepare_network
from training.options import add_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("name", help="of the new run")
    parser.add_argument("parts", nargs="+", metavar="RUN", help="names of finished runs")
    add_options(parser, "dataset", "backbone-weights", "runs")


def run(parsed: argparse.Namespace) -> None:
    """Average as the command line says."""
    folder = soup(
        parsed.name,
        parsed.parts,
        dataset=find_dataset(parsed.dataset),
        weights=find_weights(parsed.backbone_weights),
        runs=parsed.runs,
    )
    print(f"{folder / 'model.keras'} is the mean of {', '.join(parsed.parts)}")


def soup(name: str, parts: list[str], *, dataset: Path, weights: Path | None, runs: Path) -> Path:
    """Write a run whose weights are the mean of other runs'.

    Args:
        name: of the new run.
        parts: names of finished runs, each once. The new run has the settings of the first one.
        dataset: root of the data set.
        weights: ImageNet weights. None has Keras download them.
        runs: folder of all runs.

    Returns:
        The new run's folder.

    Raises:
        ConfigError: fewer than two runs, an unfinished one, runs that do not belong together, or
            a name that another run has.
    """
    folder = run_folder.find_folder(runs, name)
    found = []
    for part in parts:
        found.append(run_folder.read_config(runs / part))
        refuse_fold(found[-1][1], runs / part)
    configs = [config for config, _ in found]
    _check_kinship(parts, configs)
    described = found[0][1]
    others = [
        part
        for part, (_, fields) in zip(parts, found, strict=True)
        if fields["labels"] != described["labels"]
    ]
    if others:
        raise ConfigError(f"the runs of a soup have the same classes: {parts[0]}, unlike {others}")
    labels, licence = tuple(described["labels"]), described["licence"]
    validation = load_split(dataset, "validation", labels)
    settings = {
        "mean_of": [[part, sha256_of(_model(runs / part))[:16]] for part in parts],
        **run_folder.describe_sources([validation], weights, licence),
    }
    run_folder.check_settings(folder, settings)
    if run_folder.is_finished(folder):
        return folder
    config = dataclasses.replace(configs[0], name=name, precision="float32")
    whole = prepare_network(config, len(labels), weights, runs, fixed_size=True).whole
    assign_weights(whole, _mean([_weights(runs / part) for part in parts]))
    model, report = calibrate(whole, config, validation)
    report = {"checkpoint": f"mean of {', '.join(parts)}", "parts": parts, **report}
    run_folder.record_settings(folder, settings)
    run_folder.write_run(
        folder, config, labels, model, report, dataset=described["dataset"], licence=licence
    )
    print_report(report)
    return folder


def _check_kinship(parts: list[str], configs: list[TrainConfig]) -> None:
    """Refuse runs of different starts. Their mean would recognise nothing."""
    if len(parts) < 2 or len(set(parts)) < len(parts):
        raise ConfigError(f"a soup takes two or more different runs. Received: {parts}")
    start = configs[0].start_from
    others = [
        part
        for part, config in zip(parts, configs, strict=True)
        if part != start and (not start or config.start_from != start)
    ]
    if others:
        raise ConfigError(
            f"all runs of a soup must have started from the same run: {parts[0]} from "
            f"{start or 'ImageNet, with a head of its own'}, unlike {others}"
        )


def _model(folder: Path) -> Path:
    file = folder / "model.keras"
    if not file.is_file():
        raise ConfigError(f"{folder} holds no finished run: {file.name} is missing")
    return file


def _weights(folder: Path) -> dict[str, NDArray[np.float32]]:
    return named_weights(
        without_probabilities(keras.models.load_model(_model(folder), compile=False))
    )


def _mean(found: list[dict[str, NDArray[np.float32]]]) -> dict[str, NDArray[np.float32]]:
    return {
        name: np.asarray(
            np.mean([weights[name] for weights in found], axis=0, dtype=np.float64), np.float32
        )
        for name in found[0]
    }
