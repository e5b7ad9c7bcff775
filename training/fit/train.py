"""One training run, from images to a folder that says everything about it (``run_folder``)."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lambda_function.metadata import InputSpec
from training.config import TrainConfig, warmup_for
from training.data.cached_features import CachedFeatures
from training.data.dataset import Split, find_dataset
from training.data.features import CACHE, extract
from training.data.folds import Fold, Part, load_parts, refuse_fold
from training.data.imagenet import find_weights
from training.data.images import batches
from training.devices import device_count, distribute, padded_length, predict
from training.errors import ConfigError
from training.evaluation import metrics
from training.files import replacing, sha256_of
from training.fit import checkpoints as backup
from training.fit import run_folder
from training.fit.backbone import (
    Network,
    assign_weights,
    build_backbone,
    build_network,
    named_weights,
    weights_sha256,
    with_probabilities,
    without_probabilities,
)
from training.options import (
    add_dataset_option,
    add_limit_option,
    add_runs_option,
    add_weights_option,
)
from training.provenance import provenance

RUNS = Path("runs")
LICENCE = "MIT"  # of the weights, as this project gives its own away


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options: the sources, and one option per field of ``TrainConfig``."""
    add_dataset_option(parser)
    add_weights_option(parser)
    parser.add_argument("--size", type=int, default=224, help="input height and width, pixels")
    add_limit_option(parser)
    add_runs_option(parser)
    parser.add_argument("--licence", default=LICENCE, help="of the weights, an SPDX identifier")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of activations, gigabytes")
    for field in dataclasses.fields(TrainConfig):
        if field.name != "input":
            adapts = field.name == "warmup_epochs"
            parser.add_argument(
                "--" + field.name.replace("_", "-"),
                type=type(field.default),
                default=None if adapts else field.default,
                help=f"default {field.default!r}" + (", half of --epochs at most" * adapts),
            )


def run(parsed: argparse.Namespace) -> None:
    """Train as the command line says."""
    settings = {
        field.name: getattr(parsed, field.name)
        for field in dataclasses.fields(TrainConfig)
        if field.name != "input"
    }
    if settings["warmup_epochs"] is None:
        settings["warmup_epochs"] = warmup_for(parsed.epochs)
    train(
        TrainConfig(input=InputSpec(parsed.size, parsed.size), **settings),
        dataset=find_dataset(parsed.dataset),
        weights=find_weights(parsed.backbone_weights),
        runs=parsed.runs,
        cache=parsed.cache,
        limit=parsed.limit,
        licence=parsed.licence,
    )


def train(
    config: TrainConfig,
    *,
    dataset: Path,
    weights: Path | None,
    runs: Path = RUNS,
    cache: Path = CACHE,
    limit: int = 0,
    fold: Fold | None = None,
    licence: str = LICENCE,
) -> Path:
    """Train, calibrate and report; resumes where an interrupted run of this name stopped.

    Args:
        config: of the run.
        dataset: root of the data set.
        weights: ImageNet weights; None has Keras download them.
        runs: folder of all runs.
        cache: folder of cached activations.
        limit: use about so many images of each split, for a quick try; 0 for all.
        fold: of cross-validation; such a run has seen validation images, and says so.
        licence: of the weights, an SPDX identifier; the model will say it.

    Returns:
        The run's folder.

    Raises:
        ConfigError, DatasetError, WeightsError: what was wrong, and what to do.
    """
    started = time.monotonic()
    provenance()  # of what runs from here on
    distribute()
    folder = run_folder.find_folder(runs, config.name)
    training, validation = load_parts(dataset, limit=limit, fold=fold)
    splits = [training.whole] if fold else [training.whole, validation.whole]
    settings = {
        **json.loads(json.dumps(config.to_dict())),
        "limit": limit,
        "fold": dataclasses.asdict(fold) if fold else None,
        **run_folder.describe_sources(splits, weights, licence),
        "start_sha256": _sha256_of_start(config, runs),
    }
    run_folder.check_settings(folder, settings)
    _check_batches(min(config.batch_size, len(training.rows)))
    if run_folder.is_finished(folder):
        print(f"{folder} is finished; nothing was trained")
        return folder
    class_names = training.whole.class_names

    keras.utils.set_random_seed(config.seed)
    network = prepare_network(config, len(class_names), weights, runs)
    learned, held_out = _activations(network, config, training, validation, cache)
    run_folder.record_settings(folder, settings)  # after all that bad input can stop
    best = _fit(network.trained, config, learned, held_out, folder)

    print(f"calibrating and scoring {best.name} in float32 on {len(validation.rows)} images")
    model, report = _finish(best, config, validation.split, weights, runs)
    report["train_images"] = len(training.rows)
    report["seconds"] = round(time.monotonic() - started)
    run_folder.write_run(
        folder, config, class_names, model, report,
        dataset=dataset.resolve().name, licence=licence, fold=fold,
    )  # fmt: skip
    print_report(report)
    print(f"wrote {folder / run_folder.MODEL}")
    return folder


