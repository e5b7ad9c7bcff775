"""All devices at once, where the backend can: each takes its share of every batch.

``keras.distribution`` on the JAX backend, data parallel: weights are copied to every device,
batches split. The other backends train on one device. Try it without a GPU:
``XLA_FLAGS=--xla_force_host_platform_device_count=2 KERAS_BACKEND=jax``.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray


def distribute() -> int:
    """Spread what is built from now on over all devices, and return their number.

    One device needs no distribution, and other backends than JAX get none.
    """
    devices = keras.distribution.list_devices() if keras.backend.backend() == "jax" else []
    if len(devices) > 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        print(f"training on {len(devices)} devices: {', '.join(devices)}")
    return max(1, len(devices))


def has_gpu() -> bool:
    """Tell whether Keras computes on a GPU. False on backends that do not say."""
    if keras.backend.backend() not in ("jax", "tensorflow"):
        return False
    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


def device_count() -> int:
    """Return the number of devices that share every batch."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(np.prod(distribution.device_mesh.shape))


def padded_length(images: int) -> int:
    """Return the next number from ``images`` on that divides among the devices."""
    devices = device_count()
    return -(-images // devices) * devices


def predict(model: keras.Model, images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
    """Return the model's output for a batch of any size, (N, ...), on all devices."""
    missing = padded_length(len(images)) - len(images)
    filled = np.concatenate([images, np.zeros_like(images[:1]).repeat(missing, axis=0)])
    output = keras.ops.convert_to_numpy(model.predict_on_batch(filled))
    return np.asarray(output[: len(images)])
