"""Models of the course and of Keras's other networks are served as their own code classifies.

Each one is built with random weights, saved, imported and asked under the Lambda emulator. The
expected probabilities come from the original code: Keras's loading and scaling of the image, the
original model, and a softmax or sigmoid by hand.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import numpy as np
import pytest

from converter.import_model import main
from lambda_function import REPOSITORY
from tests.support.images import encode, photo

pytestmark = [
    *(pytest.mark.training, pytest.mark.emulator, pytest.mark.slow),
    pytest.mark.timeout(600),
]

TEN = tuple("abcdefghij")
IMAGES = [encode(photo(400, 533), "PNG"), encode(photo(900, 300), "PNG")]


def spread(model):
    """Make the last layer's random weights large enough to tell images apart."""
    import keras

    last = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)][-1]
    features = keras.Model(model.inputs, last.input)
    batch = np.random.default_rng(0).uniform(-1, 1, (4, *model.inputs[0].shape[1:]))
    deviation = float(np.std(features.predict_on_batch(batch.astype(np.float32)))) or 1.0
    kernel, *bias = last.get_weights()
    last.set_weights([kernel / deviation, *bias])
    return model


def course_model():
    """The course's network: frozen Xception, pooling, Dense 100, dropout, Dense 10, logits."""
    import keras

    base = keras.applications.Xception(weights=None, include_top=False, input_shape=(150, 150, 3))
    base.trainable = False
    inputs = keras.Input((150, 150, 3))
    vectors = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
    inner = keras.layers.Dropout(0.2)(keras.layers.Dense(100, activation="relu")(vectors))
    return keras.Model(inputs, keras.layers.Dense(10)(inner))


def homework_model():
    """The course's homework: a plain network with one sigmoid at 200 px."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((200, 200, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def network(name: str, size: int, **options):
    import keras

    build = getattr(keras.applications, name)
    return build(weights=None, input_shape=(size, size, 3), classes=3, **options)


def to_tflite(model, path: Path) -> None:
    """Convert as the course does."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    path.write_bytes(converter.convert())


def softmax(values):
    exponentials = np.exp(values - values.max())
    return exponentials / exponentials.sum()


def original_prediction(model, data: bytes, mode: str, resize: str):
    """Load, scale and classify as the original code does."""
    import keras

    size = model.inputs[0].shape[1:3]
    image = keras.utils.load_img(io.BytesIO(data), target_size=size, interpolation=resize)
    levels = keras.utils.img_to_array(image)[np.newaxis]
    if mode in ("tf", "torch", "caffe"):
        levels = keras.applications.imagenet_utils.preprocess_input(levels, mode=mode)
    elif mode == "0..1":
        levels = levels / 255.0
    return np.asarray(model(levels, training=False))[0].astype(np.float64)


def served_predictions(model: Path) -> list[dict[str, float]]:
    """Ask the handler under the emulator, directly, as an invoke with the image in base64."""
    from tools.emulator import Emulator, EmulatorError, emulator_binary

    python = next(
        (
            path
            for path in (Path(sys.executable), REPOSITORY / ".venv/test/bin/python")
            if any(path.parent.parent.glob("lib/python3.*/site-packages/awslambdaric"))
        ),
        None,
    )
    if python is None:
        pytest.skip("needs an environment with awslambdaric: make .venv/test/.ok")
    try:
        emulator_binary()
    except EmulatorError as error:
        pytest.skip(str(error))
    with Emulator(python=python, env={"MODEL_URI": str(model)}, timeout_s=60) as emulator:
        replies = [
            emulator.invoke({"image": base64.b64encode(data).decode()}, timeout_s=120).body
            for data in IMAGES
        ]
    return [{p["label"]: p["score"] for p in reply["predictions"]} for reply in replies]


def check(model, suffix: str, labels, tmp_path, *, mode="tf", resize="nearest", complete=softmax):
    path = tmp_path / f"own.{suffix}"
    if suffix == "tflite":
        to_tflite(model, path)
    else:
        model.save(path)
    output = tmp_path / "imported" / "model.tflite"
    options = ("--labels", ",".join(labels), "--normalisation", mode, "--resize", resize)

    assert main([str(path), *options, "--output", str(output)]) == 0

    for data, served in zip(IMAGES, served_predictions(output), strict=True):
        expected = complete(original_prediction(model, data, mode, resize))
        np.testing.assert_allclose([served[label] for label in labels], expected, atol=1e-3)
        assert np.ptp(expected) > 0.02  # else agreement would mean little


@pytest.fixture(scope="module")
def course():
    import keras

    keras.utils.set_random_seed(0)
    return spread(course_model())


@pytest.mark.parametrize("suffix", ["h5", "tflite"])
def test_the_courses_model_is_served_as_the_course_classifies(course, suffix, tmp_path):
    check(course, suffix, TEN, tmp_path)


@pytest.mark.parametrize("suffix", ["keras", "tflite"])
def test_one_sigmoid_is_served_as_two_labels(suffix, tmp_path):
    import keras

    keras.utils.set_random_seed(1)

    def both(values):
        return np.array([1 - values[0], values[0]])

    check(homework_model(), suffix, ("dino", "dragon"), tmp_path, mode="0..1", complete=both)


@pytest.mark.parametrize(
    ("name", "size", "mode", "options"),
    [
        ("MobileNetV2", 96, "tf", {"alpha": 0.35}),
        ("EfficientNetB0", 64, "0..255", {}),
        ("ResNet50", 64, "caffe", {}),
    ],
)
def test_other_networks_are_served_as_keras_classifies(name, size, mode, options, tmp_path):
    import keras

    keras.utils.set_random_seed(2)
    check(
        spread(network(name, size, **options)), "keras", tuple("abc"), tmp_path,
        mode=mode, resize="bilinear", complete=lambda values: values,
    )  # fmt: skip
