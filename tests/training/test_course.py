"""The course's steps: quick to try, and one story from training to a served model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras", reason="needs Keras: make test-training")

from converter.sources.run_folder import open_source
from lambda_function import SHIPPED_MODEL
from tests.support.colours import TINY, printed_error, write_colours
from training.commands import main
from training.errors import ConfigError, DatasetError, DownloadError
from training.experiments import course
from training.experiments.course import (
    choose_steps,
    find_or_fetch_dataset,
    find_trained_model,
    kill_after_epochs,
)

pytestmark = pytest.mark.training


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_colours(tmp_path / "data" / "validation", count=1)
    return tmp_path / "data"


def options(tmp_path: Path, dataset: Path, **more: Any) -> list[str]:
    given = {"dataset": dataset, "out": tmp_path / "out", "results": tmp_path / "results", **more}
    return [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]


def test_a_step_has_a_number_and_a_name() -> None:
    assert choose_steps("8") == choose_steps("larger") == ("larger",)
    assert len(choose_steps("all")) == 9
    with pytest.raises(ConfigError, match="Received: '10'"):
        choose_steps("10")


# --- the data set ------------------------------------------------------------


def missing(_: Path | None) -> Path:
    raise DatasetError("no data set at data/")


def offline(_: Path) -> Path:
    raise DownloadError("https://host/data.tar.gz cannot be fetched.")


def test_the_courses_data_set_is_fetched_if_there_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CLOTHING_DATASET", raising=False)

    assert find_or_fetch_dataset(None, find=missing, fetch=lambda _: tmp_path) == tmp_path


def test_without_a_network_the_next_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOTHING_DATASET", raising=False)

    with pytest.raises(DatasetError, match=r"cannot be fetched\. Run `make data`.*DATASET=folder"):
        find_or_fetch_dataset(None, find=missing, fetch=offline)


def test_a_named_data_set_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DatasetError, match="no data set at"):
        find_or_fetch_dataset(Path("mine"), find=missing, fetch=offline)
    monkeypatch.setenv("CLOTHING_DATASET", "mine")
    with pytest.raises(DatasetError, match="no data set at"):
        find_or_fetch_dataset(None, find=missing, fetch=offline)


# --- the steps ---------------------------------------------------------------


def test_an_image_is_an_array_and_a_missing_network_is_no_error(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    image = dataset / "validation" / "red" / "0.png"

    assert main(["steps", "1", *options(tmp_path, dataset, image=image)]) == 0

    shown = capsys.readouterr().out
    assert "red/0.png: (40, 60, 3) uint8, the first pixel RGB [250, 5, 5]" in shown
    # 250 / 127.5 - 1 and 5 / 127.5 - 1
    assert "the first pixel [0.961, -0.961, -0.961]" in shown
    assert "skipped: the network with 1000 classes cannot be fetched" in shown
    assert "`make steps STEP=look` fetches it" in shown
    assert (tmp_path / "out" / "look" / "image.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["transfer", "augmentation", "larger", "inner"])
def test_a_step_that_trains_writes_a_run_folder_that_is_converted_and_used(
    tmp_path: Path, drawings: Path, small_network: Path, name: str
) -> None:
    given = options(tmp_path, drawings, backbone_weights=small_network, size=71, epochs=1, limit=18)

    assert main(["steps", name, *given]) == 0

    run = tmp_path / "out" / name
    source = open_source(run / "model.keras")
    assert (source.labels, source.spec.height) == (("disc", "square", "stripes"), 71)
    source.load()  # checks the model against its description
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len((run / "history.csv").read_text().splitlines()) == 1 + 1
    result = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert "--epochs 1" in result["command"]

    assert main(["steps", "use", *given, f"--model={run}"]) == 0

    used = json.loads((tmp_path / "results" / "use.json").read_text())
    assert (used["model"]["name"], used["model"]["kind"]) == (name, "keras")
    if name != "augmentation":  # the whole network predicts as the head did, but for one image
        best = result.get("best_validation_accuracy") or max(result["ours"].values())
        assert used["metrics"]["accuracy"] == pytest.approx(best, abs=1.01 / 18)


def test_step_9_uses_the_model_that_step_8_trained(tmp_path: Path) -> None:
    assert find_trained_model(tmp_path) == SHIPPED_MODEL

    trained = tmp_path / "larger" / "model.keras"
    trained.parent.mkdir()
    trained.write_bytes(b"")

    assert find_trained_model(tmp_path) == trained


def test_the_model_is_used_on_validation_and_on_one_image(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = dataset / "validation" / "red" / "0.png"
    given = options(tmp_path, dataset, model=TINY, image=image, limit=4)

    assert main(["steps", "use", *given]) == 0

    assert "validation accuracy 1.0000 (4 of 4" in capsys.readouterr().out
    result = json.loads((tmp_path / "results" / "use.json").read_text())
    assert (result["step"], result["prediction"], result["metrics"]["images"]) == (9, "red", 4)
    assert result["command"] == "python -m training steps use --limit 4"
    assert result["ours"].startswith("an image of red: red ")


@pytest.mark.parametrize("name", ["absent.jpg", "text.jpg"])
@pytest.mark.parametrize("step", ["look", "use"])
def test_a_file_that_is_no_image_is_one_sentence(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str], name: str, step: str
) -> None:
    (tmp_path / "text.jpg").write_text("words")
    given = options(tmp_path, dataset, image=tmp_path / name, model=TINY)

    assert main(["steps", step, *given]) == 2

    assert name in printed_error(capsys)


# --- step 4 ------------------------------------------------------------------


def test_a_training_is_killed_and_resumed(tmp_path: Path, drawings: Path, weights: Path) -> None:
    given = options(tmp_path, drawings, backbone_weights=weights, size=71, epochs=6)

    assert main(["steps", "checkpoint", *given]) == 0

    result = json.loads((tmp_path / "results" / "checkpoint.json").read_text())
    assert 3 <= result["killed_after_epoch"] < 6
    assert result["resumed_with_epoch"] == result["killed_after_epoch"] + 1
    open_source(tmp_path / "out" / "checkpoint" / "model.keras").load()


def test_a_finished_step_4_shows_its_earlier_result(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "out" / "checkpoint"
    run.mkdir(parents=True)
    (run / "model.keras").write_bytes(b"")
    assert main(["steps", "4", *options(tmp_path, dataset)]) == 2
    assert "remove it to see this step again" in printed_error(capsys)
    earlier = {"ours": "seen", "provenance": {"commit": "of then"}}
    (run / "result.json").write_text(json.dumps(earlier))

    assert main(["steps", "4", *options(tmp_path, dataset)]) == 0

    assert "nothing was killed" in capsys.readouterr().out
    kept = json.loads((run / "result.json").read_text())
    assert {name: kept[name] for name in earlier} == earlier


def test_one_epoch_cannot_be_killed_between_epochs(
    tmp_path: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["steps", "4", *options(tmp_path, dataset, epochs=1)]) == 2

    assert "has 2 or more. Received: 1" in printed_error(capsys)


def test_a_training_that_fails_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ended before it could be killed"):
        kill_after_epochs(["false"], tmp_path / "history.csv", 3)


def test_every_step_has_a_function() -> None:
    assert set(course.FUNCTIONS) == set(choose_steps("all"))
