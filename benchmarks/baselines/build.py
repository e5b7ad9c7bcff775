"""Write the models that the baselines load, from one trained Keras model.

    python -m benchmarks models MODEL.keras

The network is built anew at the course's input size, 299 px, and at its own: Xception's weights
do not depend on it. They are copied, so every baseline computes the same function as far as its
format allows. Each file is checked against the Keras model on the example images before it is kept.
Needs the environment `benchmarks` (``make .venv/benchmarks/.ok``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow: no start-up messages
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np

from benchmarks.baselines import COURSE, COURSE_ONNX, COURSE_SIZE, MODELS, SAM_TENSORFLOW
from benchmarks.harness import command_line
from lambda_function import EXAMPLES
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec
from training.files import sha256_of, write_json

MAX_DIFFERENCE = 1e-3  # between probabilities of float32 implementations
SOURCE_NOTE = "source.json"  # beside the models: the file that they were made from
Tensors = list[Any]  # float32, (1, height, width, 3) each


def main(arguments: list[str]) -> None:
    """Write the models of all baselines from the named file."""
    parser = command_line("models", __doc__)
    parser.add_argument("model", type=Path, help="a .keras file, of any input size")
    parser.add_argument("--sizes", type=int, nargs="+", help="default: 299 and the model's own")
    parser.add_argument("--into", type=Path, default=MODELS, help="folder, with one folder a size")
    options = parser.parse_args(arguments)
    model = keras.saving.load_model(options.model, compile=False)
    for size in options.sizes or sorted({COURSE_SIZE, int(model.input_shape[1])}):
        build(resized(model, size), size, options.into / str(size))
    note = {"source_sha256": sha256_of(options.model), "parameters": int(model.count_params())}
    write_json(options.into / SOURCE_NOTE, note)


def build(model: Any, size: int, folder: Path) -> None:
    """Write one network in the three formats.

    Raises:
        SystemExit: a file predicts other probabilities than the Keras model. It is not kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = _example_tensors(size)
    expected = np.concatenate([model(image, training=False) for image in images])
    formats: tuple[tuple[str, Callable[[Any, Path], None], Callable[[Path, Tensors], Tensors]], ...]
    formats = (
        (SAM_TENSORFLOW.model, _write_keras, _run_keras),
        (COURSE.model, _write_tflite, _run_tflite),
        (COURSE_ONNX.model, _write_onnx, _run_onnx),
    )
    for name, write, run in formats:
        fresh = folder / f"unchecked-{name}"
        write(model, fresh)
        difference = float(np.abs(np.concatenate(run(fresh, images)) - expected).max())
        if not difference <= MAX_DIFFERENCE:
            sys.exit(f"{name} differs from the Keras model by {difference:.1e}")
        fresh.replace(folder / name)
        size_mb = (folder / name).stat().st_size / 1e6
        print(f"{size} px, {name}: {size_mb:.1f} MB, differs from Keras by {difference:.0e}")


def resized(model: Any, size: int) -> Any:
    """Return the same Keras network for square images of another size, weights copied.

    Args:
        model: a functional model of images (N, height, width, 3) without another model inside.
            Its weights do not depend on the image's size.
        size: the new height and width, in pixels.
    """
    fresh = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    fresh.set_weights(model.get_weights())
    return fresh


def _example_tensors(size: int) -> Tensors:
    """Return the example images: float32, (1, size, size, 3), RGB, -1..1."""
    spec = InputSpec(height=size, width=size)
    files = sorted(EXAMPLES.iterdir())
    return [preprocess(decode_image(file.read_bytes()), spec) for file in files]


def _write_keras(model: Any, path: Path) -> None:
    model.save(path)


def _run_keras(path: Path, images: Tensors) -> Tensors:
    model = keras.saving.load_model(path, compile=False)
    return [np.asarray(model(image, training=False)) for image in images]


def _write_tflite(model: Any, path: Path) -> None:
    import tensorflow as tf

    path.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def _run_tflite(path: Path, images: Tensors) -> Tensors:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    outputs = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    return outputs


def _write_onnx(model: Any, path: Path) -> None:
    model.export(str(path), format="onnx", verbose=False)


def _run_onnx(path: Path, images: Tensors) -> Tensors:
    # onnx's own reference: the training environment needs no onnxruntime.
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    return [evaluator.run(None, {evaluator.input_names[0]: image})[0] for image in images]
