"""`python -m training train`: one run, from images to the folder that ``run_folder`` describes."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lambda_function.metadata import NOT_STATED
from training.config import TrainConfig, fingerprint
from training.data.dataset import (
    Split,
    describe_left_out,
    find_dataset,
    is_split,
    list_images,
)
from training.data.features import CACHE, extract
from training.data.folds import Fold, Part, load_parts, load_unlabelled
from training.data.imagenet import find_weights
from training.data.split import read_groups, remove_split, split_for_run
from training.data.training_batches import (
    AugmentedImages,
    Batch,
    CachedFeatures,
    PlainImages,
    TrainingBatches,
    weigh_images,
)
from training.devices import device_count, distribute, has_gpu
from training.errors import ConfigError
from training.files import sha256_of
from training.fit import run_folder
from training.fit.backbone import (
    Network,
    assign_weights,
    build_backbone,
    build_network,
    named_weights,
    weights_sha256,
    without_probabilities,
)
from training.fit.calibration import calibrate, find_problems, print_report
from training.fit.checkpoints import HISTORY
from training.fit.estimate import describe_time
from training.fit.loop import fit
from training.fit.settings import add_setting_options, make_config, read_settings
from training.fit.teacher import load_teacher
from training.options import add_options
from training.provenance import provenance

RUNS = Path("runs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options: the sources, and one option per setting of a run."""
    add_options(parser, "dataset", "groups", "backbone-weights", "limit", "runs", "no-next")
    parser.add_argument("--licence", default=NOT_STATED, help="of the weights, an SPDX identifier")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of activations, gigabytes")
    add_setting_options(parser)


def run(parsed: argparse.Namespace) -> None:
    """Train as the command line says. A data set that is not split is split in the run's folder."""
    given = read_settings(parsed)
    folder = run_folder.find_folder(parsed.runs, given.get("name", TrainConfig.name))
    named = find_dataset(parsed.dataset)
    groups = read_groups(parsed.groups) if parsed.groups else None
    if groups and is_split(named):
        raise ConfigError(f"{named} is split already, so --groups {parsed.groups} has no effect")
    weights = find_weights(parsed.backbone_weights)
    with _removing_unused_split(folder):
        dataset = named if is_split(named) else split_for_run(named, folder, groups)
        if told := describe_left_out(list_images(dataset / "train").left_out):
            print(f"{told}`make data-check DATASET={named}` names the files.")
        training, _ = load_parts(dataset, limit=parsed.limit)
        train(
            make_config(given, training.labels, gpu=has_gpu()),
            dataset=dataset,
            weights=weights,
            runs=parsed.runs,
            cache=parsed.cache,
            limit=parsed.limit,
            licence=parsed.licence,
            dataset_name=named.resolve().name,
        )
    if not parsed.no_next:
        model, images = (shlex.quote(str(path)) for path in (folder / run_folder.MODEL, named))
        print(f"Next: make convert MODEL={model} DATASET={images}")


def train(
    config: TrainConfig,
    *,
    dataset: Path,
    weights: Path | None,
    runs: Path = RUNS,
    cache: Path = CACHE,
    limit: int = 0,
    fold: Fold | None = None,
    licence: str = NOT_STATED,
    dataset_name: str | None = None,
) -> Path:
    """Train, calibrate and report. An interrupted run of this name is resumed.

    Args:
        config: of the run.
        dataset: root of the data set.
        weights: ImageNet weights. None has Keras download them.
        runs: folder of all runs.
        cache: folder of cached activations.
        limit: use about so many images of each split, for a quick try. 0 for all.
        fold: of cross-validation. Such a run has seen validation images, and says so.
        licence: of the weights, an SPDX identifier. The model will report it.
        dataset_name: that the model will report. Default: the name of the folder.

    Returns:
        The run's folder.

    Raises:
        TrainingError: what was wrong, and what to do.
    """
    started = time.monotonic()
    provenance()  # describes the code that runs from here on
    distribute()
    folder = run_folder.find_folder(runs, config.name)
    training, validation = load_parts(dataset, limit=limit, fold=fold)
    splits = [training.whole] if fold else [training.whole, validation.whole]
    unlabelled = (
        load_unlabelled(Path(config.unlabelled), validation, dataset, fold)
        if config.unlabelled
        else ()
    )
    images = len(training.rows) + len(unlabelled)
    fields = json.loads(json.dumps(config.to_dict()))
    del fields["unlabelled"]  # the images count, wherever they lie
    settings = {
        **fields,
        "limit": limit,
        "fold": dataclasses.asdict(fold) if fold else None,
        **run_folder.describe_sources(splits, weights, licence, unlabelled),
        "start_sha256": _sha256_of_runs(config.start_from, runs),
        "teacher_sha256": _sha256_of_runs(config.teacher, runs),
    }
    run_folder.check_settings(folder, settings)
    _check_batches(min(config.batch_size, images))
    if run_folder.is_finished(folder):
        print(f"{folder} is finished; nothing was trained")
        return folder
    class_names = training.whole.class_names
    learned = run_folder.hash_images([*training.split.paths, *unlabelled])
    used = _names_of_runs(f"{config.start_from},{config.teacher}")

    keras.utils.set_random_seed(config.seed)
    network = prepare_network(config, len(class_names), weights, runs, fold=fold)
    print(describe_time(network.whole, config, images), flush=True)
    teacher = load_teacher(config, class_names, runs, fold)
    run_folder.refuse_seen(runs, used, learned, validation.split.paths)
    batches, held_out = _batches(network, teacher, config, training, validation, cache, unlabelled)
    with contextlib.closing(batches):
        run_folder.record_settings(folder, settings)  # after everything that bad input can stop
        best = fit(
            _learning_part(network, config), config, batches, held_out, folder,
            validation_images=len(validation.rows),
        )  # fmt: skip

    print(f"calibrating and scoring {best.name} in float32 on {len(validation.rows)} images")
    model, report = _finish(best, config, validation.split, weights, runs, fold)
    report["problems"] = find_problems(report, validation.split, folder / HISTORY)
    report["train_images"], report["unlabelled_images"] = len(training.rows), len(unlabelled)
    report["seconds"] = round(time.monotonic() - started)
    run_folder.record_learned(folder, used, learned)
    run_folder.write_run(
        folder, config, class_names, model, report,
        dataset=dataset_name or dataset.resolve().name, licence=licence, fold=fold,
    )  # fmt: skip
    print_report(report)
    print(f"wrote {folder / run_folder.MODEL}")
    return folder


