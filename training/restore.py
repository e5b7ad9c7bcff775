"""`python -m training restore 1.2.0`: make the run folder of a release again."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import keras

from training.archive import HASH_DIGITS, RELEASES, read_release
from training.config import TrainConfig
from training.data.imagenet import find_weights
from training.errors import ConfigError, WeightsError
from training.files import replacing, write_json
from training.fit.backbone import (
    arrays_sha256,
    assign_weights,
    build_backbone,
    build_network,
    empty_backbone,
    named_weights,
    weights_sha256,
    with_probabilities,
)
from training.fit.run_folder import STARTED
from training.options import add_options

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("version", help="one of training/releases/")
    add_options(parser, "backbone-weights")


def run(parsed: argparse.Namespace) -> None:
    """Write the run folder and print the model's hash."""
    folder = restore(parsed.version, weights=find_weights(parsed.backbone_weights))
    model = keras.models.load_model(folder / "model.keras", compile=False)
    print(f"wrote {folder}/model.keras, SHA-256 of its weights {weights_sha256(model)}")


def restore(
    version: str, *, weights: Path | None, releases: Path = RELEASES, runs: Path = RUNS
) -> Path:
    """Write ``runs/release-<version>/`` from a release and the ImageNet weights.

    Args:
        version: of the release.
        weights: ImageNet weights. None has Keras download them. A release of which every tensor
            was trained needs none.
        releases: folder of all releases.
        runs: folder of all runs.

    Returns:
        The run's folder: model.keras, config.json, report.json. The model's weights are always
        the same. The bytes of ``model.keras`` are not: Keras dates the file.

    Raises:
        ConfigError: the release does not exist, its files do not belong together, or the folder
            holds a run of ``train``.
        WeightsError: the ImageNet weights are missing, or the run began with other ones.
    """
    facts, arrays = read_release(version, releases)
    folder = runs / f"release-{version}"
    if (folder / STARTED).is_file():
        raise ConfigError(f"{folder} holds a training of this name. Rename or remove it")
    config = TrainConfig.from_dict(facts["config"])
    keras.utils.clear_session()  # an artifact holds the numbers of unnamed layers
    height, width = config.input.height, config.input.width
    complete = facts["tensors"]["changed"] == facts["tensors"]["of"]
    backbone = empty_backbone(height, width) if complete else build_backbone(height, width, weights)
    network = build_network(
        backbone, dataclasses.replace(config, precision="float32"), len(facts["config"]["labels"])
    )
    base = {n: v for n, v in named_weights(network.whole).items() if n not in arrays}
    if (received := arrays_sha256(base)) != facts["base_sha256"]:
        raise WeightsError(
            f"the ImageNet weights are not those that release {version} began with "
            f"(SHA-256 of the {len(base)} tensors that training left unchanged: expected "
            f"{facts['base_sha256'][:HASH_DIGITS]}..., received {received[:HASH_DIGITS]}...)"
        )
    assign_weights(network.whole, arrays)
    model = with_probabilities(network.whole, facts["report"]["temperature"])
    write_json(folder / "config.json", facts["config"])
    write_json(folder / "report.json", facts["report"])
    with replacing(folder / "model.keras") as unfinished:
        model.save(unfinished)
    return folder
