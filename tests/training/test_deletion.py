"""The deletion test hides the right cells, and fails a map that shows something else."""

from __future__ import annotations

import argparse
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from lambda_function.classifier import Classifier
from lambda_function.metadata import InputSpec
from tests.conftest import TINY_MAP_MODEL, TINY_MODEL
from training.data.dataset import load_split
from training.errors import ModelFileError
from training.evaluation import deletion
from training.evaluation.deletion import HIGHEST, MIDDLE, MOVED, RANDOM


def test_each_way_hides_as_many_cells():
    class_map = np.arange(20, dtype=np.float32).reshape(4, 5)  # the last row is the highest
    cells = deletion.choose_cells(class_map, 0.2, np.random.default_rng(0))

    assert {way: int(chosen.sum()) for way, chosen in cells.items()} == dict.fromkeys(
        deletion.WAYS, 4
    )
    np.testing.assert_array_equal(np.flatnonzero(cells[HIGHEST]), [16, 17, 18, 19])
    assert not (cells[MOVED] == cells[HIGHEST]).all()
    # The middle column of the middle rows, then the cells beside it in these rows.
    assert cells[MIDDLE][1:3, 2].all()
    assert cells[MIDDLE][1:3, 1:4].sum() == 4


def test_the_moved_patch_keeps_its_shape():
    class_map = np.zeros((6, 6), np.float32)
    class_map[2:4, 2:4] = 1
    for seed in range(20):
        moved = deletion.choose_cells(class_map, 4 / 36, np.random.default_rng(seed))[MOVED]
        rows, columns = moved.any(axis=1), moved.any(axis=0)
        assert (rows.sum(), columns.sum(), moved.sum()) == (2, 2, 4)


def test_random_cells_are_other_ones_each_time():
    rng = np.random.default_rng(0)
    class_map = np.zeros((7, 7), np.float32)

    first, second = (deletion.choose_cells(class_map, 0.2, rng)[RANDOM] for _ in range(2))

    assert first.sum() == second.sum() == 10  # of 49
    assert not (first == second).all()


def test_hidden_cells_are_grey_and_the_others_as_they_were():
    tensor = np.random.default_rng(0).random((5, 4, 3)).astype(np.float32)
    grey = np.full_like(tensor, 0.5)

    hidden = deletion.hide(tensor, np.array([[False, True], [False, False]]), grey)

    # Rows 0, 1 and 2 of five are of the first of two cells.
    assert (hidden[:3, 2:] == 0.5).all()
    np.testing.assert_array_equal(hidden[3:], tensor[3:])
    np.testing.assert_array_equal(hidden[:, :2], tensor[:, :2])


@pytest.mark.parametrize(("normalisation", "value"), [("xception", 0.004), ("0..255", 128.0)])
def test_grey_is_what_the_model_sees_of_a_grey_image(normalisation, value):
    grey = deletion.grey_image(InputSpec(3, 5, normalisation=normalisation))

    assert grey.shape == (3, 5, 3)
    np.testing.assert_allclose(grey, value, atol=1e-3)