def prepare_network(
    config: TrainConfig,
    classes: int,
    weights: Path | None,
    runs: Path,
    *,
    fold: Fold | None = None,
    fixed_size: bool = False,
) -> Network:
    """Build a run's network with the weights that it starts with.

    Args:
        config: of the run.
        classes: number of logits.
        weights: ImageNet weights. None has Keras download them.
        runs: folder of all runs.
        fold: of the run.
        fixed_size: take images of the served size alone. Otherwise a network whose activations
            are not cached takes images of any size, as training may use smaller ones.

    Raises:
        ConfigError: ``start_from`` names no finished run.
        WeightsError: the ImageNet weights are missing or do not fit.
    """
    keras.config.set_dtype_policy(config.precision)
    try:
        # Without cached activations, images of training and of validation may differ in size.
        fixed = fixed_size or config.is_cached
        height, width = (config.input.height, config.input.width) if fixed else (None, None)
        backbone = build_backbone(height, width, weights)
        network = build_network(backbone, config, classes)
    finally:
        keras.config.set_dtype_policy("float32")
    if config.start_from:
        folder, *_ = run_folder.read_finished_run(runs, config.start_from, fold, "start_from")
        model = keras.models.load_model(folder / run_folder.MODEL, compile=False)
        start = without_probabilities(model)
        assign_weights(network.whole, named_weights(start))
    return network


@contextlib.contextmanager
def _removing_unused_split(folder: Path) -> Iterator[None]:
    """Remove the images that were split for a run if it ends before its first epoch."""
    is_new = not (folder / run_folder.STARTED).is_file()
    try:
        yield
    except BaseException:
        if is_new and not (folder / run_folder.STARTED).is_file():
            remove_split(folder)
        raise


def _check_batches(images: int) -> None:
    if images % device_count():
        raise ConfigError(
            f"a batch of {images} images does not divide among {device_count()} devices: choose "
            "another --batch-size"
        )


def _names_of_runs(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]


def _sha256_of_runs(names: str, runs: Path) -> str | None:
    """Identify the weights of other runs, which may be trained anew meanwhile."""
    files = [runs / name / run_folder.MODEL for name in _names_of_runs(names)]
    if not files or not all(file.is_file() for file in files):
        return None
    return fingerprint([sha256_of(file) for file in files])


def _learning_part(network: Network, config: TrainConfig) -> keras.Model:
    return network.trained if config.is_cached else network.whole


def _batches(
    network: Network,
    teacher: keras.Model | None,
    config: TrainConfig,
    training: Part,
    validation: Part,
    cache: Path,
    unlabelled: tuple[Path, ...],
) -> tuple[TrainingBatches, Batch | PlainImages]:
    """Return what the network learns from, and what judges it."""
    if config.is_cached:
        return _cached_activations(network, teacher, config, training, validation, cache)
    batches = AugmentedImages(training.split, config, teacher, unlabelled)
    return batches, PlainImages(validation.split, config)


def _cached_activations(
    network: Network,
    teacher: keras.Model | None,
    config: TrainConfig,
    training: Part,
    validation: Part,
    cache: Path,
) -> tuple[CachedFeatures, Batch]:
    """Return what the trained part learns from, and what judges it: images, targets, weights."""

    def cached(
        model: keras.Model, identity: str, part: Part, view: int, label: str
    ) -> NDArray[np.float16]:
        return extract(
            model,
            part.whole,
            config.input,
            weights_id=identity,
            view=view,
            seed=config.seed,
            augmentation=config.augmentation,
            cache=cache,
            label=label,
        )

    frozen, identity = network.frozen, weights_sha256(network.frozen)[:16]
    every = range(config.views)
    views = [cached(frozen, identity, training, view, "train") for view in every]
    taught = [cached(teacher, teacher.name, training, v, "teacher") for v in every if teacher]
    held_out = cached(frozen, identity, validation, 0, "validation")[validation.rows].astype(
        np.float32
    )
    classes = len(training.whole.class_names)
    features = CachedFeatures(views, training.labels, classes, config, training.rows, taught)
    return features, weigh_images(held_out, np.eye(classes, dtype=np.float32)[validation.labels])


def _finish(
    best: Path,
    config: TrainConfig,
    validation: Split,
    weights: Path | None,
    runs: Path,
    fold: Fold | None,
) -> tuple[keras.Model, dict[str, Any]]:
    """Rebuild in float32 with the best weights, fit the temperature, score on validation."""
    plain = dataclasses.replace(config, precision="float32")
    network = prepare_network(
        plain, len(validation.class_names), weights, runs, fold=fold, fixed_size=True
    )
    trained = keras.models.load_model(best, compile=False)
    # The trained part numbers its shortcut layers from its own first one: assign in order.
    learned = _learning_part(network, config).weights
    for variable, source in zip(learned, trained.weights, strict=True):
        variable.assign(keras.ops.cast(source, "float32"))
    model, report = calibrate(network.whole, config, validation)
    return model, {"checkpoint": best.name, **report}
