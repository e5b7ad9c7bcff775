"""Images and small Keras models for the converter's tests. Needs no data set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
from PIL import Image

from lambda_function.metadata import embed_metadata, read_metadata

LABELS = ("blue", "green", "red")
HEIGHT, WIDTH = 36, 48


def write_images(folder: Path, per_class: int, seed: int = 0) -> Path:
    """Write class folders of fine-grained images, each mostly of its class's colour."""
    rng = np.random.default_rng(seed)
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            pixels = rng.integers(0, 160, (90, 70, 3))
            pixels[..., {"red": 0, "green": 1, "blue": 2}[label]] += 90
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(folder / label / f"{number}.png")
    return folder


def write_dataset(root: Path) -> Path:
    """Write a data set of 12 train and 9 validation images."""
    write_images(root / "train", 4, seed=1)
    write_images(root / "validation", 3, seed=2)
    return root


def without_metadata(artifact: bytes) -> bytes:
    """Return an artifact's flatbuffer. Both entries of the archive begin with ``PK``."""
    return artifact[: artifact.rindex(b"PK\x03\x04", 0, artifact.rindex(b"PK\x03\x04"))]


def with_metadata(artifact: bytes, **changes) -> bytes:
    """Return the same flatbuffer with some metadata changed."""
    metadata = dataclasses.replace(read_metadata(artifact), **changes)
    return embed_metadata(without_metadata(artifact), metadata)


def with_custom_operator(artifact: bytes, name: str) -> bytes:
    """Return the same artifact with its first operator renamed to a custom one."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(artifact)
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name.encode()
    builder = flatbuffers.Builder(len(artifact))
    builder.Finish(model.Pack(builder), b"TFL3")
    return embed_metadata(bytes(builder.Output()), read_metadata(artifact))


def write_run(folder: Path, model=None, **changes) -> Path:
    """Write a run folder around a Keras model and return the model's path.

    Args:
        folder: to write.
        model: to save. Default: a file that is no model.
        changes: fields of config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = {"height": HEIGHT, "width": WIDTH}
    config = {
        "name": "colours",
        "version": "1.2.3",
        "labels": list(LABELS),
        "input": {**size, "resize_filter": "bicubic", "normalisation": "xception"},
        "dataset": "made by the tests",
        "licence": "MIT",
        "seed": 7,
    }
    report = {"temperature": 1.5, "metrics": {"validation": {"images": 9, "accuracy": 1.0}}}
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    (folder / "report.json").write_text(json.dumps(report))
    path = folder / "model.keras"
    if model is None:
        path.write_bytes(b"not a zip")
    else:
        model.save(path)
    return path


def colour_model(outputs: int = len(LABELS), *, before=None):
    """Return a small network of Xception's layer kinds that tells the three colours apart.

    A sharpening depthwise convolution makes the prediction depend on the resize filter.

    Args:
        outputs: number of probabilities.
        before: layer to put before everything: the fault that a test makes.
    """
    import keras

    layers = keras.layers
    images = keras.Input((HEIGHT, WIDTH, 3), name="images")
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


def with_input_type(model: bytes, dtype: str) -> bytes:
    """Return the same flatbuffer with another type of the input tensor."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    unpacked = schema.ModelT.InitFromPackedBuf(model)
    graph = unpacked.subgraphs[0]
    graph.tensors[graph.inputs[0]].type = getattr(schema.TensorType, dtype)
    builder = flatbuffers.Builder(len(model))
    builder.Finish(unpacked.Pack(builder), b"TFL3")
    return bytes(builder.Output())
