"""Write tests/data/keras2.h5 as Keras 2 writes it, with a nested and frozen base.

Needs tf_keras beside TensorFlow (`pip install tf_keras`), which no environment here has.
Prints the predictions that tests/converter/test_keras_file.py expects.
"""

from __future__ import annotations

import numpy as np
import tf_keras as keras

from tests.support.paths import TESTS


def main() -> None:
    """Build the course's kind of model in small, save it and print what it predicts."""
    layers = keras.layers
    keras.utils.set_random_seed(0)
    images = keras.Input((32, 24, 3))
    tensor = layers.Conv2D(4, 3, use_bias=False)(images)
    tensor = layers.Activation("relu")(layers.BatchNormalization()(tensor))
    tensor = layers.SeparableConv2D(6, 3, padding="same", use_bias=False)(tensor)
    tensor = layers.DepthwiseConv2D(3)(tensor)
    tensor = layers.add([tensor, layers.ReLU(6.0)(tensor)])
    tensor = layers.ZeroPadding2D(((0, 1), (0, 1)))(tensor)
    base = keras.Model(images, layers.MaxPooling2D(3, strides=2, padding="same")(tensor))
    inputs = keras.Input((32, 24, 3))
    vectors = layers.GlobalAveragePooling2D()(base(inputs, training=False))
    inner = layers.Dropout(0.2)(layers.Dense(5, activation="relu")(vectors))
    model = keras.Model(inputs, layers.Dense(3)(inner))
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True))
    model.save(TESTS / "data" / "keras2.h5")
    image = np.linspace(-1, 1, 32 * 24 * 3, dtype=np.float32).reshape(1, 32, 24, 3)
    print(repr(model.predict(image, verbose=0)))  # noqa: T201


if __name__ == "__main__":
    main()
