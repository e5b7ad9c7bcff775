"""A trained head as a normal run folder, so that ``convert`` and ``evaluate`` accept it."""

from __future__ import annotations

from pathlib import Path

import keras

from lambda_function.metadata import NOT_STATED, InputSpec
from training.config import TrainConfig
from training.experiments.heads import HeadConfig, PooledFeatures
from training.files import write_csv
from training.fit.backbone import LAST_BLOCK, build_backbone, build_network, with_probabilities
from training.fit.calibration import calibration_report
from training.fit.run_folder import write_run


def write_head_run(
    folder: Path,
    features: PooledFeatures,
    config: HeadConfig,
    head: keras.Model,
    history: dict[str, list[float]],
    *,
    weights: Path | None,
    dataset: Path,
) -> Path:
    """Put a head on its frozen base, fit the temperature, and write the run folder.

    Args:
        folder: of the run. An earlier run in it is replaced.
        features: what the head was trained on.
        config: of the head.
        head: from ``train_head``.
        history: likewise.
        weights: of the frozen base. None has Keras download them.
        dataset: its name becomes part of the model's description.

    Returns:
        The ``.keras`` file.
    """
    height, width = features.size
    described = TrainConfig(
        name=folder.name,
        input=InputSpec(height, width),
        first_trainable_block=LAST_BLOCK + 1,
        views=len(features.training),
        inner_units=config.inner_units,
        dropout=config.dropout,
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup_epochs=0.0,
        weight_decay=0.0,
        label_smoothing=0.0,
        mixup_alpha=0.0,
        ema_momentum=0.0,
        seed=config.seed,
    )
    backbone = build_backbone(height, width, weights)
    whole = build_network(backbone, described, len(features.class_names)).whole
    for layer in head.layers:
        if layer.weights:  # "inner" and "logits" have the same names in both networks
            whole.get_layer(layer.name).set_weights(layer.get_weights())
    logits = keras.ops.convert_to_numpy(head.predict(features.validation, verbose=0))
    report = calibration_report(logits, features.validation_labels)
    report |= {"train_images": len(features.training_labels), "seconds": round(features.seconds)}
    rows = zip(*history.values(), strict=True)
    write_csv(
        folder / "history.csv",
        ["epoch", *history],
        [{"epoch": i, **dict(zip(history, row, strict=True))} for i, row in enumerate(rows)],
    )
    model = with_probabilities(whole, report["temperature"])
    write_run(
        folder, described, features.class_names, model, report,
        dataset=dataset.resolve().name, licence=NOT_STATED,
    )  # fmt: skip
    return folder / "model.keras"
