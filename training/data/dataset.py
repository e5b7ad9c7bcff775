"""A data set on disk: one folder of images per class, split or not.

    <root>/{train,validation,test}/<class>/...    split
    <root>/{train,test}/<class>/...               ``training.data.split`` splits train
    <root>/<class>/...                            ``training.data.split`` splits it

Images are recognised by content, as the serving code does, whatever their names are. They may lie
in sub-folders of a class. A file that is named as an image and holds something else is damaged, not
left out: reading it raises. Names that begin with a dot are skipped. Class names are compared in
Unicode's composed form (NFC), because a Mac's ZIP may hold the decomposed form.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import os
import shlex
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lambda_function import REPOSITORY
from lambda_function.images.formats import FORMATS, SNIFF_BYTES, sniff
from lambda_function.metadata import is_label
from training.config import check_range
from training.errors import ConfigError, DatasetError

SPLITS = ("train", "validation", "test")
OTHER_NAMES = {
    **{split: split for split in SPLITS},  # in capitals
    **{"training": "train", "val": "validation", "valid": "validation", "dev": "validation"},
    "testing": "test",
}
ENVIRONMENT_VARIABLE = "CLOTHING_DATASET"
FETCHED_ROOT = REPOSITORY / "data" / "clothing-dataset-small"
DEFAULT_ROOT = REPOSITORY.parent / "shared" / "clothing-dataset-small"
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif"})
RUN_IMAGES = "images"  # folder of a run that split its images itself


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

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Each image's path below the folder of the class folders, such as ``hat/1.jpg``."""
        folder = os.path.commonpath([path.parent.parent for path in self.paths])
        return tuple(path.relative_to(folder).as_posix() for path in self.paths)

    def subset(self, indices: NDArray[np.int64]) -> Split:
        """Return the images at ``indices``, in that order."""
        return Split(tuple(self.paths[i] for i in indices), self.labels[indices], self.class_names)

    def subsample(self, limit: int) -> Split:
        """Return about ``limit`` images, evenly spread over the classes. 0 is all.

        Raises:
            ConfigError: the limit is negative.
        """
        check_range("limit", limit)
        if not limit or limit >= len(self):
            return self
        return self.subset(np.linspace(0, len(self) - 1, limit).astype(np.int64))


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A file that is not used, and why."""

    path: Path
    reason: str


@dataclasses.dataclass(frozen=True)
class Listing:
    """What a folder of class folders holds.

    Attributes:
        images: class name, NFC -> its images, sorted. Classes are sorted by name.
        left_out: files that are not used. Names that begin with a dot are not listed.
    """

    images: dict[str, list[Path]]
    left_out: list[LeftOut]


def find_dataset(path: Path | None = None, *, model: Path | None = None) -> Path:
    """Return the data set's root: the argument, ``CLOTHING_DATASET``, `make data`'s, the default.

    Args:
        path: of the data set.
        model: of a run, or the run's folder. If no data set is named, or the named one is not
            split, and the run split its own images, the root is the run's folder of images.

    Raises:
        DatasetError: the folder does not exist. The message says where it was looked for.
    """
    own = model and (model if model.is_dir() else model.parent) / RUN_IMAGES
    named = path or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if own and is_split(own) and (named is None or (named.is_dir() and not is_split(named))):
        return own
    root = named or (FETCHED_ROOT if FETCHED_ROOT.is_dir() else DEFAULT_ROOT)
    if not root.is_dir():
        raise DatasetError(
            f"no data set at {root}. Name one with DATASET= behind make, --dataset or "
            f"{ENVIRONMENT_VARIABLE}: a folder of class folders, or a folder with train/ and "
            "validation/, each holding one folder of images per class (clothing-dataset-small, for "
            "example: `make data` fetches it)."
        )
    return root


def has_train(root: Path) -> bool:
    """Tell whether a data set has a folder ``train`` of class folders. A class may be a train."""
    return _holds_folders(root / "train")


def is_split(root: Path) -> bool:
    """Tell whether a data set has training and validation images apart."""
    return has_train(root) and (root / "validation").is_dir()


def folder_to_split(root: Path) -> Path:
    """Return the class folders' folder of a data set without validation images.

    Raises:
        DatasetError: a split has another name than ``SPLITS``, or there is no train beside it.
    """
    for entry in sorted(root.iterdir()):
        split = OTHER_NAMES.get(entry.name.lower(), entry.name)
        if split != entry.name and _holds_folders(entry):
            raise DatasetError(f"{entry} is not read under this name. Rename it to {root / split}")
    if has_train(root):
        return root / "train"
    for name in SPLITS[1:]:
        if _holds_folders(root / name):
            raise DatasetError(
                f"{root} holds {name} and no train. Put the training images into {root / 'train'}, "
                "one folder per class"
            )
    return root


def load_split(root: Path, split: str, class_names: tuple[str, ...] | None = None) -> Split:
    """List the images of one split.

    Args:
        root: the data set.
        split: one of ``SPLITS``.
        class_names: expected classes in model order. Default: the sorted folder names.

    Raises:
        DatasetError: split or class folder missing, empty, or not expected.
    """
    if split not in SPLITS:
        raise DatasetError(f"split must be one of {SPLITS}. Received: {split!r}")
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(f"the data set {root} has no split {split!r}. {_remedy(root, split)}")
    return load_folder(folder, class_names)


def load_folder(folder: Path, class_names: tuple[str, ...] | None = None) -> Split:
    """List the images of a folder of class folders, as ``load_split`` does."""
    if not folder.is_dir():
        raise DatasetError(
            f"there is no folder {folder}. Name one that holds a folder of images per class"
        )
    listing = list_images(folder)
    names = sorted(listing.images)
    expected = names if class_names is None else list(class_names)
    if set(names) != set(expected):
        missing, unknown = sorted(set(expected) - set(names)), sorted(set(names) - set(expected))
        raise DatasetError(
            f"the class folders of {folder} are not the expected ones. "
            f"Missing: {missing or 'none'}. Unknown: {unknown or 'none'}. Expected: {expected}"
        )
    check_classes(folder, listing)
    paths = [path for name in expected for path in listing.images[name]]
    labels = np.repeat(np.arange(len(expected)), [len(listing.images[name]) for name in expected])
    return Split(tuple(paths), labels.astype(np.int64), tuple(expected))


def check_classes(folder: Path, listing: Listing) -> None:
    """Check that a folder holds two classes or more, each with an image.

    Args:
        folder: of the class folders.
        listing: what ``list_images`` returned for it.

    Raises:
        DatasetError: it does not, or a class has a name that no label can have. Names the
            classes and the remedy.
    """
    names = list(listing.images)
    if unfit := [name for name in names if not is_label(name)]:
        raise DatasetError(
            f"class folders of {folder} have blanks around their names, or control characters: "
            f"{', '.join(map(repr, unfit))}. Rename them"
        )
    if len(names) < 2:
        only = f"{names[0]} is the only one" if names else "there is none"
        inside = [
            f". If the classes are inside it: make data-check DATASET={_quoted(entry)}"
            for entry in folder.iterdir() if _is_shown(entry) and _holds_folders(entry)
        ]  # fmt: skip
        raise DatasetError(
            "".join([f"2 class folders are needed, and in {folder} {only}", *inside])
        )
    empty = [name for name, images in listing.images.items() if not images]
    if empty:
        raise DatasetError(
            f"class folders of {folder} hold no image: {', '.join(empty)}. "
            f"{describe_left_out(listing.left_out)}Remove them, or put images into them "
            f"({', '.join(FORMATS)})"
        )


def list_images(folder: Path) -> Listing:
    """List the images of a folder of class folders, and the files that are no usable images.

    Raises:
        DatasetError: a name is not UTF-8, so no report or model could hold it.
    """
    images: dict[str, list[Path]] = {}
    left_out: list[LeftOut] = []
    for entry in sorted(folder.iterdir()):
        if not _is_shown(entry):
            continue
        _require_utf8(entry)
        if not entry.is_dir():
            left_out.append(LeftOut(entry, "lies beside the class folders, not in one"))
            continue
        of_class = images.setdefault(unicodedata.normalize("NFC", entry.name), [])
        for path in sorted(_files_below(entry)):
            _require_utf8(path)
            if reason := _why_left_out(path):
                left_out.append(LeftOut(path, reason))
            else:
                of_class.append(path)
    return Listing(dict(sorted(images.items())), left_out)


def list_unlabelled(folder: Path) -> tuple[Path, ...]:
    """List the images of a folder and its sub-folders, sorted. Their classes do not matter.

    Raises:
        ConfigError: the folder is missing, or holds no image.
    """
    paths = tuple(path for path in sorted(_files_below(folder)) if not _why_left_out(path))
    if not paths:
        found = "holds no image" if folder.is_dir() else "is no folder"
        raise ConfigError(
            f"unlabelled names a folder of images, and {folder} {found}: name another one, or none"
        )
    return paths


def describe_left_out(left_out: list[LeftOut]) -> str:
    """Return how many files are not used and why, in one sentence, or nothing for no file."""
    reasons = collections.Counter(entry.reason for entry in left_out)
    told = ", ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    return f"Left out: {told}. " if told else ""


def _require_utf8(path: Path) -> None:
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise DatasetError(
            f"the name {str(path)!r} is not UTF-8, as with a ZIP file of another system. Rename it"
        ) from error


def _files_below(folder: Path) -> Iterator[Path]:
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link to a folder above itself
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in files if not name.startswith("."))


def _remedy(root: Path, missing: str) -> str:
    """Return how a data set gets the split that it does not have."""
    if missing == "test" and has_train(root):
        return f"Put images that no model has seen into {root / missing}, one folder per class"
    command = f"make split DATASET={_quoted(folder_to_split(root))} TO=new-folder"
    if missing == "test":
        return f"Next: {command} ARGS='--test 0.2', then train on the new folder"
    return f"Next: {command}"


def _holds_folders(folder: Path) -> bool:
    return folder.is_dir() and any(e.is_dir() and _is_shown(e) for e in folder.iterdir())


def _quoted(path: Path) -> str:
    """Return a path as a command line needs it."""
    return shlex.quote(str(path))


def _is_shown(entry: Path) -> bool:
    """Tell whether a name is no hidden one. A Mac's ZIP adds ``__MACOSX`` and ``._`` names."""
    return not entry.name.startswith(".") and entry.name != "__MACOSX"


def _why_left_out(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            head = file.read(SNIFF_BYTES)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    kind = sniff(head)
    if kind in FORMATS or (kind is None and path.suffix.lower() in IMAGE_SUFFIXES):
        return None
    return f"{kind} is not supported" if kind else "not an image"
