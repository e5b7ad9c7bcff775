"""The test log holds one row per artifact, and a later score must repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from training.errors import TestLogError
from training.evaluation import test_log

ROW = dict.fromkeys(test_log.COLUMNS, "") | {
    "sha256": "ab" * 32, "images": "10", "correct": "10", "accuracy": "1.000000",
    "low": "0.72", "high": "1", "macro_f1": "0.900000",
    "ece": "0.100000", "nll": "0.200000", "brier": "0.300000",
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ece", "0.106000"),
        ("nll", "0.203000"),
        ("brier", "0.303000"),
        ("correct", "9"),
        ("macro_f1", "0.900001"),
    ],
)
def test_another_score_of_the_same_bytes_is_refused(
    tmp_path: Path, column: str, value: str
) -> None:
    log = tmp_path / "log.csv"
    test_log.record(ROW, log)

    with pytest.raises(TestLogError, match=f"{column} .* -> {value}"):
        test_log.record({**ROW, column: value}, log)


def test_the_last_digits_of_probabilities_may_differ_between_processors(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    test_log.record(ROW, log)

    assert "as recorded" in test_log.record({**ROW, "ece": "0.104900"}, log)


def test_every_artifact_has_a_row_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    for digit in "aba":
        test_log.record({**ROW, "sha256": digit * 64}, log)

    assert [row["sha256"] for row in test_log.read(log)] == ["a" * 64, "b" * 64]


def test_a_log_with_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("sha,accuracy\nab,1\n")

    with pytest.raises(TestLogError, match="has columns"):
        test_log.read(tmp_path / "log.csv")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clothing-xception", test_log.RELEASE_LOG),
        ("screws", Path("folder/model.test_log.csv")),
    ],
)
def test_the_name_of_an_artifact_decides_whose_log_it_belongs_to(name: str, expected: Path) -> None:
    assert test_log.log_of(Path("folder/model.tflite"), name) == expected
