"""Find the head that an activation map needs: global average pooling and one dense layer.

With such a head a class's logit is the mean over all cells of features times weights, plus a bias.
So the same product of each cell shows where the logit comes from (Zhou et al., Learning deep
features for discriminative localization, 2016).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import SourceError
from converter.sources import feature_distance
from converter.sources.source import Source
from lambda_function.metadata import (
    MAP_FORMAT_VERSION,
    MAX_MAP_CELLS,
    SECOND_LABEL_OUTPUTS,
    MapSpec,
)


class NoActivationMapError(SourceError):
    """The model's head is another one. Carries one sentence."""


@dataclasses.dataclass(frozen=True)
class PooledHead:
    """The head of a Keras model.

    Attributes:
        with_features: the model with two more outputs: the features that the pooling averages,
            float32, (N, height, width, channels), and their averages, float32, (N, channels).
        kernel: float32, (channels, classes), of the dense layer.
        bias: float32, (classes,), of the dense layer.
    """

    with_features: Any
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]


def find_pooled_head(model: Any) -> PooledHead:
    """Return the head of a Keras model.

    Between features and output there may be dropout, a division by the temperature and a softmax.

    Raises:
        NoActivationMapError: the model ends in another way.
    """
    import keras

    layers = keras.layers
    layer = _layer_of(model.outputs[0])
    while _is_after_logits(layer):
        layer = _layer_before(layer)
    dense = layer
    if not isinstance(dense, layers.Dense) or not _has_activation(dense, "linear", "softmax"):
        raise _no_map("a dense layer of logits", dense)
    layer = _layer_before(dense)
    while isinstance(layer, layers.Dropout):
        layer = _layer_before(layer)
    if not isinstance(layer, layers.GlobalAveragePooling2D):
        raise _no_map(f"global average pooling before {dense.name!r}", layer)
    if layer.data_format != "channels_last":
        raise _no_map("features with channels last", layer)
    bias = dense.bias if dense.use_bias else np.zeros(dense.units)
    return PooledHead(
        keras.Model(model.inputs, [model.outputs[0], layer.input, layer.output]),
        np.asarray(dense.kernel, np.float32),
        np.asarray(bias, np.float32),
    )


def with_activation_map(source: Source) -> Source:
    """Return the same model, described with an activation map. Its artifact will have one.

    Raises:
        NoActivationMapError: the model has no head that an activation map needs.
    """
    if source.metadata.output in SECOND_LABEL_OUTPUTS:
        raise NoActivationMapError(f"{source.path} has no activation map: it has one output only.")
    try:
        head = find_pooled_head(source.load())
    except NoActivationMapError as error:
        raise NoActivationMapError(f"{source.path} has no activation map: {error}") from error
    size = (1, source.spec.height, source.spec.width, 3)
    _, height, width, _ = head.with_features.compute_output_shape(size)[1]
    if height * width == 1:
        raise NoActivationMapError(f"{source.path} has no activation map: it would have one cell.")
    if height * width > MAX_MAP_CELLS:
        raise NoActivationMapError(
            f"{source.path} has no activation map: it would have {height * width:,} cells, and "
            f"{MAX_MAP_CELLS:,} are shown at most."
        )
    metadata = dataclasses.replace(
        source.metadata,
        activation_map=MapSpec(int(height), int(width)),
        format_version=MAP_FORMAT_VERSION,
    )
    return dataclasses.replace(source, metadata=metadata)


def describe_map(source: Source) -> Source:
    """Return the same model, described with an activation map if its head allows it.

    Prints one sentence if the model can have none.
    """
    try:
        return with_activation_map(source)
    except NoActivationMapError as error:
        print(f"note: {error} Its predictions cannot be explained.", flush=True)
        return source


def has_pooled_features(source: Source) -> bool:
    """Return whether a feature distance can be measured. Print one sentence if it cannot."""
    try:
        find_pooled_head(source.load())
    except NoActivationMapError as error:
        print(
            f"note: {source.path} has no feature distance: {error} Only MIN_SCORE can mark its "
            "predictions as uncertain.",
            flush=True,
        )
        return False
    return True


def with_feature_distance(
    source: Source, pooled: NDArray[np.float32], train_labels: NDArray[np.int64]
) -> Source:
    """Return the same model, described with a feature distance. Its artifact will measure it.

    Args:
        source: a model with a pooled head.
        pooled: float32, (images, channels), of the Keras model. First images that were not trained
            on, then those that were.
        train_labels: int64, (images that were trained on,).

    Raises:
        ConversionError: the features show no difference.
    """
    held_out = len(pooled) - len(train_labels)
    distance = feature_distance.fit(pooled[held_out:], train_labels)
    metadata = dataclasses.replace(
        source.metadata,
        feature_distance=feature_distance.describe(distance.measure(pooled[:held_out])),
        format_version=MAP_FORMAT_VERSION,
    )
    return dataclasses.replace(source, metadata=metadata, distance=distance)


def _is_after_logits(layer: Any) -> bool:
    from keras import layers

    if isinstance(layer, layers.Rescaling):
        return bool(np.all(np.asarray(layer.offset) == 0))
    return isinstance(layer, layers.Softmax) or (
        isinstance(layer, layers.Activation) and _has_activation(layer, "linear", "softmax")
    )


def _has_activation(layer: Any, *names: str) -> bool:
    return getattr(layer.activation, "__name__", "") in names


def _layer_of(tensor: Any) -> Any:
    return tensor._keras_history.operation


def _layer_before(layer: Any) -> Any:
    """Return the layer that gives a layer's input, or None if there is no single one."""
    try:
        return _layer_of(layer.input)
    except (AttributeError, ValueError):  # it has several inputs, or is used several times
        return None


def _no_map(expected: str, found: Any) -> NoActivationMapError:
    what = f"{type(found).__name__} {found.name!r}" if found is not None else "no single layer"
    return NoActivationMapError(f"expected {expected}, found {what}.")