def _check_batches(images: int) -> None:
    if images % device_count():
        raise ConfigError(
            f"a batch of {images} images does not divide among {device_count()} devices: choose "
            "another --batch-size"
        )


def predict_logits(model: keras.Model, split: Split, config: TrainConfig) -> NDArray[np.float32]:
    """Return float32, (images, classes): a model's output on the images of a split."""
    return np.concatenate([predict(model, batch) for batch in batches(split, config.input)])


class _EpochStarter(keras.callbacks.Callback):
    def __init__(self, dataset: CachedFeatures) -> None:
        super().__init__()
        self._dataset = dataset

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002 (Keras names it)
        self._dataset.start_epoch(epoch)


class _StopAtNaN(keras.callbacks.Callback):
    """Keras's own ends the training as if it were finished, and a model of NaN is the best one."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self._learning_rate = config.learning_rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(float(logs["loss"])):
            raise ConfigError(
                f"the loss is {float(logs['loss'])} at batch {batch + 1}: the training has "
                f"diverged. Try a lower --learning-rate (now {self._learning_rate:g})."
            )


class _BestCheckpoint(keras.callbacks.Callback):
    """Save the model at the best validation accuracy; a file is whole or not there.

    Of equal epochs the later one counts: its learning rate is lower and its average longer.

    Keras's own ModelCheckpoint writes in place and forgets the best when a run is resumed.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._best = max((_accuracy_and_epoch(f)[0] for f in _checkpoints(folder)), default=-1.0)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        accuracy = float(logs["val_accuracy"])
        if accuracy < self._best:
            return
        self._best = accuracy
        name = f"xception_{epoch + 1:02d}_{accuracy:.4f}.keras"
        with replacing(self._folder / backup.CHECKPOINTS / name) as unfinished:
            self.model.save(unfinished)


def _sha256_of_start(config: TrainConfig, runs: Path) -> str | None:
    """Tell the weights that a run starts with: a run of that name may be trained anew meanwhile."""
    start = runs / config.start_from
    finished = config.start_from and run_folder.is_finished(start)
    return sha256_of(start / run_folder.MODEL)[:16] if finished else None


def prepare_network(config: TrainConfig, classes: int, weights: Path | None, runs: Path) -> Network:
    """Build a run's network with the weights that it starts with.

    Raises:
        ConfigError: ``start_from`` names no finished run.
        WeightsError: the ImageNet weights are missing or do not fit.
    """
    keras.config.set_dtype_policy(config.precision)
    try:
        backbone = build_backbone(config.input.height, config.input.width, weights)
        network = build_network(backbone, config, classes)
    finally:
        keras.config.set_dtype_policy("float32")
    if config.start_from:
        file = runs / config.start_from / run_folder.MODEL
        if not file.is_file():
            raise ConfigError(f"start_from names no finished run: {file} is missing")
        refuse_fold(run_folder.read_config(file.parent)[1], file.parent)
        start = without_probabilities(keras.models.load_model(file, compile=False))
        assign_weights(network.whole, named_weights(start))
    return network


_Batch = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def _activations(
    network: Network, config: TrainConfig, training: Part, validation: Part, cache: Path
) -> tuple[CachedFeatures, _Batch]:
    """Return what the trained part learns from, and what judges it: images, targets, weights."""
    identity = weights_sha256(network.frozen)[:16]

    def cached(part: Part, view: int, label: str) -> NDArray[np.float16]:
        return extract(
            network.frozen,
            part.whole,
            config.input,
            weights_id=identity,
            view=view,
            seed=config.seed,
            augmentation=config.augmentation,
            cache=cache,
            label=label,
        )

    views = [cached(training, view, "train") for view in range(config.views)]
    held_out = cached(validation, 0, "validation")[validation.rows].astype(np.float32)
    classes = len(training.whole.class_names)
    learned = CachedFeatures(views, training.labels, classes, config, training.rows)
    return learned, _weighted(held_out, np.eye(classes, dtype=np.float32)[validation.labels])


