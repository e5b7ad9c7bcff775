"""The table of recipes: what is on the front, what could not be loaded, what is not repeated."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from benchmarks import pareto
from benchmarks.masking import Lane
from benchmarks.report.pareto_table import is_on_front, mark_front, pareto_front, to_table
from converter.recipes import RECIPES
from converter.sources.run_folder import open_source
from tests.support import converter as support
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"
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


def test_front_holds_what_no_other_point_beats():
    # (time, accuracy): the third is slower than the second and no better, the fifth is worse
    points = [(0.03, 0.90), (0.05, 0.92), (0.06, 0.92), (0.10, 0.93), (0.12, 0.91)]

    assert pareto_front(points) == [(0.03, 0.90), (0.05, 0.92), (0.10, 0.93)]
    assert pareto_front([]) == []
    assert pareto_front([(0.05, 0.9), (0.05, 0.95)]) == [(0.05, 0.95)]


def test_points_that_cannot_be_told_apart_are_both_on_the_front():
    # int8 and int8_float_head as measured: 0.15 % apart
    fast, slow, behind = (0.0404, 0.92), (0.04046, 0.92), (0.0404, 0.91)
    points = [fast, slow, behind, (0.0500, 0.92)]

    assert [is_on_front(point, points) for point in points] == [True, True, False, False]


@pytest.fixture
def models(tmp_path):
    """A data set and two trained models, of which nothing but the descriptions is read."""

    class Fake:
        def __init__(self, content: bytes) -> None:
            self.content = content

        def save(self, path: Path) -> None:
            path.write_bytes(self.content)

    dataset = support.write_dataset(tmp_path / "dataset")
    runs = [support.write_run(tmp_path / name, Fake(name.encode())) for name in "ab"]
    return dataset, [open_source(run) for run in runs]


def test_what_was_kept_counts_for_the_same_model_code_and_images_only(models, tmp_path):
    dataset, (first, second) = models
    code = tmp_path / "recipes.py"
    code.write_text("first")
    known = pareto.fingerprint(first, dataset, [code])

    assert pareto.fingerprint(first, dataset, [code]) == known
    assert pareto.fingerprint(second, dataset, [code]) != known
    described = dataclasses.replace(first.metadata, temperature=2.0)
    retold = dataclasses.replace(first, metadata=described)
    assert pareto.fingerprint(retold, dataset, [code]) != known
    code.write_text("second")
    assert pareto.fingerprint(first, dataset, [code]) != known
    code.write_text("first")
    next((dataset / "validation").rglob("*.png")).unlink()
    assert pareto.fingerprint(first, dataset, [code]) != known
    assert all(maker.is_file() for maker in pareto.MAKERS)


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
    assert (first / "pareto.png").stat().st_size > 10_000


def test_a_process_measures_a_real_model(monkeypatch):
    monkeypatch.setattr(pareto, "SECONDS", 0.05)

    measured = pareto.probe(HERE, AS_IS, "ai-edge-litert", TINY, 1)

    assert 0 < measured["fastest_s"] <= measured["median_s"] < 1
    assert measured["load_s"] > 0
    assert measured["runs"] >= 5
    assert measured["resident_mb"] > measured["resident_before_mb"] > 1


def test_what_cannot_be_loaded_says_why(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 10)

    found = pareto.probe(HERE, AS_IS, "ai-edge-litert", broken, 1)
    assert set(found) == {"error"}
    assert "onnx" in pareto.probe(HERE, AS_IS, "onnxruntime", TINY, 1)["error"]
    assert pareto.probe("no Python 3.11", AS_IS, "tflite-runtime", TINY, 1) == {
        "error": "no Python 3.11"
    }
    (tmp_path / "reference.error").write_text("cannot be exported: no tf2onnx\n")
    missing = pareto.probe(HERE, AS_IS, "onnxruntime", tmp_path / "reference.onnx", 1)
    assert missing == {"error": "cannot be exported: no tf2onnx"}


@pytest.fixture
def result(tmp_path):
    """Three points measured from notes: nothing is left to run."""
    points = [
        pareto.Point("a224", "float32", 224, TINY, accuracy(92)),
        pareto.Point("a224", "int8", 224, TINY, accuracy(91)),
        pareto.Point("a224", "dynamic", 224, TINY, accuracy(90)),
    ]
    lanes = {name: Lane(name) for name in ("avx2", "machine")}
    notes = tmp_path / "notes.json"
    known = {}
    for point, median_s in zip(points, (0.16, 0.04, 0.05), strict=True):
        for threads in (1, 2):
            for lane, factor in (("avx2", 1), ("machine", 0.5)):
                done = {"load_s": 0.1, "median_s": median_s / threads * factor, "resident_mb": 99.5}
                known[pareto.note_key(point, "ai-edge-litert", threads, lane)] = done
                error = {"error": f"{Path.cwd()}/x: op version | too new"}
                known[pareto.note_key(point, "tflite-runtime", threads, lane)] = error
    notes.write_text(json.dumps(known))
    nobody = dict.fromkeys(("ai-edge-litert", "tflite-runtime"), "must not be started")
    rows = pareto.measure(points, lanes, notes, nobody)
    origin = {"date": "2026", "commit": "0", "processor": "any", "cores": 2, "memory_gib": 8}
    return {"provenance": origin, "rows": rows}


def test_noted_measurements_are_not_repeated_and_the_front_is_marked(result):
    # dynamic is slower and less accurate than int8
    assert [row["on_front"] for row in result["rows"]] == [True, True, False]
    assert result["rows"][0]["lanes"]["avx2"]["ai-edge-litert"]["2"]["median_s"] == 0.08


def test_the_front_is_that_of_the_first_lane(result):
    rows = result["rows"]
    rows[0]["lanes"]["avx2"]["ai-edge-litert"]["1"]["median_s"] = 0.01
    mark_front(rows)
    assert [row["on_front"] for row in rows] == [True, False, False]


def test_table_shows_times_accuracy_and_why_a_runtime_failed(result):
    lines = to_table(result).splitlines()
    bold = next(line for line in lines if "int8" in line)

    assert "Times with AVX2, as on Lambda." in lines[2]
    assert "**0.9100 [0.860, 0.960]** | **0.9900 (0.0017)**" in bold
    assert "| **40** | **20** | **100** | **20** | **cannot load: ./x: op version / too" in bold
    assert "| 50 | 25 |" in next(line for line in lines if "dynamic" in line)
    assert str(Path.cwd()) not in "\n".join(lines)
