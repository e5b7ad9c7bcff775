"""The course's steps: named as there, quick to try, and tabled as they were measured."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lambda_function import REPOSITORY
from tests.support.paths import TESTS
from training.commands import main
from training.errors import ConfigError
from training.experiments import course as steps

TINY = TESTS / "data" / "tiny.tflite"
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "dark": (5, 5, 5)}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    for label, colour in COLOURS.items():
        folder = tmp_path / "data" / "validation" / label
        folder.mkdir(parents=True)
        Image.new("RGB", (60, 40), colour).save(folder / "0.png")
    return tmp_path / "data"


def options(tmp_path: Path, dataset: Path, **more: Any) -> list[str]:
    given = {"dataset": dataset, "out": tmp_path / "out", "results": tmp_path / "results", **more}
    return [f"--{name}={value}" for name, value in given.items()]


def test_there_are_nine_steps_in_the_courses_order() -> None:
    assert [step.number for step in steps.STEPS] == list(range(1, 10))
    assert [step.name for step in steps.STEPS] == [
        "look", "transfer", "learning-rate", "checkpoint", "inner", "dropout", "augmentation",
        "larger", "use",
    ]  # fmt: skip


def test_the_model_is_used_on_validation_and_on_one_image(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = dataset / "validation" / "red" / "0.png"
    arguments = options(tmp_path, dataset, model=TINY, image=image)
    assert main(["steps", "use", *arguments]) == 0
    assert "accuracy   1.0000" in capsys.readouterr().out
    found = json.loads((tmp_path / "results" / "use.json").read_text())
    assert (found["step"], found["prediction"], found["metrics"]["images"]) == (9, "red", 4)
    assert (
        "| 9. Using the model | `python -m training steps use` | no figure | a picture of red: red "
        in (steps.table(tmp_path / "results"))
    )


def test_the_table_shows_course_and_ours_and_what_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "inner.json").write_text(
        json.dumps({"course": {"10": 0.815, "100": 0.815}, "ours": {"10": 0.82, "100": 0.84}})
    )
    lines = steps.table(tmp_path).splitlines()
    assert len(lines) == 2 + 9
    assert lines[6].endswith("| 10: 0.815, 100: 0.815 | 10: 0.820, 100: 0.840 |")
    assert lines[9].endswith("| 0.8978 notebook, 0.9032 book (test) | not measured yet |")


def test_the_table_adds_figures_on_test_where_the_benchmark_measured_them(tmp_path: Path) -> None:
    results = tmp_path / "course"
    results.mkdir()
    (results / "larger.json").write_text(json.dumps({"ours": "0.900 (validation)"}))
    (tmp_path / "accuracy.json").write_text(
        json.dumps({"handlers": {"course": {"accuracy": 0.91}, "ours": {"accuracy": 0.95}}})
    )
    lines = steps.table(results).splitlines()
    assert lines[9].endswith("| 0.900 (validation), 0.9100 (test) |")
    assert lines[10].endswith("| not measured yet, 0.9500 (test) |")


def test_the_readme_shows_the_course_as_it_was_measured() -> None:
    readme = (REPOSITORY / "README.md").read_text()
    shown = readme.partition("<!-- course:begin -->\n")[2].partition("\n<!-- course:end -->")[0]
    assert shown == steps.table(steps.RESULTS), "run `python -m training steps table --write`"


def test_an_unknown_step_is_named() -> None:
    with pytest.raises(ConfigError, match="Received: '10'"):
        steps.run(argparse.Namespace(step="10"))


@pytest.mark.training
def test_an_image_is_looked_at_and_what_is_missing_said(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("matplotlib", reason="needs Matplotlib: make test-training")
    monkeypatch.setattr(steps, "KERAS_CACHE", tmp_path / "empty")
    image = dataset / "validation" / "red" / "0.png"
    assert main(["steps", "1", *options(tmp_path, dataset, image=image)]) == 0
    shown = capsys.readouterr().out
    assert "red/0.png: (40, 60, 3) uint8, the first pixel RGB [250, 5, 5]" in shown
    # 250 / 127.5 - 1 and 5 / 127.5 - 1
    assert "the first pixel [0.961, -0.961, -0.961]" in shown
    assert "ImageNet classification skipped: xception_weights" in shown
    assert (tmp_path / "out" / "look" / "image.png").read_bytes().startswith(b"\x89PNG")


INTERRUPTED_WITH_A_THREAD = """
import runpy, sys, threading, time
from training.experiments import course as steps

def interrupted(_):
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("half a line", end="")
    raise KeyboardInterrupt

steps.run = interrupted
sys.argv = ["training", "steps", "look"]
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""


def test_an_interrupt_does_not_wait_for_threads() -> None:
    """Keras leaves threads behind that prepare batches, and they never end."""
    found = subprocess.run(
        [sys.executable, "-W", "ignore::RuntimeWarning", "-c", INTERRUPTED_WITH_A_THREAD],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert found.returncode == 130, found.stderr
    assert found.stdout == "half a line"
    assert found.stderr == "interrupted; the same command uses what was finished\n"


def test_a_finished_step_4_does_not_stop_all_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "step4-150px"
    run.mkdir(parents=True)
    (run / "model.keras").write_bytes(b"")
    assert main(["steps", "4", "--out=out"]) == 2
    assert "remove it to see this step again" in capsys.readouterr().err
    kept = {"killed_after_epoch": 3, "resumed_with_epoch": 4, "checkpoints": [], "ours": "seen"}
    kept["provenance"] = {"commit": "of then"}
    (tmp_path / "out" / "checkpoint").mkdir(parents=True)
    (tmp_path / "out" / "checkpoint" / "result.json").write_text(json.dumps(kept))
    assert main(["steps", "4", "--out=out"]) == 0
    assert "nothing was killed" in capsys.readouterr().out
    assert (
        json.loads((tmp_path / "out" / "checkpoint" / "result.json").read_text())["ours"] == "seen"
    )
    assert json.loads((tmp_path / "out" / "checkpoint" / "result.json").read_text())[
        "provenance"
    ] == {"commit": "of then"}


def test_step_4_says_what_is_wrong_in_one_sentence(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["steps", "4", "--epochs=1"]) == 2
    assert "has 2 or more. Received: 1" in capsys.readouterr().err
    monkeypatch.setattr(steps, "_kill_after_epochs", lambda *_: 1)
    monkeypatch.setattr(steps.sys, "executable", "false")  # a training that fails
    assert main(["steps", "4", *options(tmp_path, dataset)]) == 2
    assert "error: the training that went on failed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent.jpg", "text.jpg"])
def test_an_image_that_is_none_is_one_sentence(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "text.jpg").write_text("words")
    for step, more in (("look", {}), ("use", {"model": TINY})):
        arguments = options(tmp_path, dataset, image=tmp_path / name, **more)
        assert main(["steps", step, *arguments]) == 2
        assert name in capsys.readouterr().err.splitlines()[-1]


def test_a_result_names_the_options_that_made_it(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = dataset / "validation" / "red" / "0.png"
    assert main(["steps", "9", *options(tmp_path, dataset, model=TINY, image=image, limit=2)]) == 0
    found = json.loads((tmp_path / "results" / "use.json").read_text())
    assert found["command"] == "python -m training steps use --limit 2"
