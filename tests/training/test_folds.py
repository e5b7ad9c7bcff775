"""Folds of cross-validation."""

from __future__ import annotations

import numpy as np
import pytest

from training.data.folds import assign_folds
from training.errors import ConfigError


def test_folds_share_every_class_equally() -> None:
    labels = np.array([0] * 50 + [1] * 23 + [2] * 7)

    assigned = assign_folds(labels, 5, seed=0)

    for label in range(3):
        counts = np.bincount(assigned[labels == label], minlength=5)
        assert counts.sum() == (labels == label).sum()
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(assigned, assign_folds(labels, 5, seed=1))


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 folds of 4 images leave some empty"):
        assign_folds(np.zeros(4, dtype=np.int64), 5, seed=0)
