"""How long a training will take here, and what the other way to train would take."""

from __future__ import annotations

import time

import keras
import numpy as np

from training.config import TrainConfig
from training.devices import predict
from training.fit.backbone import LAST_BLOCK

# Multiply-adds of the blocks before each block, as a share of Xception's, at any image size.
SHARE_BEFORE = {
    1: 0.0, 2: 0.051, 3: 0.125, 4: 0.198, 5: 0.331, 6: 0.400, 7: 0.470, 8: 0.539, 9: 0.608,
    10: 0.677, 11: 0.747, 12: 0.816, 13: 0.885, 14: 0.949, 15: 1.0,
}  # fmt: skip
BACKWARD = 3  # times the cost of a forward pass: forward, gradients of activations and of weights
PROBE_IMAGES = 8
HEAD_BLOCK, WHOLE_BLOCK = 14, 1  # the two ways to train, by the first trained block


def describe_time(whole: keras.Model, config: TrainConfig, images: int) -> str:
    """Return one sentence with the estimated time of this training and of the other way.

    Args:
        whole: images -> logits. It is timed on a few images.
        config: of the run.
        images: number of training images.
    """
    forward_s, first = forward_time_s(whole, config), config.first_trainable_block
    own_time_s = cached_time_s if config.is_cached else uncached_time_s
    other, other_time_s = (
        (HEAD_BLOCK, cached_time_s) if first == WHOLE_BLOCK else (WHOLE_BLOCK, uncached_time_s)
    )
    own_s = own_time_s(forward_s, images, config, first)
    other_s = other_time_s(forward_s, images, config, other)
    return (
        f"training {_part(first)} will take about {_duration(own_s)} here. Training "
        f"{_part(other)} would take about {_duration(other_s)} (--first-trainable-block {other})"
    )


def uncached_time_s(forward_s: float, images: int, config: TrainConfig, first: int) -> float:
    """Return the estimated seconds of a training that runs the whole network in every step."""
    per_image_s = BACKWARD - SHARE_BEFORE[first] * (BACKWARD - 1)
    return images * config.epochs * forward_s * per_image_s


def cached_time_s(forward_s: float, images: int, config: TrainConfig, first: int) -> float:
    """Return the estimated seconds of a training on cached activations.

    Args:
        forward_s: of the whole network and one image, in seconds.
        images: number of training images.
        config: of the run.
        first: the first trained block.
    """
    frozen = SHARE_BEFORE[first]
    per_image_s = config.views * frozen + config.epochs * BACKWARD * (1 - frozen)
    return images * forward_s * per_image_s


def forward_time_s(whole: keras.Model, config: TrainConfig) -> float:
    """Return the seconds of a forward pass per image, the faster of two on a small batch."""
    spec = config.training_input
    batch = np.zeros((PROBE_IMAGES, spec.height, spec.width, 3), dtype=np.float32)
    predict(whole, batch)  # compiles
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        predict(whole, batch)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / PROBE_IMAGES


def _part(first: int) -> str:
    if first == WHOLE_BLOCK:
        return "the whole network"
    return "the head" if first > LAST_BLOCK else f"blocks {first} to {LAST_BLOCK} and the head"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return "a minute"
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"
