"""The table of recipes: what is on the front, what could not be loaded, what is not repeated."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import frontier

TINY = Path(__file__).parent / "data" / "tiny.tflite"


def accuracy(correct: int) -> dict:
    share = correct / 100
    return {
        "accuracy": share,
        "correct": correct,
        "images": 100,
        "interval_95": [share - 0.05, share + 0.05],
        "agreement_with_float32": 0.99,
    }


def test_front_holds_what_no_other_point_beats():
    # (time, accuracy): the third is slower than the second and no better, the fifth is worse
    points = [(0.03, 0.90), (0.05, 0.92), (0.06, 0.92), (0.10, 0.93), (0.12, 0.91)]

    assert frontier.pareto_front(points) == [(0.03, 0.90), (0.05, 0.92), (0.10, 0.93)]
    assert frontier.pareto_front([]) == []
    assert frontier.pareto_front([(0.05, 0.9), (0.05, 0.95)]) == [(0.05, 0.95)]


def test_a_process_measures_a_real_model(monkeypatch):
    monkeypatch.setattr(frontier, "SECONDS", 0.05)

    measured = frontier.probe(Path(sys.executable), "ai-edge-litert", TINY, 1)

    assert 0 < measured["fastest_s"] <= measured["median_s"] < 1
    assert measured["load_s"] > 0
    assert measured["runs"] >= 5
    assert measured["resident_mb"] > measured["resident_before_mb"] > 1


def test_what_cannot_be_loaded_says_why(tmp_path):
    broken = tmp_path / "broken.tflite"
    broken.write_bytes(b"TFL3" * 10)

    found = frontier.probe(Path(sys.executable), "ai-edge-litert", broken, 1)
    assert set(found) == {"error"}
    assert "onnx" in frontier.probe(Path(sys.executable), "onnxruntime", TINY, 1)["error"]
    assert frontier.probe("no Python 3.11", "tflite-runtime", TINY, 1) == {
        "error": "no Python 3.11"
    }
    (tmp_path / "reference.error").write_text("cannot be exported: no tf2onnx\n")
    missing = frontier.probe(Path(sys.executable), "onnxruntime", tmp_path / "reference.onnx", 1)
    assert missing == {"error": "cannot be exported: no tf2onnx"}


@pytest.fixture
def result(tmp_path):
    """Three points measured from notes: nothing is left to run."""
    points = [
        frontier.Point("a224", "float32", 224, TINY, accuracy(92)),
        frontier.Point("a224", "int8", 224, TINY, accuracy(91)),
        frontier.Point("a224", "dynamic", 224, TINY, accuracy(90)),
    ]
    notes = tmp_path / "notes.json"
    known = {}
    for point, median_s in zip(points, (0.16, 0.04, 0.05), strict=True):
        for threads in (1, 2):
            done = {"load_s": 0.1, "median_s": median_s / threads, "resident_mb": 99.5}
            known[frontier._key(point, "ai-edge-litert", threads)] = done
            refused = {"error": f"{Path.cwd()}/x: op version | too new"}
            known[frontier._key(point, "tflite-runtime", threads)] = refused
    notes.write_text(json.dumps(known))
    nobody = {"ai-edge-litert": "must not be asked", "tflite-runtime": "must not be asked"}
    return frontier.measure(points, notes, nobody)


def test_noted_measurements_are_not_repeated_and_the_front_is_marked(result):
    # dynamic is slower and less accurate than int8
    assert [row["on_front"] for row in result["rows"]] == [True, True, False]
    assert result["rows"][0]["runtimes"]["ai-edge-litert"]["2"]["median_s"] == 0.08
    assert {"date", "commit", "processor", "cores"} <= set(result)


def test_table_shows_times_accuracy_and_why_a_runtime_refused(result):
    lines = frontier.to_table(result).splitlines()
    bold = next(line for line in lines if "int8" in line)

    assert "**0.9100 [0.860, 0.960]**" in bold
    assert "| **40** | **20** | **100** | **cannot load: ./x: op version / too new** |" in bold
    assert "| 50 | 25 |" in next(line for line in lines if "dynamic" in line)
    assert str(Path.cwd()) not in "\n".join(lines)
