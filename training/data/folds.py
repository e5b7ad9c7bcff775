"""The images that a run learns from and those that judge it: the data set's splits, or a fold."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Split, load_split
from training.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Fold:
    """One turn of cross-validation. Train and validation are pooled, and a part of them judges.

    Attributes:
        index: of the part that judges, from 0.
        count: of equal parts, each with its share of every class.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 2 or not 0 <= self.index < self.count:
            raise ConfigError(
                f"folds are 2 or more, counted from 0. Received: fold {self.index} of {self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> Fold:
        """Return the fold of a text such as "0/5".

        Raises:
            ConfigError: it is none.
        """
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ConfigError(f"a fold is INDEX/COUNT, such as 0/5. Received: {text}")
        return cls(int(index), int(count))


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
    judging = assign_folds(pool.labels, fold.count, seed=0) == fold.index
    return Part(pool, np.flatnonzero(~judging)), Part(pool, np.flatnonzero(judging))


def refuse_fold(described: dict[str, Any], run: Path) -> None:
    """Keep cross-validation's models from becoming a release, or the start of one.

    Args:
        described: the run's ``config.json``.
        run: its folder.

    Raises:
        ConfigError: the run has learned from validation images, which releases are chosen by.
    """
    if described.get("fold"):
        raise ConfigError(
            f"{run} is fold {described['fold']['index']} of {described['fold']['count']}: it has "
            "learned from validation images, and nothing can be chosen by them after it"
        )


def assign_folds(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return every image's fold, int64, (images,): of each class, equal parts in each fold.

    Raises:
        ConfigError: there are more folds than images.
    """
    if count > len(labels):
        raise ConfigError(f"{count} folds of {len(labels)} images leave some empty: take fewer")
    rng = np.random.default_rng(seed)
    assigned = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        assigned[rows] = (np.arange(len(rows)) + label) % count
    return assigned
