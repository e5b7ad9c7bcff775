"""What ``MIN_SCORE`` would mark: the arithmetic and the tables, on made-up probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.no_garment import study as no_garment


def test_the_share_below_each_threshold_is_counted() -> None:
    described = no_garment.describe([0.3, 0.55, 0.65, 0.99])
    assert described["count"] == 4
    assert described["median"] == pytest.approx(0.6)
    assert [described["below"][str(t)] for t in (0.5, 0.6, 0.7, 0.95)] == [0.25, 0.5, 0.75, 0.75]


def test_the_table_has_a_column_for_each_group_of_images() -> None:
    some = no_garment.describe([0.4, 0.9])
    both = no_garment.table({"top_score": {"validation": some, "drawings": some}})
    assert "| 0.5 | 50% marked | 50% marked |" in both
    assert "drawings (2)" in both


def test_the_table_of_scores_has_a_row_for_each_score() -> None:
    result = {
        "counts": {"validation": 20, "drawings": 3},
        "scores": {"energy": {"marked": {"validation": 0.05, "drawings": 2 / 3}}},
    }
    assert "| energy | 5% | 67% |" in no_garment.score_table(result)


def test_other_garments_come_with_their_labels(tmp_path: Path) -> None:
    assert no_garment.other_garments(tmp_path) == {}
    (tmp_path / "labels.csv").write_text("image,label,sender\na.jpg,Polo,3\nb.jpg,Body,1\n")
    expected = {tmp_path / "a.jpg": "Polo", tmp_path / "b.jpg": "Body"}
    assert no_garment.other_garments(tmp_path) == expected
