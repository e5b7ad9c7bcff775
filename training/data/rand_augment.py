"""Keras's RandAugment on preprocessed images: strong, but repeatable.

Cubuk et al., NeurIPS 2020, arXiv:1909.13719: two random operations per image, of colour
(contrast, brightness, posterisation, sharpness, ...) and of shape (shear, translation, rotation).
"""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

OPERATIONS = 2
FACTOR = 0.5  # of each operation's full strength


def rand_augment(images: NDArray[np.float32], *, seed: str) -> NDArray[np.float32]:
    """Return every image changed at random; equal arguments give equal pixels.

    Args:
        images: float32, (N, height, width, 3), RGB, -1..1.
        seed: hexadecimal digits. They decide every random operation of this batch.
    """
    layer = keras.layers.RandAugment(
        value_range=(-1, 1), num_ops=OPERATIONS, factor=FACTOR, seed=int(seed, 16) % 2**31
    )
    changed = keras.ops.convert_to_numpy(layer(images, training=True))
    return np.clip(changed, -1, 1, dtype=np.float32)