def _fit(
    model: keras.Model, config: TrainConfig, dataset: CachedFeatures, held_out: _Batch, folder: Path
) -> Path:
    """Train on cached activations and return the best checkpoint."""
    model.compile(
        optimizer=_optimizer(config, len(dataset)),
        loss=keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        ),
        weighted_metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
    )
    done = backup.settle(folder, len(dataset))
    if done:
        print(f"going on after epoch {done} of {config.epochs}")
    history = keras.callbacks.CSVLogger(str(folder / backup.HISTORY), append=True)
    try:
        model.fit(
            dataset,
            validation_data=held_out,
            epochs=config.epochs,
            shuffle=False,  # the dataset does; Keras would shuffle with the process-wide generator
            callbacks=[*_callbacks(dataset, config, folder), history, _StopAtNaN(config)],
            verbose=2,
        )
    finally:
        if history.csv_file:  # open still, where something was raised
            history.csv_file.close()
    return max(_checkpoints(folder), key=_accuracy_and_epoch)


def _weighted(images: NDArray[np.float32], targets: NDArray[np.float32]) -> _Batch:
    """Return images, targets and weights; images of weight 0 fill up the last batch.

    Several devices share every batch, which must divide among them.
    """
    missing = padded_length(len(images)) - len(images)
    weights = np.ones(len(images), dtype=np.float32)

    def fill(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([values, np.zeros_like(values[:1]).repeat(missing, axis=0)])

    return fill(images), fill(targets), fill(weights)


def _optimizer(config: TrainConfig, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    steps = config.epochs * steps_per_epoch
    warmup = round(config.warmup_epochs * steps_per_epoch)
    schedule: Any = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
        decay_steps=max(1, steps - warmup),
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        global_clipnorm=1.0,
        use_ema=config.ema_momentum > 0,
        ema_momentum=config.ema_momentum or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _callbacks(
    dataset: CachedFeatures, config: TrainConfig, folder: Path
) -> list[keras.callbacks.Callback]:
    """Order matters: the backup holds the raw weights, the checkpoint the averaged ones."""
    (folder / backup.CHECKPOINTS).mkdir(exist_ok=True)
    callbacks: list[keras.callbacks.Callback] = [
        _EpochStarter(dataset),
        keras.callbacks.BackupAndRestore(
            str(folder / backup.FOLDER), delete_checkpoint=False, double_checkpoint=True
        ),
    ]
    if config.ema_momentum:
        callbacks.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    return [*callbacks, _BestCheckpoint(folder)]


def _checkpoints(folder: Path) -> list[Path]:
    return list((folder / backup.CHECKPOINTS).glob("xception_*.keras"))


def _accuracy_and_epoch(checkpoint: Path) -> tuple[float, int]:
    _, epoch, accuracy = checkpoint.stem.split("_")
    return float(accuracy), int(epoch)


def _finish(
    best: Path, config: TrainConfig, validation: Split, weights: Path | None, runs: Path
) -> tuple[keras.Model, dict[str, Any]]:
    """Rebuild in float32 with the best weights, fit the temperature, score on validation."""
    plain = dataclasses.replace(config, precision="float32")
    network = prepare_network(plain, len(validation.class_names), weights, runs)
    trained = keras.models.load_model(best, compile=False)
    # The trained part numbers its shortcut layers from its own first one: assign in order.
    for variable, source in zip(network.trained.weights, trained.weights, strict=True):
        variable.assign(keras.ops.cast(source, "float32"))
    model, report = calibrate(network.whole, config, validation)
    return model, {"checkpoint": best.name, **report}


def calibrate(
    whole: keras.Model, config: TrainConfig, validation: Split
) -> tuple[keras.Model, dict[str, Any]]:
    """Fit the temperature on validation, and put it and the softmax into the graph.

    Args:
        whole: images -> logits, float32.
        config: of the run.
        validation: images that the weights have not been trained on.

    Returns:
        Images -> probabilities, and a run's report.
    """
    report = calibration_report(predict_logits(whole, validation, config), validation.labels)
    return with_probabilities(whole, report["temperature"]), report


def calibration_report(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]
) -> dict[str, Any]:
    """Fit the temperature and return a run's report.

    Args:
        logits: float, (images, classes), of validation images.
        labels: int64, (images,).
    """
    temperature = metrics.fit_temperature(logits, labels)
    return {
        "temperature": temperature,
        "metrics": {
            "validation_before_temperature": metrics.summary(metrics.softmax(logits), labels),
            "validation": metrics.summary(metrics.softmax(logits / temperature), labels),
        },
        "backend": keras.backend.backend(),
        "provenance": provenance(),
    }


def print_report(report: dict[str, Any]) -> None:
    """Print a run's figures on validation in one line."""
    found = report["metrics"]["validation"]
    low, high = found["accuracy_interval_95"]
    print(
        f"validation accuracy {found['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{found['correct']} of {found['images']}), macro-F1 {found['macro_f1']:.4f}, "
        f"ECE {found['expected_calibration_error']:.4f}, temperature {report['temperature']:.3f}"
    )
