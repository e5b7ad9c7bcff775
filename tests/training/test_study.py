"""Studies: what they train, what they count, and the table that is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from converter.errors import SourceError  # noqa: E402
from converter.sources.run_folder import open_source  # noqa: E402
from training.commands import main  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.experiments.study import ABLATION_RECIPE, ABLATIONS, multiply_adds, table  # noqa: E402

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
    }


def test_the_table_gives_means_and_ranges_over_seeds() -> None:
    origin = {"date": "2026-11-24", "commit": "abc", "processor": "a CPU", "cores": 2}
    result = {
        "study": "ablation", "command": "python -m training study ablation", "repeats": "2 seeds",
        "variants": [row("the recipe", [0.9, 0.92]), row("no MixUp", [0.88, 0.88])],
        "trained_at": ["abc", "abd"], "provenance": origin,
    }  # fmt: skip
    text = table(result)
    assert "2 seeds each, 341 images" in text
    assert "trained at commit abc, abd, tabled at abc" in text
    assert (
        "| the recipe | 2.15 | 0.9100 [0.9000, 0.9200] | 0.870 to 0.930 | "
        "0.9100 [0.9000, 0.9200] | 0.305 [0.300, 0.310] | 0.850 [0.800, 0.900] |"
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
    tmp_path: Path, drawings: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "study", "size", "--sizes", "71", "--seeds", "2", "--epochs", "1", "--limit", "24",
        f"--dataset={drawings}", f"--backbone-weights={weights}", f"--runs={tmp_path / 'runs'}",
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


def test_folds_judge_every_image_once(tmp_path: Path, drawings: Path, weights: Path) -> None:
    command = [
        "study", "size", "--sizes", "71", "--folds", "3", "--epochs", "1",
        f"--dataset={drawings}", f"--backbone-weights={weights}", f"--runs={tmp_path / 'runs'}",
        f"--out={tmp_path}",
    ]  # fmt: skip
    assert main(command) == 0
    result = json.loads((tmp_path / "size_folds.json").read_text())
    (found,) = result["variants"]
    assert found["images"] == 87  # 60 of train, 27 of validation
    assert len(found["accuracy"]) == len(found["accuracy_jpeg_60"]) == 3
    assert "3 folds each, 87 images" in (tmp_path / "size_folds.md").read_text()
    reports = [
        json.loads(f.read_text()) for f in tmp_path.glob("runs/size-71-px-fold*/report.json")
    ]
    assert [report["train_images"] for report in reports] == [58] * 3


def test_a_model_of_a_fold_becomes_no_release_nor_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "fold"
    run.mkdir()
    described = {**TrainConfig(name="fold").to_dict(), "fold": {"index": 1, "count": 5}}
    (run / "config.json").write_text(json.dumps({**described, "labels": ["a", "b"]}))
    (run / "report.json").write_text(json.dumps({"temperature": 1.0}))
    (run / "model.keras").write_bytes(b"")
    for command in (
        ["release", str(run), "--version", "9.9.9"],
        ["soup", "mixed", "fold", "other", f"--runs={tmp_path}"],
    ):
        assert main(command) == 2
        assert "is fold 1 of 5: it has learned from validation" in capsys.readouterr().err
    with pytest.raises(SourceError, match="is of a cross-validation"):
        open_source(run / "model.keras")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--folds=1", "folds are 2 or more, counted from 0. Received: fold 0 of 1"),
        ("--seeds=0", "seeds must be 1 or more. Received: 0"),
    ],
)
def test_too_few_repeats_are_refused(
    capsys: pytest.CaptureFixture[str], option: str, message: str
) -> None:
    assert main(["study", "size", option]) == 2

    assert message in capsys.readouterr().err
