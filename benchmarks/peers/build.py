"""Write the models that the peers load, from one trained Keras model.

    python -m benchmarks.peers.build MODEL.keras

The network is built anew at the peers' input size, 299 px: Xception's weights do not depend on
it. The weights are copied, so that every peer computes the same function as far as its format
allows, and each file is checked against the Keras model on drawings and noise before it is kept.
Needs the training environment and ``requirements/peer-build.txt``.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import COURSE, COURSE_ONNX, MODELS, SAM_TENSORFLOW
from tests.support_server import trousers

SIZE = 299  # pixels, height and width: the course's
MAX_DIFFERENCE = 1e-3  # between probabilities of float32 implementations


def main() -> None:
    """Build all peer models from the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.build", description=__doc__)
    parser.add_argument("model", type=Path, help="a .keras file, of any input size")
    parser.add_argument("--size", type=int, default=SIZE)
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras

    MODELS.mkdir(parents=True, exist_ok=True)
    model = resized(keras.saving.load_model(arguments.model, compile=False), arguments.size)
    images = _pictures(arguments.size)
    expected = np.concatenate([model(image, training=False) for image in images])
    for name, write, run in (
        (SAM_TENSORFLOW.model, _write_keras, _run_keras),
        (COURSE.model, _write_tflite, _run_tflite),
        (COURSE_ONNX.model, _write_onnx, _run_onnx),
    ):
        fresh = MODELS / f"unchecked-{name}"
        write(model, fresh)
        found = np.concatenate(run(fresh, images))
        difference = float(np.abs(found - expected).max())
        if not difference <= MAX_DIFFERENCE:
            sys.exit(f"{name} answers differently from the Keras model: by {difference:.1e}")
        fresh.replace(MODELS / name)
        size_mb = (MODELS / name).stat().st_size / 1e6
        print(f"{name}: {size_mb:.1f} MB, differs from Keras by at most {difference:.0e}")


def resized(model: Any, size: int) -> Any:
    """Return the same Keras network for square images of another size, weights copied.

    Args:
        model: a functional model of images (N, height, width, 3), whose weights do not
            depend on the image's size.
        size: the new height and width, in pixels.
    """
    config = _with_size(
        model.get_config(), (int(model.input_shape[1]), int(model.input_shape[2])), size
    )
    fresh = type(model).from_config(config)
    fresh.set_weights(model.get_weights())
    return fresh


def _pictures(size: int) -> list[Any]:
    """Return float32 tensors (1, size, size, 3) of drawings and of noise, -1..1."""
    drawings = [
        np.asarray(trousers(size, size, colour=colour)) for colour in ("navy", "#803", "#ccc")
    ]
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3))
    return [(picture[np.newaxis] / 127.5 - 1).astype(np.float32) for picture in [*drawings, noise]]


def _with_size(config: Any, old: tuple[int, int], size: int) -> Any:
    """Replace the input's shape wherever a configuration names it; drop derived shapes."""
    if isinstance(config, dict):
        return {
            key: [value[0], size, size, *value[3:]]
            if key == "batch_shape" and tuple(value[1:3]) == old
            else _with_size(value, old, size)
            for key, value in config.items()
            if key != "build_config"
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_with_size(value, old, size) for value in config)
    return config


def _write_keras(model: Any, path: Path) -> None:
    model.save(path)


def _run_keras(path: Path, images: Any) -> Any:
    import keras

    model = keras.saving.load_model(path, compile=False)
    return [np.asarray(model(image, training=False)) for image in images]


def _write_tflite(model: Any, path: Path) -> None:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _run_tflite(path: Path, images: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    answers = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return answers


def _write_onnx(model: Any, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False)


def _run_onnx(path: Path, images: Any) -> Any:
    # onnx's own reference: the training environment needs no onnxruntime.
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    return [evaluator.run(None, {evaluator.input_names[0]: image})[0] for image in images]


if __name__ == "__main__":
    main()
