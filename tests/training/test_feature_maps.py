"""The drawing of feature maps: the right maps, in the right places, from made-up features."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.support.colours import printed_error
from training.commands import main
from training.experiments import feature_maps


def test_the_maps_with_the_largest_variance_come_first():
    maps = np.zeros((2, 2, 6))
    maps[0, 0] = [1, 6, 2, 5, 3, 4]

    assert [each[0, 0] for each in feature_maps.strongest(maps)] == [6, 5, 4, 3]


def test_a_map_is_drawn_from_black_to_white_and_an_even_one_is_black():
    assert np.asarray(feature_maps.grey(np.array([[-1.0, 0], [1, 1]]))).tolist() == [
        [0, 127],
        [255, 255],
    ]
    assert not np.asarray(feature_maps.grey(np.full((2, 2), 3.0))).any()


def test_three_rows_show_block_2_block_14_and_the_map_over_the_image():
    early, late = np.zeros((4, 4, 8)), np.zeros((2, 2, 2048))
    early[:, :2] = late[:, :1] = 1.0  # the left half
    image = Image.new("RGB", (8, 8), (0, 0, 255))
    drawing = np.asarray(feature_maps.draw(image, early, late, np.array([[1.0, 0], [1, 0]]), "hat"))

    row, first = 184, slice(10, 160)  # pixels from row to row, and of the first column
    for top in (32, 32 + row):
        tile = drawing[top : top + 150, first]
        assert tile[:, :75].min() == 255
        assert tile[:, 75:].max() == 0
    third = drawing[32 + 2 * row : 182 + 2 * row]
    assert (third[:, first] == (0, 0, 255)).all()
    over = third[:, 330:480]
    assert over[75, 5, 0] > 100  # the colour of the map lies on the left
    assert over[75, 145, 0] == 0
    assert feature_maps.caption(14, late) == "Block 14: 4 of 2,048 feature maps, 2x2"


@pytest.mark.training
def test_a_run_without_an_activation_map_is_refused(tmp_path, capsys):
    import keras

    keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.GlobalAveragePooling2D(name="pool"),
            keras.layers.Dense(4, name="inner"),
            keras.layers.Dense(2, name="logits"),
        ]
    ).save(tmp_path / "model.keras")
    described = {"name": "x", "version": "1", "labels": ["a", "b"]}
    size = {"height": 8, "width": 8}
    (tmp_path / "config.json").write_text(json.dumps({**described, "input": size}))

    assert main(["feature-maps", str(tmp_path), f"--out={tmp_path / 'out.png'}"]) == 2
    assert "has no activation map: it has a dense layer before the last" in printed_error(capsys)
    assert main(["feature-maps", str(tmp_path / "model.tflite")]) == 2
    assert "no model at" in printed_error(capsys)
    assert not (tmp_path / "out.png").exists()
