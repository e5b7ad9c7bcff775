"""Views of training images vary at random, and repeat for equal seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from training.data.dataset import load_split  # noqa: E402
from training.data.features import extract, rand_augment  # noqa: E402

pytestmark = pytest.mark.training

SIZE = 71


def test_rand_augment_repeats_by_seed_and_stays_in_range() -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (4, SIZE, SIZE, 3)).astype(np.float32)
    before = images.copy()
    once, again = (rand_augment(images, seed="0123456789abcdef") for _ in range(2))
    other = rand_augment(images, seed="fedcba9876543210")
    assert once.dtype == np.float32
    assert once.shape == images.shape
    assert np.abs(once).max() <= 1
    assert np.array_equal(once, again)
    assert not np.array_equal(once, other)
    assert np.array_equal(images, before)
    assert not np.array_equal(once, images)


@pytest.mark.parametrize("augmentation", ["jpeg", "randaugment"])
def test_stronger_augmentation_changes_random_views_alone(
    tmp_path: Path, drawings: Path, augmentation: str
) -> None:
    split = load_split(drawings, "train").subsample(6)
    pixels = keras.Input((SIZE, SIZE, 3))
    itself = keras.Model(pixels, keras.layers.Identity()(pixels))

    def view(number: int, augmentation: str) -> Any:
        return extract(
            itself, split, InputSpec(SIZE, SIZE), weights_id="none", view=number,
            augmentation=augmentation, cache=tmp_path,
        )  # fmt: skip

    for number in (0, 1):
        assert np.array_equal(view(number, "mild"), view(number, augmentation))
    assert not np.array_equal(view(2, "mild"), view(2, augmentation))
