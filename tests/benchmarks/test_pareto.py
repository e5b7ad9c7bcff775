"""The table of converted models: their accuracy, what is on the front, what could not be loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import pareto
from benchmarks.masking import Lane
from benchmarks.report.pareto_table import is_on_front, mark_front, to_table
from converter.recipes import RECIPES
from tests.conftest import TINY_MODEL

AS_IS = Lane("machine")
HERE = Path(sys.prefix)


def accuracy(correct: int) -> dict:
    share = correct / 100
    return {
        "accuracy": share,
        "correct": correct,
        "images": 100,
        "interval_95": [share - 0.05, share + 0.05],
        "agreement_with_float32": 0.99,
        "mean_difference_from_float32": 0.0017,
    }


def test_points_that_cannot_be_told_apart_are_both_on_the_front():
    # int8 and int8_float_head as measured: 0.15 % apart
    fast, slow, behind = (0.0404, 0.92), (0.04046, 0.92), (0.0404, 0.91)
    points = [fast, slow, behind, (0.0500, 0.92), (0.0600, 0.93)]

    assert [is_on_front(point, points) for point in points] == [True, True, False, False, True]


def test_accuracy_and_agreement_with_the_float32_model_of_the_run():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.8, 0.2], [0.3, 0.7]], np.float32)
    reference = np.array([[0.7, 0.3], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7]], np.float32)
    labels = np.array([0, 1, 1, 1])

    scored = pareto.score(probabilities, labels, reference)

    assert (scored["correct"], scored["images"], scored["accuracy"]) == (3, 4, 0.75)
    assert scored["agreement_with_float32"] == 0.75  # not on the second image
    assert scored["mean_difference_from_float32"] == pytest.approx(0.1)  # four times 0.2 in eight
    assert "agreement_with_float32" not in pareto.score(probabilities, labels, None)


def test_an_artifact_describes_itself():
    described = pareto.describe(TINY_MODEL)
    assert (described["run"], described["bytes"]) == ("data", TINY_MODEL.stat().st_size)
    assert described["size"] > 0


RUNS = [("a150", 150), ("a224", 224), ("b224", 224), ("a256", 256), ("a299", 299)]


def rows_of_all_sizes() -> list[dict]:
    return [
        {
            "run": run,
            "size": size,
            "recipe": recipe,
            "bytes": 22_000_000,
            "accuracy": accuracy(80 + number),
            "on_front": recipe == "int8",
            "lanes": {"avx2": {"ai-edge-litert": {"1": {"median_s": size / 5000 + place / 500}}}},
        }
        for number, (run, size) in enumerate(RUNS)
        for place, recipe in enumerate(RECIPES)
    ]


@pytest.mark.training
def test_every_run_has_its_marker_and_every_recipe_its_colour():
    from benchmarks.report import plots

    styles = plots.point_styles(rows_of_all_sizes())

    assert len(set(styles.values())) == len(RUNS) * len(RECIPES)
    assert len({marker for marker, _ in styles.values()}) == len(RUNS)
    assert len(plots.RECIPE_COLOURS) >= len(RECIPES)


@pytest.mark.training
def test_models_of_several_sizes_share_one_plot_the_same_to_the_byte(tmp_path):
    from benchmarks.report import plots

    origin = {"date": "2026-11-24", "processor": "any"}
    result = {"provenance": origin, "rows": rows_of_all_sizes()}
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        plots.draw_pareto(result, folder)

    svg = (first / "pareto.svg").read_text()
    assert svg == (second / "pareto.svg").read_text()
    for run, size in RUNS:  # Matplotlib writes the legend's texts as comments
        assert f"<!-- {run}, {size} px, int8, 22 MB -->" in svg


def test_a_process_measures_a_real_model(monkeypatch):
    monkeypatch.setattr(pareto, "SECONDS", 0.05)

    measured = pareto.probe(HERE, AS_IS, "ai-edge-litert", TINY_MODEL, 1)

    assert 0 < measured["fastest_s"] <= measured["median_s"] < 1
    assert measured["load_s"] > 0
    assert measured["runs"] >= 5
    assert measured["resident_mb"] > measured["resident_before_mb"] > 1


def test_a_model_that_cannot_be_loaded_has_an_error(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 10)

    assert set(pareto.probe(HERE, AS_IS, "ai-edge-litert", broken, 1)) == {"error"}
    missing = pareto.probe(HERE, AS_IS, "tflite-runtime", TINY_MODEL, 1)
    assert "tflite_runtime" in missing["error"]


@pytest.fixture
def result() -> dict:
    """Three recipes of one run, in two lanes."""
    rows = []
    for recipe, correct, median_s in (
        ("float32", 92, 0.16),
        ("int8", 91, 0.04),
        ("dynamic", 90, 0.05),  # slower and less accurate than int8
    ):
        lanes = {
            lane: {
                "ai-edge-litert": {
                    str(n): {"load_s": 0.1, "median_s": median_s * factor / n, "resident_mb": 99.5}
                    for n in (1, 2)
                },
                "tflite-runtime": {"1": {"error": "op version | too new"}},
            }
            for lane, factor in (("avx2", 1), ("machine", 0.5))
        }
        row = {"run": "a224", "recipe": recipe, "size": 224, "bytes": 22_000_000}
        rows.append({**row, "accuracy": accuracy(correct), "lanes": lanes})
    mark_front(rows)
    origin = {"date": "2026", "commit": "0", "processor": "any", "cores": 2, "memory_gib": 8}
    return {"provenance": origin, "rows": rows}


def test_the_front_is_that_of_the_first_lane(result):
    rows = result["rows"]
    assert [row["on_front"] for row in rows] == [True, True, False]
    rows[0]["lanes"]["avx2"]["ai-edge-litert"]["1"]["median_s"] = 0.01
    mark_front(rows)
    assert [row["on_front"] for row in rows] == [True, False, False]


def test_table_shows_times_accuracy_and_why_a_runtime_failed(result):
    lines = to_table(result).splitlines()
    bold = next(line for line in lines if "int8" in line)

    assert "Times with AVX2, as on Lambda." in lines[2]
    assert "**0.9100 [0.860, 0.960]** | **0.9900 (0.0017)**" in bold
    assert "| **40** | **20** | **100** | **cannot load: op version / too new** | **20** |" in bold
    assert "| 50 | 25 |" in next(line for line in lines if "dynamic" in line)
