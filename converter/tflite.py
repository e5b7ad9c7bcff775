"""From a trained Keras model to the bytes of one self-describing TFLite file."""

from __future__ import annotations

import os
import tempfile
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before TensorFlow: no start-up chatter

from converter.calibration import INPUT_NAME, SIGNATURE, Calibration, Ranges
from converter.errors import ConversionError
from converter.flatbuffer import Flatbuffer
from converter.recipes import Recipe
from converter.source import Source
from lambda_function.classifier import ArtifactError, Classifier
from lambda_function.metadata import ModelMetadata, embed_metadata

OUTPUT_NAME = "probabilities"


def to_float32(source: Source) -> bytes:
    """Return the model as a float32 flatbuffer: batch of 1, named input and output.

    Equal models give equal bytes.

    Raises:
        SourceError: not a Keras model, or not the one that its configuration describes.
        ConversionError: TensorFlow cannot convert it.
    """
    _require_tensorflow_backend()
    import tensorflow as tf

    frozen = _frozen_function(source)
    image = tf.TensorSpec((1, source.spec.height, source.spec.width, 3), tf.float32, INPUT_NAME)

    @tf.function(input_signature=[image])
    def answer(image: Any) -> dict[str, Any]:
        return {OUTPUT_NAME: frozen(image)[0]}

    with tempfile.TemporaryDirectory() as folder:
        try:
            tf.saved_model.save(tf.Module(), folder, signatures={SIGNATURE: answer})
            converter = tf.lite.TFLiteConverter.from_saved_model(folder)
            # TensorFlow operators ("Flex") would need a runtime that is not deployed.
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
            return bytes(converter.tflite())
        except Exception as error:  # the converter raises many kinds
            first_line = str(error).strip().partition("\n")[0]
            raise ConversionError(
                f"{source.path} cannot be converted to TFLite: {first_line}"
            ) from error


def quantise(source: Source, float_model: bytes, recipe: Recipe, ranges: Ranges) -> bytes:
    """Apply a recipe to ``to_float32``'s result and embed the metadata.

    Args:
        source: the model that the flatbuffer was made from.
        float_model: its float32 flatbuffer.
        recipe: what to make of it.
        ranges: measured on demand, for the recipes that need them.

    Returns:
        The artifact, checked to be servable. Equal arguments give equal bytes.

    Raises:
        ConversionError: the result must not be served; the message says why.
    """
    model = recipe.apply(float_model, ranges)
    calibration = ranges.calibration if recipe.is_calibrated else None
    artifact = embed_metadata(model, describe(source, recipe, calibration))
    check_servable(artifact)
    return artifact


def describe(source: Source, recipe: Recipe, calibration: Calibration | None) -> ModelMetadata:
    """Return what the artifact will say about itself."""
    config = source.config
    try:
        return ModelMetadata(
            name=str(config["name"]),
            version=str(config["version"]),
            labels=source.labels,
            input=source.spec,
            recipe=recipe.name,
            temperature=source.report["temperature"],
            source_sha256=source.weights_sha256,
            dataset=str(config["dataset"]),
            licence=str(config["licence"]),
            metrics=source.report.get("metrics", {}),
            training={k: v for k, v in config.items() if k not in _TOLD_ELSEWHERE},
            conversion={
                "tools": _tool_versions(),
                "calibration": calibration.describe() if calibration else None,
            },
        )
    except KeyError as error:
        raise ConversionError(
            f"config.json beside {source.path} does not say the model's {error}"
        ) from error


def check_servable(artifact: bytes) -> None:
    """Check that an artifact is one that the handler can serve.

    Raises:
        ConversionError: foreign operators, a missing signature, or tensors and metadata that
            contradict each other.
    """
    flatbuffer = Flatbuffer(artifact)
    if foreign := flatbuffer.foreign_operators():
        raise ConversionError(
            f"the converted model needs operators beyond TFLite's own: {', '.join(foreign)}. "
            "Replace the layers that they come from."
        )
    expected = {SIGNATURE: ((INPUT_NAME,), (OUTPUT_NAME,))}
    if flatbuffer.signatures != expected:
        raise ConversionError(
            f"the converted model must have the signature {expected}. "
            f"Received: {flatbuffer.signatures}"
        )
    try:
        Classifier(artifact)
    except ArtifactError as error:
        raise ConversionError(str(error)) from error


_TOLD_ELSEWHERE = frozenset({"name", "version", "labels", "input", "dataset", "licence"})


def _frozen_function(source: Source) -> Any:
    """Return the model as a TensorFlow function whose weights are constants."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    model = source.load()
    shape = (1, source.spec.height, source.spec.width, 3)
    function = tf.function(lambda image: model(image, training=False))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32, name=INPUT_NAME))
    return convert_variables_to_constants_v2(concrete)


def _require_tensorflow_backend() -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ConversionError(
            f"conversion needs Keras on TensorFlow. Received: KERAS_BACKEND="
            f"{keras.backend.backend()}. Unset it, or set it to tensorflow."
        )


def _tool_versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("tensorflow", "keras", "ai-edge-quantizer")}
