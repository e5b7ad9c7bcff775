"""Keras Xception, split where training begins.

``build_network`` gives three views of one set of layers: the frozen part whose activations
are cached, the trained part from there to the logits, and the whole.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.errors import ConfigError, WeightsError

LAST_BLOCK = 14


@dataclasses.dataclass(frozen=True)
class Network:
    """One set of layers, seen three ways.

    Attributes:
        frozen: images, float32, (N, height, width, 3), -1..1 -> activations. The images
            themselves, if the whole network is trained.
        trained: activations -> logits, (N, classes).
        whole: images -> logits.
    """

    frozen: keras.Model
    trained: keras.Model
    whole: keras.Model


def build_backbone(height: int | None, width: int | None, weights: Path | None) -> keras.Model:
    """Return Xception without its top, with ImageNet weights.

    Args:
        height: of the images, in pixels, 71 or more. None for any.
        width: likewise.
        weights: a file in Keras's ``.weights.h5`` format for ``include_top=False``. None
            has Keras download them.

    Raises:
        WeightsError: the file does not fit the network, or cannot be downloaded.
    """
    shape = (height, width, 3)
    try:
        if weights is None:
            return keras.applications.Xception(
                weights="imagenet", include_top=False, input_shape=shape
            )
        backbone = empty_backbone(height, width)
        backbone.load_weights(weights)
    except Exception as error:  # Keras, h5py and urllib raise many kinds
        source = weights or "Keras's download"
        raise WeightsError(
            f"the ImageNet weights from {source} cannot be used: {error}. Name a file made for "
            "keras.applications.Xception(include_top=False) with --backbone-weights."
        ) from error
    return backbone


def empty_backbone(height: int | None, width: int | None) -> keras.Model:
    """Return Xception without its top, with initial weights. See ``build_backbone``."""
    return keras.applications.Xception(
        weights=None, include_top=False, input_shape=(height, width, 3)
    )


def build_network(backbone: keras.Model, config: TrainConfig, classes: int) -> Network:
    """Put a new head on the backbone and split it at ``config.first_trainable_block``.

    Args:
        backbone: from ``build_backbone``. Its layers are shared, and set trainable or not.
        config: of the run.
        classes: number of logits.
    """
    if config.fresh_from_block <= LAST_BLOCK:
        backbone = refresh_blocks(backbone, config.fresh_from_block)
    backbone = drop_blocks(backbone, config.dropped_blocks)
    cut = block_input(backbone, config.first_trainable_block)
    logits = _head(config, classes)(backbone.output)
    network = Network(
        frozen=keras.Model(backbone.input, cut, name="frozen"),
        trained=keras.Model(cut, logits, name="trained"),
        whole=keras.Model(backbone.input, logits, name="xception_clothing"),
    )
    for layer in network.whole.layers:
        layer.trainable = False
    for layer in network.trained.layers:
        layer.trainable = True
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = config.batch_norm_momentum
    return network


def drop_blocks(backbone: keras.Model, blocks: str) -> keras.Model:
    """Return the backbone without some blocks of its middle flow. Their shortcuts stay.

    Args:
        backbone: from ``build_backbone``.
        blocks: see ``TrainConfig.dropped_blocks``.
    """
    if not blocks:
        return backbone
    prefixes = tuple(f"block{block}_" for block in blocks.split(","))
    branches = {  # the layer that each block's sum adds to its shortcut
        layer.name: layer.input[0]._keras_history.operation.name
        for layer in backbone.layers
        if isinstance(layer, keras.layers.Add)
    }

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        if layer.name.startswith(prefixes):
            return inputs[0]
        if isinstance(layer, keras.layers.Add) and branches[layer.name].startswith(prefixes):
            return inputs[0][1]  # the shortcut of the dropped block
        return layer(*inputs, **options)

    smaller = keras.models.clone_model(backbone, call_function=call)
    for layer in filter(lambda layer: layer.weights, smaller.layers):
        layer.set_weights(backbone.get_layer(layer.name).get_weights())
    return smaller


def refresh_blocks(backbone: keras.Model, first: int) -> keras.Model:
    """Return the backbone with initial values in place of its weights from block ``first`` on."""
    fresh = keras.models.clone_model(backbone)
    blocks = block_of([layer.name for layer in fresh.layers])
    for layer, block in zip(fresh.layers, blocks, strict=True):
        if layer.weights and block < first:
            layer.set_weights(backbone.get_layer(layer.name).get_weights())
    return fresh


def block_of(layer_names: list[str]) -> list[int]:
    """Return the block, 1..14, or 15 for the head, that each layer of a network belongs to.

    A layer without a block in its name, of a shortcut, belongs to the block before it.

    Args:
        layer_names: in the order of the network.
    """
    blocks, current = [], 1
    for name in layer_names:
        if match := re.match(r"block(\d+)_", name):
            current = int(match[1])
        elif name in ("pool", "inner", "dropout", "logits"):
            current = LAST_BLOCK + 1
        blocks.append(current)
    return blocks


def with_probabilities(whole: keras.Model, temperature: float) -> keras.Model:
    """Return images -> probabilities: the logits divided by the temperature, and softmax."""
    scaled = keras.layers.Rescaling(1.0 / temperature, name="temperature")(whole.output)
    probabilities = keras.layers.Softmax(name="probabilities")(scaled)
    return keras.Model(whole.input, probabilities, name="xception_clothing")


def without_probabilities(model: keras.Model) -> keras.Model:
    """Return images -> logits of a model made by ``with_probabilities``."""
    return keras.Model(model.input, model.get_layer("temperature").input)


def named_weights(model: keras.Model) -> dict[str, NDArray[np.float32]]:
    """Return every weight as a NumPy array, by ``<layer>/<weight>``.

    The automatically numbered names of Xception's shortcut layers (``conv2d_4``, ``add_7``)
    depend on what the process built before. They are replaced by their order.
    """
    return {
        f"{name}/{variable.path.split('/', 1)[1]}": np.asarray(
            keras.ops.convert_to_numpy(variable), dtype=np.float32
        )
        for name, layer in _named_layers(model)
        for variable in layer.weights
    }


def assign_weights(model: keras.Model, weights: dict[str, NDArray[Any]]) -> None:
    """Set the weights named by ``named_weights``. Others stay.

    Raises:
        WeightsError: a name or shape that the model does not have.
    """
    variables = {
        f"{name}/{variable.path.split('/', 1)[1]}": variable
        for name, layer in _named_layers(model)
        for variable in layer.weights
    }
    for name, value in weights.items():
        if name not in variables:
            raise WeightsError(f"the network has no weight {name!r}")
        if tuple(variables[name].shape) != value.shape:
            raise WeightsError(
                f"weight {name!r} has shape {value.shape}, the network "
                f"{tuple(variables[name].shape)}"
            )
        variables[name].assign(np.asarray(value, dtype=np.float32))


def _named_layers(model: keras.Model) -> list[tuple[str, Any]]:
    counts: dict[str, int] = {}
    named = []
    for layer in model.layers:
        if not layer.weights:
            continue
        kind = type(layer).__name__
        if not layer.name.startswith(("block", "logits", "inner")):
            counts[kind] = counts.get(kind, 0) + 1
            named.append((f"shortcut_{kind}_{counts[kind]}", layer))
        else:
            named.append((layer.name, layer))
    return named


def arrays_sha256(arrays: dict[str, NDArray[np.float32]]) -> str:
    """Return the SHA-256 of arrays, by name, shape and value, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def weights_sha256(model: keras.Model) -> str:
    """Return the SHA-256 of a model's weights. A ``.keras`` file's own bytes hold a date."""
    return arrays_sha256(named_weights(model))


def block_input(backbone: keras.Model, block: int) -> Any:
    """Return the tensor that enters a block, 1..14. 15 is the backbone's output."""
    if block == 1:
        return backbone.input
    if block > LAST_BLOCK:
        return backbone.output
    first = f"block{block}_sepconv1"
    names = {layer.name for layer in backbone.layers}
    # Blocks 3 to 13 begin with an activation. 2 and 14 begin with the convolution.
    name = f"{first}_act" if 3 <= block <= 13 else first
    if name not in names:
        raise ConfigError(f"the backbone has no layer {name!r} to cut at")
    return backbone.get_layer(name).input


def _head(config: TrainConfig, classes: int) -> Any:
    layers = [keras.layers.GlobalAveragePooling2D(name="pool")]
    if config.inner_units:
        layers.append(keras.layers.Dense(config.inner_units, activation="relu", name="inner"))
    layers.append(keras.layers.Dropout(config.dropout, seed=config.seed, name="dropout"))
    layers.append(keras.layers.Dense(classes, dtype="float32", name="logits"))

    def apply(tensor: Any) -> Any:
        for layer in layers:
            tensor = layer(tensor)
        return tensor

    return apply
