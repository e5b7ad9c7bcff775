"""`python -m training split --to FOLDER`: split a folder of class folders, seeded and stratified.

Equal and nearly equal images stay on one side, and so do the images of one group: a person, a
product, a day. Otherwise validation measures how well the model remembers, not what it has learned.
Images are linked or copied, never moved. Images that cannot be read are left out and named.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import shlex
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import check_range, fingerprint
from training.data.dataset import (
    RUN_IMAGES,
    SPLITS,
    LeftOut,
    check_classes,
    find_dataset,
    folder_to_split,
    is_split,
    list_images,
)
from training.data.duplicates import Comparison, Pair, compare_images, group_images
from training.errors import ConfigError, DatasetError
from training.files import read_json, write_json
from training.options import add_options

VALIDATION_SHARE, TEST_SHARE = 0.2, 0.0
NAMED = 5  # files in a message
RUN_SPLIT = "split.json"  # which images the run's own split was made of


@dataclasses.dataclass(frozen=True)
class SplitPlan:
    """Which image goes where.

    Attributes:
        splits: name of the split -> class name -> images.
        left_out: files that are not used, and why.
        grouped: how many images share their side with another one.
    """

    splits: dict[str, dict[str, list[Path]]]
    left_out: list[LeftOut]
    grouped: int

    def to_text(self) -> str:
        """Return a table of classes and splits, and what was left out."""
        names = list(self.splits)
        classes = list(next(iter(self.splits.values())))
        width = max(len("class"), *map(len, classes))
        lines = [f"{'class':<{width}}" + "".join(f"{name:>12}" for name in names)]
        lines += [
            f"{label:<{width}}" + "".join(f"{len(self.splits[name][label]):>12}" for name in names)
            for label in classes
        ]
        lines.append(f"{self.grouped} images share their side with a similar or grouped image")
        reasons = Counter(entry.reason for entry in self.left_out)
        for reason, count in reasons.most_common():
            files = [entry.path for entry in self.left_out if entry.reason == reason][:NAMED]
            named = ", ".join(f"{path.parent.name}/{path.name}" for path in files)
            more = f" and {count - NAMED} more" if count > NAMED else ""
            lines.append(f"left out: {count} x {reason}: {named}{more}")
        return "\n".join(lines)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_options(parser, "dataset")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; must not exist")
    add_options(parser, "groups")
    parser.add_argument(
        "--validation", type=float, default=VALIDATION_SHARE,
        help=f"share of the images; above 0, and below 1; default {VALIDATION_SHARE}",
    )  # fmt: skip
    parser.add_argument(
        "--test", type=float, default=TEST_SHARE,
        help=f"share of the images; 0 or more, and below 1; default {TEST_SHARE:g}",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the assignment; default 0")
    parser.add_argument("--copy", action="store_true", help="copy the images; default: hard links")


def run(parsed: argparse.Namespace) -> None:
    """Split as the command line says, and print what went where."""
    root = find_dataset(parsed.dataset)
    if parsed.to.exists():
        raise DatasetError(f"{parsed.to} exists already. Name a new folder with --to, or remove it")
    if parsed.to.resolve().is_relative_to(root.resolve()):
        raise DatasetError(
            f"{parsed.to} is inside the data set {root}, where it would count as a class. Name a "
            "folder outside of it with --to"
        )
    plan = plan_split(
        root,
        validation=parsed.validation,
        test=parsed.test,
        seed=parsed.seed,
        groups=read_groups(parsed.groups) if parsed.groups else {},
    )
    write_split(plan, parsed.to, copy=parsed.copy)
    print(plan.to_text())
    print(f"wrote {parsed.to}. Next: make model DATASET={shlex.quote(str(parsed.to))}")


def plan_split(
    root: Path,
    *,
    validation: float = VALIDATION_SHARE,
    test: float = TEST_SHARE,
    seed: int = 0,
    groups: dict[str, str] | None = None,
    compared: Comparison | None = None,
) -> SplitPlan:
    """Decide which image of a folder of class folders goes to which split.

    Args:
        root: holds one folder of images per class, or holds them in ``train``.
        validation: share of the images, 0..1, without either end.
        test: share of the images, 0..1. With 0 there is no test split.
        seed: of the assignment.
        groups: image, as file name or path below ``root`` -> name of its group.
        compared: these images and maybe more, if they have been compared already.

    Raises:
        ConfigError: a share is out of range.
        DatasetError: the folder is split already, has fewer than two classes, or a class has too
            few images that may be separated, so that a split would have none.
    """
    check_range("seed", seed)
    if not (0 < validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise ConfigError(
            "the shares must be above 0 for validation, 0 or more for test, and below 1 together. "
            f"Received: validation {validation}, test {test}"
        )
    if is_split(root):
        raise DatasetError(
            f"{root} is split already: it holds train and validation. "
            f"Next: make model DATASET={shlex.quote(str(root))}"
        )
    folder = folder_to_split(root)
    listing = list_images(folder)
    check_classes(folder, listing)
    names = list(listing.images)
    label_of = {path: i for i, name in enumerate(names) for path in listing.images[name]}
    compared = compared or compare_images(list(label_of))
    readable = [path for path in compared.readable if path in label_of]
    unreadable = [LeftOut(path, why) for path, why in compared.unreadable.items()]
    similar = [p for p in (*compared.equal, *compared.near) if label_of.keys() >= set(p)]
    bundles = group_images(readable, [*similar, *_pairs_of_groups(readable, groups or {}, root)])
    shares = {"train": 1 - validation - test, "validation": validation, "test": test}
    shares = {name: share for name, share in shares.items() if share}
    counts = np.array(
        [np.bincount([label_of[p] for p in bundle], minlength=len(names)) for bundle in bundles]
    ).reshape(len(bundles), len(names))
    _check_separable(counts, names, len(shares), folder)
    assigned = assign_bundles(counts, list(shares.values()), seed)
    for split, label in _missing(counts, assigned, len(shares)):
        raise DatasetError(
            f"class {names[label]!r} of {root} got no image in {list(shares)[split]}: similar or "
            "grouped images of several classes stay together. Take another --seed or other groups"
        )
    splits: dict[str, dict[str, list[Path]]] = {s: {name: [] for name in names} for s in shares}
    for bundle, split in zip(bundles, assigned, strict=True):
        for path in bundle:
            splits[list(shares)[split]][names[label_of[path]]].append(path)
    for classes in splits.values():
        for images in classes.values():
            images.sort()
    grouped = sum(len(bundle) for bundle in bundles if len(bundle) > 1)
    return SplitPlan(splits, [*listing.left_out, *unreadable], grouped)


def assign_bundles(counts: NDArray[np.int64], shares: list[float], seed: int) -> NDArray[np.int64]:
    """Return the split of every bundle, int64, (bundles,), so that each class has its share.

    The largest bundles are assigned first, each to the split whose class counts come nearest to
    their targets. Then every split gets an image of every class, if the bundles allow it.

    Args:
        counts: int64, (bundles, classes), images of each class in each bundle.
        shares: of each split, adding up to 1. The first split gives to the others.
        seed: of the order of equally large bundles.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    targets = np.outer(shares, counts.sum(axis=0)) + 1e-9  # (splits, classes)
    current = np.zeros_like(targets)
    assigned = np.empty(len(counts), dtype=np.int64)
    for bundle in order:
        excess = current - targets
        cost = ((excess + counts[bundle]) ** 2 - excess**2) / targets
        assigned[bundle] = int(cost.sum(axis=1).argmin())
        current[assigned[bundle]] += counts[bundle]
    for split, label in _missing(counts, assigned, len(shares)):
        donors = [
            bundle for bundle in order[::-1]  # smallest first
            if counts[bundle, label] and _can_leave(bundle, counts, assigned)
        ]  # fmt: skip
        if donors:
            assigned[donors[0]] = split
    return assigned


