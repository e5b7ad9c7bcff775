"""A small network in place of Xception, with its layer names and its unnamed shortcut layers.

Xception takes half a minute to build, trace and save. Tests of what happens around a network use
this one. `python -m tests.support.small_network train ...` is `python -m training train ...` with
it.
"""

from __future__ import annotations

import contextlib
import runpy
from collections.abc import Iterator
from typing import Any

import keras
import pytest

BLOCKS = (2, 6, 7, 13)  # of Xception's, between its first and its last


def build(height: int | None, width: int | None) -> keras.Model:
    """Return images -> features, like ``training.fit.backbone.empty_backbone``."""
    layers = keras.layers
    images = keras.Input((height, width, 3))
    tensor = layers.Conv2D(
        8, 3, strides=3, use_bias=False, kernel_initializer="he_normal", name="block1_conv1"
    )(images)
    tensor = layers.BatchNormalization(name="block1_conv1_bn")(tensor)
    tensor = layers.Activation("relu", name="block1_conv1_act")(tensor)
    for block in BLOCKS:
        tensor = _residual_block(tensor, block)
    for convolution in ("block14_sepconv1", "block14_sepconv2"):
        tensor = _separable(24, name=convolution)(tensor)
        tensor = layers.BatchNormalization(name=f"{convolution}_bn")(tensor)
        tensor = layers.Activation("relu", name=f"{convolution}_act")(tensor)
    return keras.Model(images, tensor, name="small")


def _residual_block(tensor: keras.KerasTensor, block: int) -> keras.KerasTensor:
    """Blocks of the middle flow keep the size, the others halve it behind an unnamed shortcut."""
    layers, name = keras.layers, f"block{block}_sepconv1"
    shortcut, strides = tensor, 1
    if block in (2, 13):
        strides = 2
        shortcut = layers.Conv2D(16, 1, strides=2, padding="same", use_bias=False)(tensor)
        shortcut = layers.BatchNormalization()(shortcut)
    if block > 2:
        tensor = layers.Activation("relu", name=f"{name}_act")(tensor)
    separable = _separable(16, strides=strides, padding="same", name=name)
    tensor = layers.BatchNormalization(name=f"{name}_bn")(separable(tensor))
    return layers.add([tensor, shortcut])


def _separable(channels: int, **options: Any) -> keras.layers.Layer:
    """Random weights that keep the size of what passes, so that features differ by image."""
    initial = {"depthwise_initializer": "he_normal", "pointwise_initializer": "he_normal"}
    return keras.layers.SeparableConv2D(channels, 3, use_bias=False, **initial, **options)


@contextlib.contextmanager
def in_place_of_xception() -> Iterator[None]:
    """Have ``training`` build the small network."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("training.fit.backbone", "training.restore"):
            patched.setattr(f"{module}.empty_backbone", build)
        yield


if __name__ == "__main__":
    with in_place_of_xception():
        runpy.run_module("training", run_name="__main__", alter_sys=True)
