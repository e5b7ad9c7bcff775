"""The artifact's name decides whether tests of the release run, and CI runs them in any case."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lambda_function import SHIPPED_MODEL
from tests import conftest
from tests.support.converter import with_metadata


class Item:
    """A collected test, as far as the hook uses it."""

    def __init__(self, *marks: str) -> None:
        self.marks = list(marks)

    def get_closest_marker(self, name: str) -> bool:
        return name in self.marks

    def add_marker(self, mark: Any) -> None:
        self.marks.append(mark.name)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(conftest, "SHIPPED_MODEL", tmp_path / "model.tflite")
    monkeypatch.delenv("EXPECT_RELEASE", raising=False)
    return tmp_path / "model.tflite"


def named(name: str) -> bytes:
    return with_metadata(conftest.TINY_MODEL.read_bytes(), name=name)


@pytest.mark.parametrize(
    ("content", "expected", "is_skipped"),
    [
        (named("screws"), "", True),
        (named("screws"), "clothing-xception", False),
        (named("clothing-xception"), "", False),  # with other weights and figures
        (b"damaged", "", False),
        (None, "", False),
    ],
)
def test_another_name_skips_the_tests_of_the_release(
    model: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str, is_skipped: bool
) -> None:
    if content is not None:
        model.write_bytes(content)
    if expected:
        monkeypatch.setenv("EXPECT_RELEASE", expected)
    release, other = Item("release"), Item()

    conftest.pytest_collection_modifyitems([release, other])  # type: ignore[list-item]

    assert ("skip" in release.marks) == is_skipped
    assert other.marks == []


def test_ci_expects_the_release_that_the_tests_know() -> None:
    script = (SHIPPED_MODEL.parent.parent / ".ci" / "run").read_text()

    assert f"export EXPECT_RELEASE={conftest.RELEASE}\n" in script
