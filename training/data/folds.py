"""The images that a run learns from and those that judge it: the data set's splits, or a fold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Split, list_unlabelled, load_split
from training.data.split import assign_bundles, find_group, read_groups
from training.errors import ConfigError, DatasetError

GROUPS_OF_UNLABELLED = "labels.csv"  # in the folder of unlabelled images


@dataclasses.dataclass(frozen=True)
class Fold:
    """One turn of cross-validation. Train and validation are pooled, and a part of them judges.

    Attributes:
        index: of the part that judges, from 0.
        count: of equal parts, each with its share of every class.
        groups: CSV file of groups, see ``split.read_groups``. The images of one group, such as a
            person's, are judged together. Empty for none.
    """

    index: int
    count: int
    groups: str = ""

    def __post_init__(self) -> None:
        if self.count < 2 or not 0 <= self.index < self.count:
            raise ConfigError(
                f"folds are 2 or more, counted from 0. Received: fold {self.index} of {self.count}"
            )


@dataclasses.dataclass(frozen=True)
class Part:
    """Some images of a split.

    Attributes:
        whole: the split. Activations are cached of all of it, so that folds share them.
        rows: int64, (images,), index into the split.
    """

    whole: Split
    rows: NDArray[np.int64]

    @classmethod
    def all_of(cls, split: Split) -> Part:
        """Return every image of a split."""
        return cls(split, np.arange(len(split)))

    @property
    def labels(self) -> NDArray[np.int64]:
        """int64, (images,), index into the split's class names."""
        return self.whole.labels[self.rows]

    @property
    def split(self) -> Split:
        """The images themselves."""
        return self.whole.subset(self.rows)


def load_parts(dataset: Path, *, limit: int = 0, fold: Fold | None = None) -> tuple[Part, Part]:
    """Return the images to learn from and those that judge. Test is never among them.

    Args:
        dataset: root of the data set.
        limit: use about so many images of each split, for a quick try. 0 for all.
        fold: None for the data set's own splits.

    Raises:
        DatasetError: a split is missing, or not laid out as it must be.
    """
    training = load_split(dataset, "train").subsample(limit)
    validation = load_split(dataset, "validation", training.class_names).subsample(limit)
    if fold is None:
        return Part.all_of(training), Part.all_of(validation)
    pool = Split(
        training.paths + validation.paths,
        np.concatenate([training.labels, validation.labels]),
        training.class_names,
    )
    groups = groups_of(pool, dataset, Path(fold.groups)) if fold.groups else None
    judging = assign_folds(pool.labels, fold.count, seed=0, groups=groups) == fold.index
    return Part(pool, np.flatnonzero(~judging)), Part(pool, np.flatnonzero(judging))


def load_unlabelled(
    folder: Path, judging: Part, dataset: Path, fold: Fold | None
) -> tuple[Path, ...]:
    """List the unlabelled images to learn from. In a fold, nobody who judges is among them.

    Args:
        folder: of the images. In a fold by groups, its ``labels.csv`` names the group of each.
        judging: the images that judge.
        dataset: root of their data set.
        fold: of the run that learns.

    Raises:
        ConfigError: the folder is missing or holds no image, or it has no file of groups.
        DatasetError: the file of groups has other columns, or misses images.
    """
    paths = list_unlabelled(folder)
    if not (fold and fold.groups):
        return paths
    file = folder / GROUPS_OF_UNLABELLED
    if not file.is_file():
        raise ConfigError(
            f"nobody who judges may be among the unlabelled images: name the group of each in "
            f"{file}, with the columns image and group"
        )
    judges = set(groups_of(judging.split, dataset, Path(fold.groups)))
    groups = groups_of(Split(paths, np.full(len(paths), -1), ()), folder, file)
    return tuple(path for path, group in zip(paths, groups, strict=True) if group not in judges)


def refuse_fold(described: dict[str, Any], run: Path, fold: Fold | None = None) -> None:
    """Keep cross-validation's models from a release, or from a run whose judges they have seen.

    Args:
        described: the run's ``config.json``.
        run: its folder.
        fold: of the run that would use the model. A model of the same fold is fine.

    Raises:
        ConfigError: the model has learned from images that judge.
    """
    found = described.get("fold")
    if found == (dataclasses.asdict(fold) if fold else None):
        return
    if fold is None and found:
        raise ConfigError(
            f"{run} is fold {found['index']} of {found['count']}: it has "
            "learned from validation images, and nothing can be chosen by them after it"
        )
    raise ConfigError(
        f"{run} has learned from images that judge in {fold}. Use a run of the same fold."
    )


def groups_of(images: Split, dataset: Path, file: Path) -> list[str]:
    """Return the group of every image.

    Raises:
        DatasetError: the file is missing, has other columns, or misses images.
    """
    groups = read_groups(file)
    keys = [find_group(groups, path, dataset) for path in images.paths]
    missing = [path for path, key in zip(images.paths, keys, strict=True) if key is None]
    if missing:
        first = missing[0].relative_to(dataset).as_posix()
        raise DatasetError(
            f"{file} misses {len(missing)} of {len(keys)} images, the first is {first!r}. "
            "Every image needs a group: a name of its own, if it belongs to no other."
        )
    return [groups[key] for key in keys if key]


def assign_folds(
    labels: NDArray[np.int64], count: int, seed: int, groups: list[str] | None = None
) -> NDArray[np.int64]:
    """Return every image's fold, int64, (images,): of each class, equal parts in each fold.

    Args:
        labels: int64, (images,).
        count: of folds.
        seed: of the assignment.
        groups: of every image. A group stays in one fold, so the parts are as equal as groups
            allow.

    Raises:
        ConfigError: there are more folds than images or groups.
    """
    unit, units = ("images", len(labels)) if groups is None else ("groups", len(set(groups)))
    if count > units:
        raise ConfigError(f"{count} folds of {units} {unit} leave some empty: take fewer")
    if groups is not None:
        names, group_of = np.unique(np.array(groups), return_inverse=True)
        counts = np.zeros((len(names), int(labels.max()) + 1), dtype=np.int64)
        np.add.at(counts, (group_of, labels), 1)
        return assign_bundles(counts, [1 / count] * count, seed)[group_of]
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        assigned[rows] = (np.arange(len(rows)) + label) % count
    return assigned