def split_for_run(root: Path, folder: Path, groups: dict[str, str] | None = None) -> Path:
    """Split a folder of class folders into a run's folder, once, and return the split data set.

    Args:
        root: see ``plan_split``.
        folder: of the run.
        groups: see ``plan_split``.

    Raises:
        ConfigError: the run's images were split from other images, or by other groups.
        DatasetError: the folder cannot be split.
    """
    images, record = folder / RUN_IMAGES, folder / RUN_SPLIT
    class_folders = folder_to_split(root)
    listing = list_images(class_folders)
    files: list[Any] = [
        [name, path.relative_to(root).as_posix(), path.stat().st_size]
        for name, paths in listing.images.items() for path in paths
    ]  # fmt: skip
    source = fingerprint([*files, groups] if groups else files)
    if images.is_dir():
        recorded = read_json(record) if record.is_file() else {}
        if recorded.get("source") != source:
            raise ConfigError(
                f"{images} was split from other images than those of {root}, or by other groups. "
                "Choose another --name, or remove the folder"
            )
        return images
    print(f"{class_folders} is not split: {VALIDATION_SHARE:.0%} of its images become validation")
    plan = plan_split(root, groups=groups)
    print(plan.to_text())
    write_json(record, {"dataset": root.resolve().name, "source": source})
    write_split(plan, images)
    return images


