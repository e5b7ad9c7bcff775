"""Views of training images vary at random, and repeat for equal seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from training.data.dataset import load_folder, load_split  # noqa: E402
from training.data.features import extract  # noqa: E402
from training.errors import DatasetError  # noqa: E402

pytestmark = pytest.mark.training

SIZE = 71


def test_compressed_views_differ_from_plain_ones_in_random_views_alone(
    tmp_path: Path, drawings: Path
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
        assert np.array_equal(view(number, "mild"), view(number, "jpeg"))
    assert not np.array_equal(view(2, "mild"), view(2, "jpeg"))


def test_activations_that_were_deleted_are_not_taken_for_finished(tmp_path: Path) -> None:
    for label in ("hat", "skirt"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (9, 9), "red").save(tmp_path / "images" / label / "1.png")
    split, pixels = load_folder(tmp_path / "images"), keras.Input((SIZE, SIZE, 3))
    itself = keras.Model(pixels, keras.layers.Identity()(pixels))

    def view() -> Any:
        spec = InputSpec(SIZE, SIZE)
        return extract(itself, split, spec, weights_id="none", cache=tmp_path / "cache")

    expected = np.array(view())
    for file in (tmp_path / "cache").rglob("activations.npy"):
        file.unlink()
    image = split.paths[0].read_bytes()
    split.paths[0].write_bytes(bytes(len(image)))
    with pytest.raises(DatasetError):  # stops the extraction before its first note of progress
        view()
    split.paths[0].write_bytes(image)

    assert np.array_equal(view(), expected)
