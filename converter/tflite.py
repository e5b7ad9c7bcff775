"""From a Keras model to the bytes of one self-describing TFLite file."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow: no start-up chatter

from converter.calibration import INPUT_NAME, SIGNATURE, CalibrationRanges
from converter.errors import ConversionError
from converter.recipes import Recipe
from converter.sources.pooled_head import find_pooled_head
from converter.sources.source import Source
from lambda_function.classifier import ArtifactError, Classifier
from lambda_function.metadata import DISTANCE_OUTPUT, MAP_OUTPUT, MapSpec, embed_metadata

TOOLS = ("tensorflow", "keras", "ai-edge-quantizer")


def to_float32(source: Source) -> bytes:
    """Return the model as a float32 flatbuffer: batch of 1, named input and outputs.

    The activation map and the feature distance are outputs too if the source describes them.

    Equal models give equal bytes.

    Raises:
        SourceError: not a Keras model, or not the one that its description says.
        ConversionError: TensorFlow cannot convert it.
    """
    _require_tensorflow_backend()
    import tensorflow as tf

    frozen = _frozen_function(source)
    image = tf.TensorSpec((1, source.spec.height, source.spec.width, 3), tf.float32, INPUT_NAME)

    extra = {MAP_OUTPUT: source.metadata.activation_map, DISTANCE_OUTPUT: source.distance}
    names = [source.metadata.output, *(name for name, wanted in extra.items() if wanted)]

    def predict(image: Any) -> dict[str, Any]:
        return dict(zip(names, frozen(image), strict=True))

    signature = tf.function(predict, input_signature=[image])
    with tempfile.TemporaryDirectory() as folder:
        try:
            # EfficientNet's swish brings a gradient of its own, which a constant graph lacks.
            options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
            module = tf.Module()
            tf.saved_model.save(module, folder, {SIGNATURE: signature}, options=options)
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            # TensorFlow's own operators ("Flex") would need a runtime that is not deployed.
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            return bytes(converter.convert())
        except Exception as error:  # the converter raises many kinds
            first_line = str(error).strip().partition("\n")[0]
            raise ConversionError(
                f"{source.path} cannot be converted to TFLite's own operators: {first_line}"
            ) from error


def quantise(
    source: Source, float_model: bytes, recipe: Recipe, ranges: CalibrationRanges | None
) -> bytes:
    """Apply a recipe to ``to_float32``'s result and embed the metadata.

    Args:
        source: the model that the flatbuffer was made from.
        float_model: its float32 flatbuffer.
        recipe: the quantisation to apply.
        ranges: of the activations. Measured on demand, for the recipes that need them.

    Returns:
        The artifact, checked to be servable. Equal arguments give equal bytes.

    Raises:
        ConversionError: the result must not be served. The message says why.
    """
    model = recipe.apply(float_model, ranges)
    calibration = ranges.calibration if ranges and recipe.is_calibrated else None
    conversion = {
        **source.metadata.conversion,
        "tools": {name: version(name) for name in TOOLS},
        "calibration": calibration.describe() if calibration else None,
    }
    metadata = dataclasses.replace(
        source.metadata,
        recipe=recipe.name,
        conversion=conversion,
        source_sha256=source.weights_sha256,
    )
    artifact = embed_metadata(model, metadata)
    check_servable(artifact)
    return artifact


def check_servable(artifact: bytes) -> None:
    """Load an artifact as the handler does.

    Raises:
        ConversionError: the interpreter lacks an operator, or tensors and metadata contradict
            each other.
    """
    try:
        Classifier(artifact)
    except ArtifactError as error:
        raise ConversionError(" ".join(str(error).split())) from error


def _frozen_function(source: Source) -> Any:
    """Return the model as a TensorFlow function whose weights are constants.

    It returns the output, the activation map and the feature distance, as far as the source
    describes them.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = source.load()
    shape = (1, source.spec.height, source.spec.width, 3)
    grid = source.metadata.activation_map
    is_plain = grid is None and source.distance is None
    head = None if is_plain else find_pooled_head(model)

    def outputs(image: Any) -> Any:
        if head is None:
            return model(image, training=False)
        values, features, pooled = head.with_features(image, training=False)
        found = [values]
        if grid:
            found.append(_activation_map(features, head.kernel, grid))
        if source.distance:
            with tf.name_scope(DISTANCE_OUTPUT):
                found.append(source.distance.in_graph(pooled))
        return found

    function = tf.function(outputs)
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name=INPUT_NAME))
    return convert_variables_to_constants_v2(concrete)


def _activation_map(features: Any, kernel: NDArray[np.float32], grid: MapSpec) -> Any:
    """Return the activation map of features, (1, height, width, classes).

    It is a 1x1 convolution of the features, written as a product of matrices. So recipes treat it
    as the dense layer whose weights it shares.
    """
    import tensorflow as tf

    channels, classes = kernel.shape
    cells = tf.reshape(features, (grid.height * grid.width, channels))
    return tf.reshape(tf.linalg.matmul(cells, kernel), (1, grid.height, grid.width, classes))


def _require_tensorflow_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ConversionError(
            f"conversion needs Keras on TensorFlow. Received: KERAS_BACKEND="
            f"{keras.backend.backend()}. Unset it, or set it to tensorflow."
        )
