"""A data set on disk: ``<root>/{train,validation,test}/<class>/*.jpg``."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lambda_function import REPOSITORY
from training.errors import DatasetError

SPLITS = ("train", "validation", "test")
ENVIRONMENT_VARIABLE = "CLOTHING_DATASET"
FETCHED_ROOT = REPOSITORY / "data" / "clothing-dataset-small"
DEFAULT_ROOT = REPOSITORY.parent / "shared" / "clothing-dataset-small"
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"})


@dataclasses.dataclass(frozen=True)
class Split:
    """The images of one split, sorted by class and file name.

    Attributes:
        paths: one file per image.
        labels: int64, (images,), index into ``class_names``.
        class_names: in model order.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def subset(self, indices: NDArray[np.int64]) -> Split:
        """Return the images at ``indices``, in that order."""
        return Split(tuple(self.paths[i] for i in indices), self.labels[indices], self.class_names)

    def subsample(self, limit: int) -> Split:
        """Return about ``limit`` images, evenly spread over the classes; 0 is all.

        Raises:
            DatasetError: the limit is negative.
        """
        if limit < 0:
            raise DatasetError(f"limit must be 0, for all images, or more. Received: {limit}")
        if not limit or limit >= len(self):
            return self
        return self.subset(np.linspace(0, len(self) - 1, limit).astype(np.int64))


def find_dataset(path: Path | None = None) -> Path:
    """Return the data set's root: the argument, ``CLOTHING_DATASET``, `make data`'s, the default.

    Raises:
        DatasetError: no such folder; the message says where it was looked for.
    """
    default = FETCHED_ROOT if FETCHED_ROOT.is_dir() else DEFAULT_ROOT
    root = path or Path(os.environ.get(ENVIRONMENT_VARIABLE) or default)
    if not root.is_dir():
        raise DatasetError(
            f"no data set at {root}. Name one with --dataset or {ENVIRONMENT_VARIABLE}: a folder "
            "with train/, validation/ and test/, each holding one folder of images per class "
            "(clothing-dataset-small, for example: `make data` fetches it)."
        )
    return root


def load_split(root: Path, split: str, class_names: tuple[str, ...] | None = None) -> Split:
    """List the images of one split.

    Args:
        root: the data set.
        split: one of ``SPLITS``.
        class_names: expected classes in model order; default: the sorted folder names.

    Raises:
        DatasetError: split or class folder missing, empty, or not expected.
    """
    if split not in SPLITS:
        raise DatasetError(f"split must be one of {SPLITS}. Received: {split!r}")
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"the data set has no split {split!r}: {folder} is not a folder")
    return load_folder(folder, class_names)


def load_folder(folder: Path, class_names: tuple[str, ...] | None = None) -> Split:
    """List the images of a folder of class folders; see ``load_split``."""
    found = sorted(entry.name for entry in folder.iterdir() if _is_class_folder(entry))
    expected = found if class_names is None else list(class_names)
    if set(found) != set(expected):
        missing, unknown = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
        raise DatasetError(
            f"the class folders of {folder} are not the expected ones. "
            f"Missing: {missing or 'none'}. Unknown: {unknown or 'none'}. Expected: {expected}"
        )
    if len(found) < 2:
        raise DatasetError(f"{folder} holds {len(found)} class folder(s); at least 2 are needed")
    paths: list[Path] = []
    labels: list[int] = []
    for index, name in enumerate(expected):
        images = _images(folder / name)
        paths += images
        labels += [index] * len(images)
    return Split(tuple(paths), np.array(labels, dtype=np.int64), tuple(expected))


def _is_class_folder(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images(folder: Path) -> list[Path]:
    images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise DatasetError(f"the class folder {folder} holds no image ({sorted(IMAGE_SUFFIXES)})")
    return images
