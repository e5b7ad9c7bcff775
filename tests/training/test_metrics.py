"""Figures of merit against values worked out by hand or printed in the literature."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from training.evaluation import metrics

# Four images, three classes. The third prediction is wrong.
PROBABILITIES = np.array(
    [[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.25, 0.25, 0.5]], dtype=np.float64
)
LABELS = np.array([0, 1, 1, 2])


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
    [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_wilson_interval_is_the_published_one(
    correct: int, total: int, low: float, high: float
) -> None:
    assert metrics.wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_never_leaves_0_to_1() -> None:
    assert metrics.wilson_interval(20, 20)[1] == 1.0
    assert 0.0 <= metrics.wilson_interval(0, 20)[0] < 1e-12


@pytest.mark.parametrize(("correct", "total"), [(1, 0), (3, 2), (-1, 5)])
def test_wilson_interval_refuses_impossible_counts(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="need 0 <= correct <= total"):
        metrics.wilson_interval(correct, total)


def test_confusion_matrix_has_the_label_in_its_rows() -> None:
    expected = [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert metrics.confusion_matrix(PROBABILITIES, LABELS).tolist() == expected


def test_macro_f1_counts_every_class_the_same() -> None:
    # precision and recall of class 0: 1/2 and 1, of class 1: 1 and 1/2, of class 2: 1 and 1
    assert metrics.macro_f1(PROBABILITIES, LABELS) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)


def test_a_class_that_is_never_there_nor_said_has_f1_zero() -> None:
    figures = metrics.per_class(np.array([[3, 0], [0, 0]]))
    assert figures["precision"].tolist() == [1.0, 0.0]
    assert figures["recall"].tolist() == [1.0, 0.0]
    assert figures["f1"].tolist() == [1.0, 0.0]


def test_negative_log_likelihood_is_the_mean_surprise_at_the_label() -> None:
    expected = -(math.log(0.7) + math.log(0.8) + math.log(0.3) + math.log(0.5)) / 4
    assert metrics.negative_log_likelihood(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_brier_score_sums_squared_errors_over_classes() -> None:
    # per image: .09+.04+.01, .01+.04+.01, .36+.49+.01, .0625+.0625+.25
    expected = (0.14 + 0.06 + 0.86 + 0.375) / 4
    assert metrics.brier_score(PROBABILITIES, LABELS) == pytest.approx(expected)


def test_calibration_error_weighs_each_bin_by_its_images() -> None:
    # two answers at 0.95, one right: gap 0.45. Two at 0.65, both right: gap 0.35
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.65, 0.35], [0.65, 0.35]])
    labels = np.array([0, 1, 0, 0])
    found = metrics.expected_calibration_error(probabilities, labels)
    assert found == pytest.approx(0.5 * 0.45 + 0.5 * 0.35)


def test_full_confidence_falls_into_the_last_bin() -> None:
    certain = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert metrics.expected_calibration_error(certain, np.array([0, 1])) == 0.0
    assert metrics.expected_calibration_error(certain, np.array([1, 0])) == 1.0


def test_bootstrap_interval_follows_the_binomial_law() -> None:
    # 80 of 100 right: the standard error is 0.04, so 95 % lies within about 0.72 and 0.88
    probabilities = np.tile([0.9, 0.1], (100, 1))
    labels = np.array([0] * 80 + [1] * 20)

    def accuracy(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
        return float(np.mean(probabilities.argmax(axis=1) == labels))

    low, high = metrics.bootstrap_interval(accuracy, probabilities, labels)
    assert low == pytest.approx(0.72, abs=0.02)
    assert high == pytest.approx(0.88, abs=0.02)
    again = metrics.bootstrap_interval(accuracy, probabilities, labels)
    assert again == (low, high)


def test_resamples_draw_whole_groups() -> None:
    # One person with 3 right images, one with 1 wrong image: drawn (3, 3), (3, 1), (1, 3) or (1, 1)
    groups, right = np.array(["a", "a", "a", "b"]), np.array([1.0, 1.0, 1.0, 0.0])
    draws = metrics.bootstrap_groups(groups, right)

    values, counts = np.unique(draws, return_counts=True)
    assert values.tolist() == [0.0, 0.75, 1.0]
    assert counts / len(draws) == pytest.approx([0.25, 0.5, 0.25], abs=0.02)
    assert metrics.interval_over_groups(groups, right) == (0.0, 1.0)


def test_small_groups_share_a_row_below_the_large_ones() -> None:
    groups = np.array(["b"] * 10 + ["c"] * 9 + ["a"] * 20 + ["d"])
    correct = np.array([True] * 8 + [False] * 2 + [True] * 9 + [False] * 20 + [True])

    found = metrics.by_group(groups, correct)

    rows = [(row["group"], row["images"], row["correct"]) for row in found["rows"]]
    assert rows == [("a", 20, 0), ("b", 10, 8), ("2 with fewer than 10 images", 10, 10)]
    assert found["count"] == 4
    assert found["rows"][1]["accuracy"] == 0.8
    # (0.8 + z^2/20 -+ z sqrt(0.016 + z^2/400)) / (1 + z^2/10), with z = 1.96
    assert found["rows"][1]["accuracy_interval_95"] == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_one_group_is_a_row_and_no_others() -> None:
    found = metrics.by_group(np.array(["a"] * 10), np.array([True, False] * 5))

    assert [row["group"] for row in found["rows"]] == ["a"]
    assert found["accuracy_interval_95"] == (0.5, 0.5)  # whoever is drawn


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    # two-sided binomial tail at 1/2: 2 * (1 + 9) / 2**9, and so on
    [(1, 8, 20 / 512), (8, 1, 20 / 512), (0, 6, 2 / 64), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(only_first: int, only_second: int, p: float) -> None:
    both = np.ones(7, dtype=bool)
    first = np.concatenate([both, np.ones(only_first, bool), np.zeros(only_second, bool)])
    second = np.concatenate([both, np.zeros(only_first, bool), np.ones(only_second, bool)])
    assert metrics.mcnemar_exact(first, second) == pytest.approx(p)


def test_temperature_is_the_one_that_makes_confidence_equal_accuracy() -> None:
    # Logits 4 apart, right in 3 of 4: sigmoid(4 / T) = 3/4, so T = 4 / ln 3.
    logits = np.tile([4.0, 0.0], (40_000, 1))
    labels = np.array([0] * 30_000 + [1] * 10_000)
    assert metrics.fit_temperature(logits, labels) == pytest.approx(4 / math.log(3), rel=1e-3)


def test_few_images_that_are_all_right_make_no_certainty() -> None:
    # The loss n * log(1 + exp(-4 / T)) + log(T)**2 / 2 has its minimum where this equation holds.
    temperature = metrics.fit_temperature(np.tile([4.0, 0.0], (20, 1)), np.zeros(20, np.int64))

    slope = 20 * (4 / temperature) / (1 + math.exp(4 / temperature))
    assert math.log(temperature) == pytest.approx(-slope, abs=1e-3)
    assert 0.6 < temperature < 0.8


def test_softmax_survives_large_logits() -> None:
    found = metrics.softmax(np.array([[1000.0, 1000.0 + math.log(3)]]))
    assert found == pytest.approx(np.array([[0.25, 0.75]]))


def test_summary_names_every_figure_with_its_sample_size() -> None:
    found = metrics.summary(PROBABILITIES, LABELS)
    assert (found["images"], found["correct"], found["accuracy"]) == (4, 3, 0.75)
    low, high = found["accuracy_interval_95"]
    assert low < 0.75 < high
    assert found["macro_f1"] == pytest.approx(7 / 9)
