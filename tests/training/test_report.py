"""The report escapes what it did not write, and draws what the figures say."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.dataset import Split, load_folder
from training.evaluation.evaluate import Evaluation
from training.evaluation.report import fill, render

MODEL = {
    "name": "<script>alert(1)</script>", "version": "1", "kind": "tflite", "sha256": "ab" * 32,
    "size_bytes": 10, "input": [8, 8], "temperature": 1.0,
}  # fmt: skip
ORIGIN = {
    "date": "", "commit": "", "python": "", "packages": {}, "processor": "<u>", "cores": 1
}  # fmt: skip


def _page(split: Split, probabilities: list[list[float]], name: str = "") -> str:
    """Return the page of one model's predictions."""
    evaluation = Evaluation(MODEL, split, np.array(probabilities))
    result = {
        "images": {"name": name, "count": len(split), "classes": list(split.class_names)},
        "models": [evaluation.to_dict()],
        "comparison": None,
        "provenance": ORIGIN,
    }
    return render(result, dict(zip(split.names, split.paths, strict=True)))


def test_names_of_models_classes_files_and_folders_are_escaped(tmp_path: Path) -> None:
    path = tmp_path / "<b>" / "0.png"
    path.parent.mkdir()
    Image.new("RGB", (9, 9)).save(path)
    split = Split((path, tmp_path / "c&d" / "1.png"), np.array([0, 1]), ("<b>", "c&d"))

    page = _page(split, [[0.2, 0.8], [0.1, 0.9]], name="<i>")

    assert not [raw for raw in ("<script", "<b>/", "<i>", "<u>", "c&d<") if raw in page]
    assert "c&amp;d" in page
    assert page.count("<figure>") == 1  # the one mistake


def test_images_of_one_name_in_two_sub_folders_are_shown_each_beside_its_own_mistake(
    tmp_path: Path,
) -> None:
    for label, colour in (("hat", "red"), ("skirt", "blue")):
        (tmp_path / label / "day").mkdir(parents=True)
        Image.new("RGB", (9, 9), colour).save(tmp_path / label / "day" / "1.png")

    page = _page(load_folder(tmp_path), [[0.2, 0.8], [0.9, 0.1]])

    shown = [
        Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB").getpixel((4, 4))
        for data in re.findall(r"base64,([^\"']+)", page)
    ]
    # The most confident mistake first: the skirt, which is blue.
    assert [int(np.argmax(pixel)) for pixel in shown] == [2, 0]


def test_a_part_is_html_and_its_values_are_not() -> None:
    inner = fill("heading", title="a < b")

    assert inner == "<h2>a &lt; b</h2>"
    assert fill("fact", name="x", value=inner) == "<dt>x</dt><dd><h2>a &lt; b</h2></dd>"
