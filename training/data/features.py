"""Activations of the frozen blocks, computed once and kept on disk.

A frozen block gives the same activations in every epoch. They are cached, so an epoch costs only
the trained part. Augmentation becomes a number of cached views per image.

The name of a cache entry is a hash of the images (by class, name and size), the frozen weights,
size, view and seed. An interrupted extraction is resumed. After a change of ``augment`` or of the
serving code's preprocessing, delete ``.cache/features``.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.config import fingerprint
from training.data.dataset import Split
from training.data.images import batches
from training.devices import predict
from training.files import read_json, write_json

CACHE = Path(".cache") / "features"
CHUNK = 64  # images between two notes of progress. A kill loses at most these


def extract(
    frozen: keras.Model,
    split: Split,
    spec: InputSpec,
    *,
    weights_id: str,
    view: int = 0,
    seed: int = 0,
    augmentation: str = "mild",
    cache: Path = CACHE,
    label: str = "features",
) -> NDArray[np.float16]:
    """Return the frozen part's activations for every image of a split, cached.

    Args:
        frozen: images -> activations.
        split: the images, in order.
        spec: how they become tensors.
        weights_id: hash of the frozen weights, a part of the cache entry's name.
        view: augmented view, see ``augment``.
        seed: of the augmentation.
        augmentation: of views from 2 on, one of ``config.AUGMENTATIONS``.
        cache: folder of all entries.
        label: shown beside the progress bar.

    Returns:
        float16, (images, ...), read from disk as needed.
    """
    kind = augmentation if view > 1 else "mild"  # of this view: the first two are never random
    entry = _entry(frozen, split, spec, weights_id, view, seed)
    folder = cache / (entry if kind == "mild" else f"{entry}-{kind}")
    folder.mkdir(parents=True, exist_ok=True)
    data, progress = folder / "activations.npy", folder / "progress.json"
    shape = (len(split), *frozen.output.shape[1:])
    both = data.exists() and progress.exists()
    done = read_json(progress)["done"] if both else 0
    mode = "r+" if done else "w+"
    if not done:
        progress.unlink(missing_ok=True)  # of activations that are gone
    if done < len(split):
        activations = _open_activations(data, mode, shape)
        with tqdm(
            total=len(split), initial=done, desc=f"{label} view {view}", unit="image", disable=None
        ) as bar:
            for batch in batches(
                split, spec, start=done, view=view, seed=seed, recompress=kind == "jpeg", size=CHUNK
            ):
                activations[done : done + len(batch)] = predict(frozen, batch).astype(np.float16)
                activations.flush()
                done += len(batch)
                write_json(progress, {"done": done})
                bar.update(len(batch))
    return np.lib.format.open_memmap(data, mode="r")


def _open_activations(file: Path, mode: Any, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """Map the file and claim its disk space. A disk that is full under a map kills the process.

    Raises:
        OSError: there is not enough space. A new file is removed.
    """
    try:
        activations = np.lib.format.open_memmap(file, mode=mode, dtype=np.float16, shape=shape)
        _claim_space(file)
    except OSError as error:
        if mode == "w+":
            file.unlink(missing_ok=True)
        size_mb = 2 * np.prod(shape) / 1e6  # two bytes each
        reason = f"no room for {size_mb:,.1f} MB of cached activations: {error.strerror}"
        raise OSError(error.errno, reason) from error
    return activations


def _claim_space(file: Path) -> None:
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with file.open("r+b") as opened:
        size_bytes = os.fstat(opened.fileno()).st_size
        try:
            os.posix_fallocate(opened.fileno(), 0, size_bytes)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # the file system cannot
                raise


def _entry(
    frozen: keras.Model, split: Split, spec: InputSpec, weights_id: str, view: int, seed: int
) -> str:
    described: dict[str, Any] = {
        "images": [[path.parent.name, path.name, path.stat().st_size] for path in split.paths],
        "input": [spec.height, spec.width, spec.resize_filter, spec.normalisation],
        "output": list(frozen.output.shape[1:]),
        "layers": len(frozen.layers),
        "policy": str(frozen.layers[-1].compute_dtype),
        "weights": weights_id,
        "view": view,
        "seed": seed if view > 1 else 0,
    }
    return fingerprint(described)
