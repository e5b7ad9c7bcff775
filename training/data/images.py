"""Images of a split as the model sees them: read by the serving code, batched, without Keras.

Scoring a ``.tflite`` needs no more than this, so it runs where Keras is not installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lambda_function.errors import ServiceError
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec
from training.data.augment import augment, augment_strongly
from training.data.dataset import Split
from training.errors import DatasetError


def read_image(path: Path, spec: InputSpec | None = None) -> Image.Image:
    """Return one image, upright and RGB, through the serving code.

    Args:
        path: of the image.
        spec: of the tensor that it becomes, see ``decode_image``. None if it becomes none.

    Raises:
        DatasetError: the file cannot be read as an image. The message names it.
    """
    try:
        return decode_image(path.read_bytes(), target=spec)
    except (ServiceError, OSError) as error:
        raise DatasetError(f"{path} cannot be used: {error}") from error


def load_image(
    path: Path,
    spec: InputSpec,
    *,
    view: int = 0,
    index: int = 0,
    seed: int = 0,
    recompress: bool = False,
) -> NDArray[np.float32]:
    """Return one image as the model sees it, through the serving code.

    Args:
        path: of the image.
        spec: how it becomes a tensor.
        view, index, seed, recompress: see ``augment``.

    Returns:
        float32, (height, width, 3), RGB, -1..1.

    Raises:
        DatasetError: the file cannot be read as an image. The message names it.
    """
    image = read_image(path, spec)
    varied = augment(image, view=view, index=index, seed=seed, recompress=recompress)
    tensor: NDArray[np.float32] = preprocess(varied, spec)[0]
    return tensor


def vary_images(
    paths: list[Path], spec: InputSpec, rng: np.random.Generator, *, min_area: float
) -> NDArray[np.uint8]:
    """Return images varied at random, uint8, (N, height, width, 3), RGB.

    Args:
        paths: of the images.
        spec: their size and resize filter.
        rng: random generator, which is used on.
        min_area: see ``augment_strongly``.

    Raises:
        DatasetError: a file cannot be read as an image. The message names it.
    """
    images = (
        augment_strongly(read_image(path, spec), spec, rng, min_area=min_area) for path in paths
    )
    return np.stack([np.asarray(image) for image in images])


def batches(
    split: Split,
    spec: InputSpec,
    *,
    start: int = 0,
    view: int = 0,
    seed: int = 0,
    recompress: bool = False,
    size: int = 32,
) -> Iterator[NDArray[np.float32]]:
    """Yield the images of a split in order, float32, (<=size, height, width, 3), -1..1.

    Two threads decode ahead, because Pillow releases the interpreter's lock.
    """

    def load(index: int) -> NDArray[np.float32]:
        path = split.paths[index]
        return load_image(path, spec, view=view, index=index, seed=seed, recompress=recompress)

    starts = range(start, len(split), size)
    with ThreadPoolExecutor(2) as pool:
        ahead = [pool.submit(load, i) for i in range(start, min(start + size, len(split)))]
        for first in starts:
            images, following = ahead, range(first + size, min(first + 2 * size, len(split)))
            ahead = [pool.submit(load, i) for i in following]
            yield np.stack([image.result() for image in images])
