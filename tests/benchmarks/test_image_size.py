"""The counting of images' bytes, and that docs/deploy-reference.md tells what was counted.

tests/docker holds the built image against the same result file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from benchmarks import image_size
from benchmarks.harness import RESULTS
from lambda_function import SHIPPED_MODEL
from training.files import replace_marked

if TYPE_CHECKING:
    from pathlib import Path

COUNTED = json.loads((RESULTS / "image_size.json").read_text())


def test_only_what_the_base_does_not_have_counts_and_by_kind() -> None:
    base = {"/bin/sh": 100, "/etc/passwd": 50}
    image = {
        **base,
        "/etc/passwd": 60,  # changed: counts as a whole
        "/var/task/model.tflite": 1000,
        "/var/task/a/__pycache__/b.pyc": 7,
        "/var/task/a/b.py": 5,
    }
    assert image_size.count_added(base, image) == {
        "added_bytes": 1072,
        "model_bytes": 1000,
        "byte_code_bytes": 7,
        "other_bytes": 65,
    }


def test_the_bar_does_not_count_the_other_s_byte_code() -> None:
    course = {"added_bytes": 110, "byte_code_bytes": 10}
    assert image_size.bar_bytes({"images": {"course": course}}) == 80


def test_the_default_is_within_the_bar() -> None:
    assert COUNTED["images"]["ours"]["added_bytes"] <= image_size.bar_bytes(COUNTED)


def test_the_course_style_image_is_what_it_is_called() -> None:
    course = COUNTED["images"]["course"]
    # Xception's 20.8 million weights in four bytes each
    assert course["model_bytes"] == pytest.approx(83.2e6, rel=0.02)
    assert course["added_bytes"] - course["byte_code_bytes"] == pytest.approx(176e6, rel=0.02)


@pytest.mark.release
def test_the_counted_model_is_as_large_as_the_shipped_one() -> None:
    counted = COUNTED["images"]["ours"]["model_bytes"]
    assert counted == pytest.approx(SHIPPED_MODEL.stat().st_size, rel=0.02), (
        "another model is shipped: `python -m benchmarks image-size --write`"
    )


def test_the_document_tells_what_was_counted() -> None:
    document, marks = image_size.DOCUMENT.read_text(), (image_size.BEGIN, image_size.END)
    assert replace_marked(document, marks, image_size.table(COUNTED)) == document, (
        "run `python -m benchmarks image-size --write`"
    )


def test_course_style_is_built_from_its_lock_without_the_runtime_client(tmp_path: Path) -> None:
    image_size.write_course_context(tmp_path, 1234)
    names = [line.partition("==")[0] for line in (tmp_path / "wanted.txt").read_text().splitlines()]
    assert names == ["keras-image-helper", "numpy", "pillow", "tflite-runtime"]
    assert (tmp_path / "clothing-model.tflite").stat().st_size == 1234
    dockerfile = (tmp_path / "Dockerfile").read_text()
    assert "--require-hashes" in dockerfile and "--python-version 3.11" in dockerfile
