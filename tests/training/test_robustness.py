"""Each variation changes a picture's file as it says, and not what is in the picture."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambda_function import REPOSITORY
from lambda_function.images.decode import decode_image
from tests.support.paths import TESTS
from training.commands import main
from training.data.dataset import load_folder
from training.evaluation import robustness

TINY = TESTS / "data" / "tiny.tflite"
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "dark": (5, 5, 5)}


def quarters() -> Image.Image:
    """40 wide, 60 high: red, green over blue, white."""
    image = Image.new("RGB", (40, 60), "white")
    image.paste((255, 0, 0), (0, 0, 20, 30))
    image.paste((0, 255, 0), (20, 0, 40, 30))
    image.paste((0, 0, 255), (0, 30, 20, 60))
    return image


@pytest.mark.parametrize("name", robustness.VARIATIONS)
def test_a_variation_shows_the_same_picture(name: str) -> None:
    data = robustness.VARIATIONS[name](quarters())
    seen = decode_image(data).resize((2, 2), Image.Resampling.BOX)
    expected = [[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]]
    assert np.abs(np.asarray(seen).astype(int) - expected).max() < 40


def test_each_file_is_what_it_is_called() -> None:
    files = {
        name: Image.open(io.BytesIO(make(quarters())))
        for name, make in robustness.VARIATIONS.items()
    }
    assert files["enlarged 3x (bicubic)"].size == (120, 180)
    assert files["JPEG quality 60"].format == "JPEG"
    assert files["rotated by EXIF flag"].size == (60, 40)
    assert files["rotated by EXIF flag"].getexif()[0x0112] == 6
    assert files["PNG with alpha"].mode == "RGBA"
    assert files["WebP"].format == "WEBP"
    # a lower quality is a coarser quantisation
    assert sum(files["JPEG quality 60"].quantization[0]) > 2 * sum(
        files["enlarged 3x (bicubic)"].quantization[0]
    )


def write_pictures(root: Path) -> Path:
    for label, colour in COLOURS.items():
        (root / "validation" / label).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (60, 40), colour).save(root / "validation" / label / f"{index}.png")
    return root


def test_the_command_measures_every_variation(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data")
    out = tmp_path / "out"
    assert main(["robustness", str(TINY), f"--dataset={root}", f"--out={out}"]) == 0
    found = json.loads((out / "robustness_validation.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["as they are", *robustness.VARIATIONS]
    assert {row["correct"] for row in found["rows"]} == {8}
    assert "| WebP | 8 of 8 | 1.0000" in (out / "robustness_validation.md").read_text()


def test_a_variation_that_moves_accuracy_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def painted_over(image: Image.Image) -> bytes:
        return robustness.webp(Image.new("RGB", image.size, COLOURS["dark"]))

    monkeypatch.setitem(robustness.VARIATIONS, "painted over", painted_over)
    root = write_pictures(tmp_path / "data")
    out = tmp_path / "out"
    assert main(["robustness", str(TINY), f"--dataset={root}", f"--out={out}"]) == 2
    assert "['painted over']" in capsys.readouterr().err
    row = json.loads((out / "robustness_validation.json").read_text())["rows"][-1]
    assert (row["correct"], row["became_wrong"], row["became_right"]) == (2, 6, 0)


def test_test_is_refused_to_a_model_that_the_ledger_does_not_hold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robustness", str(TINY), "--split=test", f"--out={tmp_path}"]) == 2
    assert "not in the test ledger" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_of_equal_name_in_two_classes_do_not_meet(tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "data")
    split = load_folder(root / "validation")
    (tmp_path / "varied").mkdir()
    varied = robustness.vary(split, robustness.webp, tmp_path / "varied")
    assert len(set(varied.paths)) == len(split) == 8
    assert varied.labels.tolist() == split.labels.tolist()


def test_the_model_card_says_what_was_measured() -> None:
    results = REPOSITORY / "benchmarks" / "results"
    files = [results / f"robustness_{split}.json" for split in ("validation", "test")]
    columns = [
        [round(row["difference"] * 100, 2) for row in json.loads(file.read_text())["rows"]]
        for file in files
    ]
    lines = (REPOSITORY / "MODEL_CARD.md").read_text().split("| saved as |")[1].splitlines()[2:7]
    shown = [[float(cell.strip(" *")) for cell in line.split("|")[2:4]] for line in lines]
    assert shown == [list(row) for row in zip(*columns, strict=True)][1:]  # after the originals
