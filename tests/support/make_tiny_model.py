"""Writes tests/data/tiny.tflite: a real TFLite model of a few kilobytes, for fast tests.

It answers by colour alone, so that tests can tell right from wrong: the channels' means, three
rules and a softmax. A red image is "red", and so on; grey is undecided.

Needs TensorFlow (`make .venv/training/.ok`):
`.venv/training/bin/python -m tests.support.make_tiny_model`
"""

from __future__ import annotations

import tensorflow as tf

from lambda_function.metadata import InputSpec, ModelMetadata, embed_metadata
from tests.support.paths import TESTS

PATH = TESTS / "data" / "tiny.tflite"
LABELS = ("red", "green", "blue", "dark")
# logits from mean R, G, B in -1..1: a colour wins where its channel is high and the others low
WEIGHTS = [[4.0, -4.0, -4.0, -2.0], [-4.0, 4.0, -4.0, -2.0], [-4.0, -4.0, 4.0, -2.0]]
BIAS = [0.0, 0.0, 0.0, 1.0]


def build() -> bytes:
    """Return the artifact."""

    @tf.function(input_signature=[tf.TensorSpec((1, 32, 48, 3), tf.float32)])
    def answer(images):  # type: ignore[no-untyped-def]
        means = tf.reduce_mean(images, axis=[1, 2])
        return tf.nn.softmax(tf.matmul(means, tf.constant(WEIGHTS)) + tf.constant(BIAS))

    converter = tf.lite.TFLiteConverter.from_concrete_functions([answer.get_concrete_function()])
    metadata = ModelMetadata(
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
    return embed_metadata(converter.convert(), metadata)


if __name__ == "__main__":
    PATH.parent.mkdir(exist_ok=True)
    PATH.write_bytes(build())
