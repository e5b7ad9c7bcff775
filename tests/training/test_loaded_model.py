"""A model of either kind is scored on images whose colours are the right answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambda_function.metadata import InputSpec
from tests.support.colours import COLOURS, TINY, write_colours
from training.data.dataset import load_folder
from training.errors import ModelFileError
from training.evaluation.loaded_model import (
    LoadedModel,
    load_model,
    predict_split,
    refuse_fold_on,
)


def test_columns_have_the_order_of_the_classes_not_of_the_model(tmp_path: Path) -> None:
    split = load_folder(write_colours(tmp_path))

    probabilities = predict_split(load_model(TINY), split)

    assert split.class_names == ("blue", "dark", "green", "red")  # sorted, unlike the model's
    assert probabilities.argmax(axis=1).tolist() == split.labels.tolist()


def test_classes_that_the_model_does_not_know_are_refused(tmp_path: Path) -> None:
    for name in ("red", "cat"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "a.png")

    with pytest.raises(ModelFileError, match=r"labels \['blue'.*classes \['cat', 'red'\]"):
        predict_split(load_model(TINY), load_folder(tmp_path))


def test_output_that_is_not_probabilities_is_refused(tmp_path: Path) -> None:
    logits = LoadedModel(
        name="toy", version="1", kind="tflite", sha256="ab" * 32, size_bytes=10,
        labels=tuple(COLOURS), input=InputSpec(8, 8), temperature=1.0,
        predict_proba=lambda images: np.full((len(images), 4), 3.0),
    )  # fmt: skip

    with pytest.raises(ModelFileError, match=r"not probabilities: they sum to 12\.0"):
        predict_split(logits, load_folder(write_colours(tmp_path)))


def test_a_model_of_a_fold_is_not_scored_on_images_that_it_has_learned_from() -> None:
    model = dataclasses.replace(load_model(TINY), is_of_fold=True)

    refuse_fold_on("test", model)
    refuse_fold_on("validation", load_model(TINY))
    with pytest.raises(ModelFileError, match=r"has learned from validation .* on --split test"):
        refuse_fold_on("validation", model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.tflite", "no model at"),
        ("model.h5", r"is a \.tflite or a \.keras"),
        ("model.keras", r"no config\.json beside it"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused_by_name(
    tmp_path: Path, name: str, message: str
) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(ModelFileError, match=message):
        load_model(tmp_path / name)
