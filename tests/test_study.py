"""Studies: what they train, what they count, and the table that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from training.__main__ import main  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.study import ABLATION_RECIPE, ABLATIONS, multiply_adds, table  # noqa: E402

pytestmark = pytest.mark.training


def row(title: str, accuracy: list[float]) -> dict[str, Any]:
    return {
        "title": title,
        "gmacs": 2.15,
        "images": 341,
        "interval_95": [0.87, 0.93],
        "accuracy": accuracy,
        "accuracy_jpeg_60": accuracy,
        "negative_log_likelihood": [0.3, 0.31],
        "macro_f1": [0.8, 0.9],
        "seconds": [100, 140],
    }


def test_the_table_gives_means_and_ranges_over_seeds() -> None:
    origin = {"date": "2026-11-24", "commit": "abc", "processor": "a CPU", "cores": 2}
    result = {
        "study": "ablation", "command": "python -m training study ablation", "seeds": 2,
        "variants": [row("the recipe", [0.9, 0.92]), row("no MixUp", [0.88, 0.88])],
        "provenance": origin,
    }  # fmt: skip
    text = table(result)
    assert "2 seeds each, 341 validation images" in text
    assert (
        "| the recipe | 2.15 | 0.9100 [0.9000, 0.9200] | 0.9100 [0.9000, 0.9200] | "
        "0.305 [0.300, 0.310] | 0.850 [0.800, 0.900] | 120 |"
    ) in text
    assert "| no MixUp | 2.15 | 0.8800 [0.8800, 0.8800] |" in text


def test_every_ablation_changes_settings_that_exist_and_but_one_part() -> None:
    recipe = ABLATION_RECIPE.to_dict()
    assert next(iter(ABLATIONS.values())) == {}
    for title, changed in ABLATIONS.items():
        TrainConfig.from_dict({**recipe, **changed})  # in range
        assert changed.keys() <= recipe.keys(), title
        assert all(recipe[name] != value for name, value in changed.items()), title


def test_multiply_adds_are_counted_by_hand(tmp_path: Path) -> None:
    model = keras.Sequential(
        [
            keras.Input((10, 8, 3)),
            keras.layers.Conv2D(4, 3, strides=2, padding="same"),  # 5 x 4 places, 3*3*3*4
            keras.layers.SeparableConv2D(6, 3, padding="same"),  # 5 x 4 places, 3*3*4 + 4*6
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),  # 6 * 10
        ]
    )
    model.save(tmp_path / "model.keras")
    assert multiply_adds(tmp_path / "model.keras") == 20 * 108 + 20 * (36 + 24) + 60


def test_a_study_trains_every_seed_once_and_goes_on(
    tmp_path: Path, pictures: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "study", "size", "--sizes", "71", "--seeds", "2", "--epochs", "1", "--limit", "24",
        f"--dataset={pictures}", f"--backbone-weights={weights}", f"--runs={tmp_path / 'runs'}",
        f"--out={tmp_path / 'out'}", f"--results={tmp_path / 'results'}",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads((tmp_path / "results" / "size_study.json").read_text())
    (found,) = result["variants"]
    assert len(found["accuracy"]) == 2
    assert len(found["accuracy_jpeg_60"]) == 2
    assert "study size --seeds 2 --sizes 71 --epochs 1" in result["command"]
    assert found["gmacs"] > 0
    assert (tmp_path / "results" / "size_study.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "out" / "size_study.md").is_file()
    capsys.readouterr()
    assert main(command) == 0
    assert capsys.readouterr().out.count("is finished") == 2


def test_no_seeds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "size", "--seeds", "0"]) == 2
    assert "seeds must be 1 or more. Received: 0" in capsys.readouterr().err
