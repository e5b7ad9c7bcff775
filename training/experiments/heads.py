"""Classifier heads on pooled activations of the frozen base: the course's experiments, in seconds.

A frozen base gives the same activations in every epoch and every trial. So one pass over the
images serves a whole search, and only a small dense network is left to train.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from lambda_function.metadata import InputSpec
from training.config import check_range, check_ranges
from training.data.dataset import Split, load_split
from training.data.features import extract
from training.fit.backbone import build_backbone, weights_sha256

# Steps that TensorFlow or JAX run between two returns to Python. A head's step takes less
# time than such a return.
STEPS_PER_EXECUTION = 16


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """One trial: the course's network after the frozen base, and its training.

    Attributes:
        learning_rate: of Adam, constant.
        inner_units: width of a ReLU layer before the logits. 0 for none.
        dropout: share of the inner layer (or of the features) dropped.
        epochs: passes over the training images.
        batch_size: images per step.
        seed: of initialisation, shuffling and dropout.
    """

    learning_rate: float = 1e-3
    inner_units: int = 0
    dropout: float = 0.0
    epochs: int = 10
    batch_size: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclasses.dataclass(frozen=True)
class PooledFeatures:
    """Activations of the frozen base, averaged over space, float32, (images, channels).

    Attributes:
        training: per view, of the training images.
        training_labels: int64, (images,).
        validation: of the validation images, never augmented.
        validation_labels: int64, (images,).
        class_names: in model order.
        size: (height, width) of the images, in pixels.
        seconds: what it took to have them, just now.
    """

    training: tuple[NDArray[np.float32], ...]
    training_labels: NDArray[np.int64]
    validation: NDArray[np.float32]
    validation_labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    size: tuple[int, int]
    seconds: float


def pooled_features(
    dataset: Path,
    spec: InputSpec,
    *,
    weights: Path | None,
    views: int = 1,
    limit: int = 0,
    seed: int = 0,
) -> PooledFeatures:
    """Run the frozen base over the training and validation images, or read its cache.

    Args:
        dataset: root of the data set.
        spec: how images become tensors.
        weights: ImageNet weights. None has Keras download them.
        views: of each training image, see ``augment``.
        limit: use about so many images of each split, for a quick try. 0 for all.
        seed: of the augmentation.

    Raises:
        ConfigError: the images are too small for Xception.
    """
    started = time.monotonic()
    check_range("size", min(spec.height, spec.width))
    training = load_split(dataset, "train").subsample(limit)
    validation = load_split(dataset, "validation", training.class_names).subsample(limit)
    base = frozen_base(spec, weights)
    identity = weights_sha256(base)[:16]

    def pooled(split: Split, view: int, label: str) -> NDArray[np.float32]:
        found = extract(
            base,
            split,
            spec,
            weights_id=identity,
            view=view,
            seed=seed,
            label=f"{spec.height} px {label}",
        )
        return np.asarray(found, dtype=np.float32)

    return PooledFeatures(
        training=tuple(pooled(training, view, "train") for view in range(views)),
        training_labels=training.labels,
        validation=pooled(validation, 0, "validation"),
        validation_labels=validation.labels,
        class_names=training.class_names,
        size=(spec.height, spec.width),
        seconds=time.monotonic() - started,
    )


def frozen_base(spec: InputSpec, weights: Path | None) -> keras.Model:
    """Return images -> pooled activations, (N, 2048)."""
    backbone = build_backbone(spec.height, spec.width, weights)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(backbone.output)
    base = keras.Model(backbone.input, pooled, name="frozen_base")
    base.trainable = False
    return base


def build_head(channels: int, classes: int, config: HeadConfig) -> keras.Model:
    """Return pooled activations, (N, channels) -> logits, (N, classes), compiled."""
    layers: list[Any] = [keras.Input((channels,))]
    if config.inner_units:
        layers.append(keras.layers.Dense(config.inner_units, activation="relu", name="inner"))
    if config.dropout:
        layers.append(keras.layers.Dropout(config.dropout, seed=config.seed, name="dropout"))
    layers.append(keras.layers.Dense(classes, name="logits"))
    head = keras.Sequential(layers, name="head")
    head.compile(
        optimizer=keras.optimizers.Adam(config.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        steps_per_execution=STEPS_PER_EXECUTION,
    )
    return head


def train_head(
    features: PooledFeatures,
    config: HeadConfig,
    *,
    keep_best: bool = False,
    on_epoch_end: Callable[[], None] = lambda: None,
) -> tuple[keras.Model, dict[str, list[float]]]:
    """Train one head from scratch.

    Args:
        features: of a frozen base. With several views, each epoch shows one, in turn.
        config: of the trial.
        keep_best: return the head of the best epoch by validation, not the last one.
        on_epoch_end: called after every epoch, for a progress bar.

    Returns:
        The head after the last (or best) epoch, and ``accuracy``, ``loss``, ``val_accuracy``,
        ``val_loss`` of every epoch.
    """
    keras.utils.set_random_seed(config.seed)
    head = build_head(features.validation.shape[1], len(features.class_names), config)
    history: dict[str, list[float]] = {}
    best = head.get_weights()

    def note(_: int, logs: dict[str, float]) -> None:
        nonlocal best
        for name, value in logs.items():
            history.setdefault(name, []).append(float(value))
        if keep_best and history["val_accuracy"][-1] >= max(history["val_accuracy"]):
            best = head.get_weights()
        on_epoch_end()

    views = len(features.training)
    together = config.epochs if views == 1 else 1  # epochs per call: each call costs some tracing
    for epoch in range(0, config.epochs, together):
        head.fit(
            features.training[epoch % views],
            features.training_labels,
            validation_data=(features.validation, features.validation_labels),
            batch_size=config.batch_size,
            initial_epoch=epoch,
            epochs=epoch + together,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=note)],
            verbose=0,
        )
    if keep_best:
        head.set_weights(best)
    return head, history