@pytest.fixture
def dataset(tmp_path):
    """Eight black images with two or three red cells of 24, in validation/red."""
    rng = np.random.default_rng(0)
    for number in range(8):
        image = Image.new("RGB", (48, 32), "black")
        for cell in rng.choice(24, 2 + number % 2, replace=False):
            image.paste(
                "red", (8 * (cell % 6), 8 * (cell // 6), 8 * (cell % 6) + 8, 8 * (cell // 6) + 8)
            )
        for label in ("red", "green", "blue", "dark"):
            folder = tmp_path / "validation" / label
            folder.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "validation" / "red" / f"{number}.png")
        for label, colour in (("green", "lime"), ("blue", "blue"), ("dark", "black")):
            Image.new("RGB", (48, 32), colour).save(
                tmp_path / "validation" / label / f"{number}.png"
            )
    return tmp_path


def options(dataset, out, model=TINY_MAP_MODEL):
    return argparse.Namespace(model=model, dataset=dataset, limit=0, out=out)


def test_a_drop_is_of_the_class_that_was_predicted(dataset):
    split = load_split(dataset, "validation", ("red", "green", "blue", "dark"))
    first = split.subset(np.array([0]))
    found = deletion.measure(Classifier(TINY_MAP_MODEL), first)

    # A black image with a few red cells is "dark", and its highest cells for "dark" are black
    # ones. Five of 24 become grey. Each moves the logit of "dark" by -6/24.
    assert found.cells == 5
    assert found.grid == (4, 6)
    assert 0 < found.drops[HIGHEST][0] < found.probability[0]


class Inverted:
    """A model whose map is high where it should be low."""

    def __init__(self, classifier):
        self.metadata, self.predict = classifier.metadata, classifier.predict
        self._classifier = classifier

    def predict_all(self, tensor):
        outputs = self._classifier.predict_all(tensor)
        return dataclasses.replace(outputs, activation_map=-outputs.activation_map)


def test_a_map_that_shows_the_wrong_cells_is_not_true(dataset):
    split = load_split(dataset, "validation", ("red", "green", "blue", "dark"))
    right = Classifier(TINY_MAP_MODEL)
    found = [deletion.summarise(deletion.measure(m, split)) for m in (right, Inverted(right))]

    assert [deletion.is_true(rows) for rows in found] == [True, False]


@pytest.mark.parametrize("shift", [0.2, 0.0])
def test_a_map_is_true_if_its_cells_take_away_more_than_random_ones(shift):
    rng = np.random.default_rng(0)
    noise = {way: rng.normal(0, 0.05, 100) for way in deletion.WAYS}
    drops = {**noise, HIGHEST: noise[HIGHEST] + shift}
    changed = {way: np.zeros(100, np.bool_) for way in deletion.WAYS}
    found = deletion.Deletion(np.ones(100), drops, changed, 10, (7, 7))

    assert deletion.is_true(deletion.summarise(found)) is (shift > 0)


def test_the_rows_are_as_worked_out_by_hand():
    drops = {way: np.array([0.0, 0.2]) for way in deletion.WAYS}
    drops[HIGHEST] = np.array([0.3, 0.7])
    changed = {way: np.array([False, way == HIGHEST]) for way in deletion.WAYS}
    found = deletion.Deletion(np.array([0.9, 0.8]), drops, changed, 10, (7, 7))

    highest, random, *_ = deletion.summarise(found)

    assert highest == {
        "way": "the highest cells",
        "mean_drop": pytest.approx(0.5),
        "labels_changed": 1,
    }
    # Differences 0.3 and 0.5: mean 0.4, deviation 0.2 / sqrt(2), margin 1.96 * 0.1.
    assert random["more_than"] == pytest.approx(0.4)
    assert random["more_than_interval_95"] == pytest.approx([0.204, 0.596])


def test_the_command_writes_both_reports(dataset, tmp_path, capsys):
    out = tmp_path / "out"
    deletion.run(options(dataset, out))

    report = json.loads((out / "deletion_validation.json").read_text())
    assert report["images"] == 32
    assert report["hidden_cells"] == 5
    assert [row["way"] for row in report["rows"]] == list(deletion.WAYS)
    assert "| the highest cells |" in (out / "deletion_validation.md").read_text()
    assert "| the highest cells |" in capsys.readouterr().out


def test_a_model_without_a_map_is_refused(dataset, tmp_path):
    with pytest.raises(ModelFileError, match=r"no activation map\. Convert it with"):
        deletion.run(options(dataset, tmp_path / "out", TINY_MODEL))


def test_a_missing_model_is_refused(dataset, tmp_path):
    with pytest.raises(ModelFileError, match="no model at"):
        deletion.run(options(dataset, tmp_path / "out", tmp_path / "no.tflite"))
