"""What ``MIN_SCORE`` would mark: the arithmetic and the table, on made-up probabilities."""

from __future__ import annotations

import pytest

from benchmarks import no_garment
from benchmarks.baselines import BaselineError
from lambda_function.classifier import Classifier
from tests.conftest import TINY_MODEL


def test_the_share_below_each_threshold_is_counted() -> None:
    described = no_garment.describe([0.3, 0.55, 0.65, 0.99])
    assert described is not None
    assert described["count"] == 4
    assert described["median"] == pytest.approx(0.6)
    assert [described["below"][str(t)] for t in (0.5, 0.6, 0.7, 0.95)] == [0.25, 0.5, 0.75, 0.75]


def test_the_table_has_only_the_measured_columns() -> None:
    some = no_garment.describe([0.4, 0.9])
    both = no_garment.table({"top_score": some, "validation_top_score": some})
    assert "| 0.5 | 50% marked | 50% marked |" in both
    alone = no_garment.table({"top_score": some, "validation_top_score": None})
    assert "| 0.5 | 50% marked |" in alone
    assert "validation" not in alone


def test_even_surfaces_go_through_the_serving_path() -> None:
    classifier = Classifier(TINY_MODEL)
    best = {name: no_garment.classify(classifier, data) for name, data in no_garment.surfaces()}
    assert set(best) == {"white", "grey", "black", "noise"}
    assert all(0 < row["score"] <= 1 for row in best.values())
    assert all(row["label"] in classifier.metadata.labels for row in best.values())


def test_a_missing_package_is_named() -> None:
    with pytest.raises(BaselineError, match="no_such_package is not installed"):
        list(no_garment.carried_images({"no_such_package/images": ("a.png",)}))
