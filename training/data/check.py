"""`python -m training data-check`: what a folder of images holds, and what is wrong with it.

Prints a table of classes and splits, and writes every problem to a CSV: unreadable images, equal
and nearly equal images, and files that are left out. Nothing is changed.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from training.data.dataset import (
    SPLITS,
    LeftOut,
    Listing,
    find_dataset,
    has_train,
    is_split,
    list_images,
)
from training.data.duplicates import Comparison, compare_images
from training.data.folds import load_parts
from training.data.split import plan_split
from training.errors import DatasetError
from training.files import write_csv
from training.options import add_options

OUTPUT = Path("runs") / "data-check"
COLUMNS = ("problem", "file", "split", "class", "detail")
SMALL_CLASS = 20  # training images. Below this validation has four or fewer
UNEVEN = 3  # times as many images in the largest class as in the smallest
SHOWN = 10  # problems of a kind in the terminal
UNSPLIT = "all"


@dataclasses.dataclass(frozen=True)
class Problem:
    """One line of the report.

    Attributes:
        kind: what is wrong, such as ``duplicate across splits``.
        file: below the data set.
        split: of the file, or ``all`` if the data set is not split.
        class_name: of the file. Empty for a file beside the class folders.
        detail: the reason, or the other file.
    """

    kind: str
    file: str
    split: str
    class_name: str
    detail: str


# Worst first: an image on both sides makes validation measure memory.
KINDS = (
    "duplicate across splits",
    "near-duplicate across splits",
    "duplicate in two classes",
    "near-duplicate in two classes",
    "unreadable",
    "duplicate",
    "near-duplicate",
    "left out",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_options(parser, "dataset")
    parser.add_argument(
        "--out", type=Path, default=OUTPUT, help=f"report's folder; default {OUTPUT}"
    )


def run(parsed: argparse.Namespace) -> None:
    """Check the data set, print the table and write the CSV."""
    root = find_dataset(parsed.dataset)
    listings = list_splits(root)
    compared = compare_images([*_places(listings)])
    problems = find_problems(root, listings, compared)
    file = parsed.out / f"{root.resolve().name}.csv"
    rows = [
        dict(zip(COLUMNS, (p.kind, p.file, p.split, p.class_name, p.detail), strict=True))
        for p in problems
    ]
    write_csv(file, COLUMNS, rows)
    print(to_text(listings, problems))
    print(f"wrote {file} ({len(problems)} problems)")
    print(_next_step(root, compared))


def list_splits(root: Path) -> dict[str, Listing]:
    """Return what each split holds. A data set that is not split has one split named ``all``.

    Raises:
        DatasetError: the folder holds no class folder with an image.
    """
    if has_train(root):
        splits = [name for name in SPLITS if (root / name).is_dir()]
        listings = {name: list_images(root / name) for name in splits}
    else:
        listings = {UNSPLIT: list_images(root)}
    if not any(images for listing in listings.values() for images in listing.images.values()):
        raise DatasetError(
            f"{root} holds no class folder with an image. Make one folder per class, and put its "
            "images into it"
        )
    return listings


def find_problems(root: Path, listings: dict[str, Listing], compared: Comparison) -> list[Problem]:
    """Return every problem of a data set, the worst kinds first.

    Args:
        root: of the data set.
        listings: see ``list_splits``.
        compared: all images of the listings.
    """
    places = _places(listings)
    problems = [
        _left_out(root, entry, split) for split in listings for entry in listings[split].left_out
    ]
    if has_train(root):
        problems += [
            Problem("left out", entry.name, "", "", "a folder that is no split")
            for entry in sorted(root.iterdir())
            if entry.is_dir() and entry.name not in SPLITS and not entry.name.startswith(".")
        ]
    problems += [
        Problem("unreadable", path.relative_to(root).as_posix(), *places[path], why)
        for path, why in compared.unreadable.items()
    ]
    for kind, pairs in (("duplicate", compared.equal), ("near-duplicate", compared.near)):
        for one, other in pairs:
            kind_of_pair = kind + _where(places[one], places[other])
            problems.append(
                Problem(
                    kind_of_pair,
                    other.relative_to(root).as_posix(),
                    *places[other],
                    one.relative_to(root).as_posix(),
                )
            )
    return sorted(problems, key=lambda problem: (KINDS.index(problem.kind), problem.file))


def to_text(listings: dict[str, Listing], problems: list[Problem]) -> str:
    """Return the table of classes and splits, the problems, and which classes are small."""
    names = sorted({name for listing in listings.values() for name in listing.images})
    width = max(len("class"), *map(len, names))
    lines = [f"{'class':<{width}}" + "".join(f"{split:>12}" for split in listings)]
    for name in names:
        counts = [len(listing.images.get(name, [])) for listing in listings.values()]
        lines.append(f"{name:<{width}}" + "".join(f"{count:>12}" for count in counts))
    totals = [sum(map(len, listing.images.values())) for listing in listings.values()]
    lines.append(f"{'all':<{width}}" + "".join(f"{total:>12}" for total in totals))
    for kind in KINDS:
        of_kind = [problem for problem in problems if problem.kind == kind]
        if of_kind:
            lines.append(f"\n{kind}: {len(of_kind)}")
            lines += [f"  {problem.file}: {problem.detail}" for problem in of_kind[:SHOWN]]
            if len(of_kind) > SHOWN:
                lines.append(f"  and {len(of_kind) - SHOWN} more")
    return "\n".join([*lines, "", *_remarks(listings)]).rstrip()


def _remarks(listings: dict[str, Listing]) -> Iterator[str]:
    first = next(iter(listings.values()))
    counts = Counter({name: len(images) for name, images in first.images.items()})
    for split, listing in listings.items():
        missing = sorted(set(first.images) ^ set(listing.images))
        if missing:
            yield f"classes of only one of {next(iter(listings))} and {split}: {', '.join(missing)}"
    small = [name for name, count in counts.items() if count < SMALL_CLASS]
    if small:
        yield f"small classes, below {SMALL_CLASS} images: {', '.join(small)}. Add images"
    (largest, most), (smallest, fewest) = counts.most_common(1)[0], counts.most_common()[-1]
    if fewest and most >= UNEVEN * fewest:
        yield (
            f"uneven classes: {largest} has {most} images, {smallest} {fewest}. Training weighs "
            "rare classes more"
        )


def _left_out(root: Path, entry: LeftOut, split: str) -> Problem:
    relative = entry.path.relative_to(root)
    inside = relative.parts[1:] if split != UNSPLIT else relative.parts
    name = inside[0] if len(inside) > 1 else ""
    return Problem("left out", relative.as_posix(), split, name, entry.reason)


def _where(one: tuple[str, str], other: tuple[str, str]) -> str:
    if one[0] != other[0]:
        return " across splits"
    return " in two classes" if one[1] != other[1] else ""


def _places(listings: dict[str, Listing]) -> dict[Path, tuple[str, str]]:
    """Return the split and the class of every image."""
    return {
        path: (split, name)
        for split, listing in listings.items()
        for name, images in listing.images.items()
        for path in images
    }


def _next_step(root: Path, compared: Comparison) -> str:
    """Do what training does before its first epoch. Return what would stop it, or the command."""
    try:
        if is_split(root):
            load_parts(root)
            learned = [p for p in compared.unreadable if p.relative_to(root).parts[0] != "test"]
            if learned:
                raise DatasetError(f"{len(learned)} images cannot be read. Remove them")
        else:
            plan_split(root, compared=compared)
    except DatasetError as error:
        return f"Training would stop: {error}"
    return f"Next: make model DATASET={shlex.quote(str(root))}"