def remove_split(folder: Path) -> None:
    """Remove what ``split_for_run`` wrote, and the run's folder if nothing else is in it."""
    if not (folder / RUN_SPLIT).is_file():
        return
    shutil.rmtree(folder / RUN_IMAGES, ignore_errors=True)
    (folder / RUN_SPLIT).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def write_split(plan: SplitPlan, to: Path, *, copy: bool = False) -> None:
    """Write a split data set, whole or not at all.

    Args:
        plan: which image goes where.
        to: folder to write.
        copy: copy the images. Otherwise they are linked, and copied where links are impossible.
    """
    unfinished = to.with_name(f"unfinished-{os.getpid()}-{to.name}")
    try:
        for split, classes in plan.splits.items():
            for name, images in classes.items():
                folder = unfinished / split / name
                folder.mkdir(parents=True)
                for path, target in _targets(images, folder):
                    _place(path, target, copy=copy)
        to.parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def read_groups(file: Path) -> dict[str, str]:
    """Return the group of each image from a CSV with the columns ``image`` and ``group``.

    A column ``sender`` is taken for ``group``.

    Raises:
        DatasetError: the file is missing, is no such CSV, names no group, or gives an image two.
    """
    if not file.is_file():
        raise DatasetError(f"no file of groups at {file}")
    groups: dict[str, str] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            reader = csv.DictReader(opened, restval="")
            columns = reader.fieldnames or []
            column = next((name for name in ("group", "sender") if name in columns), None)
            if "image" not in columns or column is None:
                raise DatasetError(
                    f"{file} must have the columns image and group. Received: {', '.join(columns)}"
                )
            for row in reader:
                image, group = _normalised(row["image"]), row[column].strip()
                if group and groups.setdefault(image, group) != group:
                    raise DatasetError(
                        f"{file} gives {image!r} two groups, {groups[image]!r} and {group!r}. Name "
                        "every image once. Images of one name need their path below the data set"
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file} is no CSV in UTF-8: {error}. Save it as CSV UTF-8") from error
    if not groups:
        raise DatasetError(f"{file} names no group: the column {column} is empty")
    return groups


def find_group(groups: dict[str, str], path: Path, root: Path) -> str | None:
    """Return which key of ``read_groups`` names an image, or None.

    Args:
        groups: from ``read_groups``.
        path: of the image.
        root: of the data set. A row holds the path below it, with or without the split, or the file
            name.
    """
    parts = path.relative_to(root).parts
    without_split = parts[1:] if parts[0] in SPLITS else parts
    names = ("/".join(parts), "/".join(without_split), path.name)
    return next((key for key in map(_normalised, names) if key in groups), None)


def _normalised(image: str) -> str:
    return unicodedata.normalize("NFC", Path(image).as_posix())


def _pairs_of_groups(paths: Iterable[Path], groups: dict[str, str], root: Path) -> Iterator[Pair]:
    first: dict[str, Path] = {}
    unknown = set(groups)
    for path in paths:
        key = find_group(groups, path, root)
        if key is not None:
            unknown.discard(key)
            original = first.setdefault(groups[key], path)
            if original is not path:
                yield original, path
    if groups and len(unknown) == len(groups):
        raise DatasetError(
            f"no image of the groups is in {root}. The column image holds a file name or a path "
            f"below the data set. Received, for example: {sorted(unknown)[0]!r}"
        )
    if unknown:
        print(f"{len(unknown)} images of the groups are not in {root}: {sorted(unknown)[:NAMED]}")


def _check_separable(counts: NDArray[np.int64], names: list[str], splits: int, root: Path) -> None:
    bundles = (counts > 0).sum(axis=0)
    few = [f"{name!r} ({bundles[i]})" for i, name in enumerate(names) if bundles[i] < splits]
    if few:
        raise DatasetError(
            f"classes of {root} have too few images for {splits} splits, where similar or grouped "
            f"images count once: {', '.join(few)}. Add images, or remove the folder"
        )


def _can_leave(bundle: int, counts: NDArray[np.int64], assigned: NDArray[np.int64]) -> bool:
    """Return whether the split of a bundle keeps every class without the bundle."""
    others = (counts[assigned == assigned[bundle]] > 0).sum(axis=0) - 1
    return bool((others[counts[bundle] > 0] > 0).all())


def _missing(
    counts: NDArray[np.int64], assigned: NDArray[np.int64], splits: int
) -> Iterator[tuple[int, int]]:
    for split in range(splits):
        for label in range(counts.shape[1]):
            if not counts[assigned == split, label].any():
                yield split, label


def _targets(images: list[Path], folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each image and its place. Equal names, of sub-folders, are numbered."""
    used: set[str] = set()
    for path in images:
        name, number = path.name, 1
        while name in used:
            number += 1
            name = f"{path.stem}-{number}{path.suffix}"
        used.add(name)
        yield path, folder / name


def _place(path: Path, target: Path, *, copy: bool) -> None:
    if not copy:
        try:
            os.link(path.resolve(), target)
            return
        except OSError:  # another file system, or one without links
            pass
    shutil.copy2(path, target)
