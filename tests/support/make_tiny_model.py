"""Writes three real TFLite models of a few kilobytes, for fast tests.

tests/data/tiny.tflite predicts by colour alone, so that tests can tell right from wrong. It has
the channels' means, three rules and a softmax. A red image is "red", and so on. Grey is undecided.

tests/data/tiny_map.tflite predicts the same, and has an activation map of 4x6 cells of 8x8 pixels.

tests/data/tiny_all.tflite has that map and a feature distance: the sum of the squared means. It is
3 for plain red, and 0 for plain grey. Beyond 2.5 an image is uncertain.

Needs TensorFlow (`make .venv/training/.ok`):
`.venv/training/bin/python -m tests.support.make_tiny_model`
"""

from __future__ import annotations

import dataclasses
import tempfile

import tensorflow as tf

from lambda_function.metadata import (
    MAP_FORMAT_VERSION,
    DistanceSpec,
    InputSpec,
    MapSpec,
    ModelMetadata,
    embed_metadata,
)
from tests.support.paths import TESTS

PATH = TESTS / "data" / "tiny.tflite"
MAP_PATH = TESTS / "data" / "tiny_map.tflite"
ALL_PATH = TESTS / "data" / "tiny_all.tflite"
LABELS = ("red", "green", "blue", "dark")
CELL = 8  # pixels
# logits from mean R, G, B in -1..1: a colour wins where its channel is high and the others low
WEIGHTS = [[4.0, -4.0, -4.0, -2.0], [-4.0, 4.0, -4.0, -2.0], [-4.0, -4.0, 4.0, -2.0]]
BIAS = [0.0, 0.0, 0.0, 1.0]
METADATA = ModelMetadata(
    name="tiny",
    version="1.2.3",
    labels=LABELS,
    input=InputSpec(height=32, width=48, resize_filter="bilinear"),
    recipe="fp32",
    temperature=1.0,
    source_sha256="0" * 64,
    dataset="none",
    licence="MIT",
    metrics={"test": {"accuracy": 1.0, "n": 3}},
)
MAP_METADATA = dataclasses.replace(
    METADATA,
    name="tiny-map",
    activation_map=MapSpec(height=4, width=6),
    format_version=MAP_FORMAT_VERSION,
)
ALL_METADATA = dataclasses.replace(
    MAP_METADATA,
    name="tiny-all",
    feature_distance=DistanceSpec(farthest=2.5, images=100, share=0.05),
)


def build() -> bytes:
    """Return the artifact."""

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 48, 3), tf.float32)])
    def answer(images):  # type: ignore[no-untyped-def]
        means = tf.reduce_mean(images, axis=[1, 2])
        return tf.nn.softmax(tf.matmul(means, tf.constant(WEIGHTS)) + tf.constant(BIAS))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()])
    return embed_metadata(converter.convert(), METADATA)


def build_with_map(metadata: ModelMetadata = MAP_METADATA) -> bytes:
    """Return the artifact with an activation map, and a feature distance if described so."""

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 48, 3), tf.float32, "image")])
    def answer(image):  # type: ignore[no-untyped-def]
        cells = tf.nn.avg_pool2d(image, CELL, CELL, "VALID")
        means = tf.reduce_mean(cells, axis=[1, 2])
        kernel = tf.constant(WEIGHTS)
        distance = tf.reduce_sum(means * means, axis=1, keepdims=True)
        return {
            **({"feature_distance": distance} if metadata.feature_distance else {}),
            "probabilities": tf.nn.softmax(tf.matmul(means, kernel) + tf.constant(BIAS)),
            "activation_map": tf.nn.conv2d(cells, kernel[tf.newaxis, tf.newaxis], 1, "VALID"),
        }

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(tf.Module(), folder, {"serving_default": answer})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        return embed_metadata(converter.convert(), metadata)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_bytes(build())
    MAP_PATH.write_bytes(build_with_map())
    ALL_PATH.write_bytes(build_with_map(ALL_METADATA))
