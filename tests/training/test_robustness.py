"""Each variation changes the file of an image as its name says, and not its content."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambda_function import REPOSITORY
from lambda_function.images.decode import decode_image
from lambda_function.metadata import InputSpec
from tests.support.colours import COLOURS, TINY, write_colours
from tests.support.images import corners
from training.commands import main
from training.data.dataset import load_folder
from training.evaluation import robustness


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_colours(tmp_path / "data" / "validation", count=2)
    return tmp_path / "data"


@pytest.mark.parametrize("name", robustness.VARIATIONS)
def test_a_variation_shows_the_same_image(name: str) -> None:
    data = robustness.VARIATIONS[name](corners(60, 40))

    shown = decode_image(data).resize((2, 2), Image.Resampling.BOX)

    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    assert np.abs(np.asarray(shown).astype(int) - expected).max() < 40


def test_each_file_is_what_its_name_says() -> None:
    files = {
        name: Image.open(io.BytesIO(make(corners(60, 40))))
        for name, make in robustness.VARIATIONS.items()
    }

    assert files["enlarged 3x (bicubic)"].size == (120, 180)
    assert files["JPEG quality 60"].format == "JPEG"
    assert files["rotated by EXIF flag"].size == (60, 40)
    assert files["rotated by EXIF flag"].getexif()[0x0112] == 6
    assert files["PNG with alpha"].mode == "RGBA"
    assert files["WebP"].format == "WEBP"
    # a lower quality is a coarser quantisation
    coarse, fine = (files[n].quantization[0] for n in ("JPEG quality 60", "enlarged 3x (bicubic)"))
    assert sum(coarse) > 2 * sum(fine)


def test_a_photo_of_a_phone_is_enlarged_as_far_as_it_is_served() -> None:
    data = robustness.enlarged(Image.new("RGB", (4000, 3000)))

    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (8164, 6123)  # 50 million pixels
    assert decode_image(data, target=InputSpec(8, 8))


def test_the_command_measures_every_variation(tmp_path: Path, dataset: Path) -> None:
    assert main(["robustness", str(TINY), f"--dataset={dataset}", f"--out={tmp_path}"]) == 0

    rows = json.loads((tmp_path / "robustness_validation.json").read_text())["rows"]
    assert [row["name"] for row in rows] == ["as they are", *robustness.VARIATIONS]
    assert {row["correct"] for row in rows} == {8}
    assert "| WebP | 8 of 8 | 1.0000" in (tmp_path / "robustness_validation.md").read_text()


def test_a_variation_that_moves_accuracy_fails(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def paint_over(image: Image.Image) -> bytes:
        return robustness.webp(Image.new("RGB", image.size, COLOURS["dark"]))

    monkeypatch.setitem(robustness.VARIATIONS, "painted over", paint_over)

    assert main(["robustness", str(TINY), f"--dataset={dataset}", f"--out={tmp_path}"]) == 2

    assert "['painted over']" in capsys.readouterr().err
    row = json.loads((tmp_path / "robustness_validation.json").read_text())["rows"][-1]
    assert (row["correct"], row["became_wrong"], row["became_right"]) == (2, 6, 0)


def test_the_test_set_is_refused_to_a_model_that_the_test_log_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robustness", str(TINY), "--split=test", f"--out={tmp_path}"]) == 2

    assert "not in the test log" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_of_equal_name_in_two_classes_stay_apart(tmp_path: Path, dataset: Path) -> None:
    split = load_folder(dataset / "validation")

    varied = robustness.vary(split, robustness.webp, tmp_path)

    assert len(set(varied.paths)) == len(split) == 8
    assert varied.labels.tolist() == split.labels.tolist()


@pytest.mark.release
def test_the_model_card_says_what_was_measured() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    files = [results / f"robustness_{split}.json" for split in ("validation", "test")]
    columns = [
        [round(row["difference"] * 100, 2) for row in json.loads(file.read_text())["rows"]]
        for file in files
    ]
    lines = (REPOSITORY / "MODEL_CARD.md").read_text().split("| saved as |")[1].splitlines()[2:7]
    shown = [[float(cell.strip(" *")) for cell in line.split("|")[2:4]] for line in lines]

    assert shown == [list(row) for row in zip(*columns, strict=True)][1:]  # without the originals
