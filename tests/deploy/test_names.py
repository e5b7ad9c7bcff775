"""Stack and image are called after the artifact."""

from __future__ import annotations

import pytest

from deploy.image.names import default_name
from deploy.local_checks import check_stack_name
from tests.support.converter import with_metadata
from tests.support.paths import TESTS

TINY = (TESTS / "data" / "tiny.tflite").read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clothing-xception", "clothing-classifier"),
        ("screws", "screws"),
        ("My Screws_v2!", "my-screws-v2"),
        ("7 screws", "model-7-screws"),
        ("帽子", "model"),
        ("Screws of the workshop in Hamburg, 2nd try", "screws-of-the-workshop-in-hamburg-2nd-tr"),
        (f"{'a' * 39}-b", "a" * 39),
    ],
)
def test_the_name_fits_cloudformation_and_docker(tmp_path, name, expected):
    path = tmp_path / "model.tflite"
    path.write_bytes(with_metadata(TINY, name=name))

    assert default_name(path) == expected
    assert check_stack_name(f"{expected}-staging")


def test_a_missing_or_damaged_model_has_a_name_too(tmp_path):
    path = tmp_path / "model.tflite"
    assert default_name(path) == "image-classifier"
    path.write_bytes(TINY[:900])
    assert default_name(path) == "image-classifier"
