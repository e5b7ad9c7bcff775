"""Pictures and tiny Keras models for the converter's tests; needs no data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

LABELS = ("blue", "green", "red")
HEIGHT, WIDTH = 36, 48


def write_pictures(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Write class folders of fine-grained pictures, each mostly of its class's colour."""
    generator = np.random.default_rng(seed)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = generator.integers(0, 160, (90, 70, 3))
            pixels[..., {"red": 0, "green": 1, "blue": 2}[label]] += 90
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / label / f"{number}.png")
    return folder


def write_dataset(root: Path) -> Path:
    """Write a data set of 12 train and 9 validation pictures."""
    write_pictures(root / "train", 4, seed=1)
    write_pictures(root / "validation", 3, seed=2)
    return root


def write_run(folder: Path, model, **changes) -> Path:
    """Write a run folder around a Keras model and return the model's path."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "name": "colours",
        "version": "1.2.3",
        "labels": list(LABELS),
        "input": {
            "height": HEIGHT,
            "width": WIDTH,
            "resize_filter": "bicubic",
            "normalisation": "xception",
        },
        "dataset": "made by the tests",
        "licence": "MIT",
        "seed": 7,
    }
    report = {"temperature": 1.5, "metrics": {"validation": {"images": 9, "accuracy": 1.0}}}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "report.json").write_text(json.dumps(report))
    model.save(folder / "model.keras")
    return folder / "model.keras"


def colour_model(outputs: int = len(LABELS), *, before=None):
    """Return a small network of Xception's layer kinds that tells the three colours apart.

    A sharpening depthwise convolution makes the answer depend on the resize filter.

    Args:
        outputs: number of probabilities.
        before: layer to put before everything: the fault that a test makes.
    """
    import keras

    layers = keras.layers
    images = keras.Input((HEIGHT, WIDTH, 3), name="pictures")
    tensor = before(images) if before else images
    sharpen = np.full((3, 3, 3, 1), -0.4, np.float32)
    sharpen[1, 1] = 4.2
    depthwise = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="sharpen")
    tensor = layers.ReLU()(depthwise(tensor))
    pointwise = layers.Conv2D(8, 1, use_bias=False, name="mix")
    normalised = layers.BatchNormalization(name="norm")(pointwise(tensor))
    pooled = layers.GlobalAveragePooling2D(name="pool")(layers.ReLU()(normalised))
    dense = layers.Dense(outputs, name="logits")
    scaled = layers.Rescaling(1 / 1.5, name="temperature")(dense(pooled))
    model = keras.Model(images, layers.Softmax(name="probabilities")(scaled))
    depthwise.set_weights([sharpen])
    mix = np.zeros((1, 1, 3, 8), np.float32)
    mix[0, 0, :, :3] = np.eye(3)[::-1]  # blue, green, red from RGB
    mix[0, 0, :, 3:] = np.random.default_rng(3).normal(0, 0.2, (3, 5))
    pointwise.set_weights([mix])
    kernel = np.zeros((8, outputs), np.float32)
    kernel[:3, : min(3, outputs)] = 12.0 * np.eye(3, outputs)[:, : min(3, outputs)]
    dense.set_weights([kernel, np.full(outputs, 0.1, np.float32)])
    return model
