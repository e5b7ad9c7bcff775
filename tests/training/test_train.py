"""Training for real, in small: 71 pixels, three classes, a few epochs, whatever the backend.

A small network stands in for Xception (tests/support/small_network.py). test_own_images trains
Xception itself.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function import REPOSITORY  # noqa: E402
from lambda_function.metadata import InputSpec  # noqa: E402
from tests.support.colours import printed_error  # noqa: E402
from tests.support.processes import hear_interrupts  # noqa: E402
from tests.support.shapes import CLASSES, draw  # noqa: E402
from training.commands import main  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.data.dataset import Split, find_dataset, load_folder, load_split  # noqa: E402
from training.data.folds import Fold  # noqa: E402
from training.data.imagenet import find_weights  # noqa: E402
from training.errors import ConfigError, WeightsError  # noqa: E402
from training.evaluation import metrics  # noqa: E402
from training.evaluation.loaded_model import load_model, predict_split  # noqa: E402
from training.experiments.folds import read_judged  # noqa: E402
from training.fit.backbone import (  # noqa: E402
    build_backbone,
    named_weights,
    without_probabilities,
)
from training.fit.calibration import find_problems, print_report  # noqa: E402
from training.fit.run_folder import (  # noqa: E402
    check_settings,
    describe_sources,
    hash_images,
    read_config,
    record_learned,
    record_settings,
    refuse_seen,
)
from training.fit.teacher import load_teacher  # noqa: E402
from training.fit.train import train  # noqa: E402

pytestmark = pytest.mark.training

SIZE = 71  # the smallest that Xception takes
HEAD = TrainConfig(
    name="head",
    input=InputSpec(SIZE, SIZE),
    first_trainable_block=15,
    views=2,
    epochs=3,
    batch_size=8,
    learning_rate=0.1,  # block 14 may be random: its activations are small
    dropout=0.1,
    mixup_alpha=0.0,
    ema_momentum=0.5,
)


@pytest.fixture(scope="module")
def weights(small_network: Path) -> Path:
    return small_network


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Activations, shared by all runs here as they are by runs of a user."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, drawings: Path, weights: Path, cache: Path
) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    return train(HEAD, dataset=drawings, weights=weights, runs=runs, cache=cache)


@pytest.fixture(autouse=True)
def fresh_session() -> Iterator[None]:
    yield
    keras.backend.clear_session()


# --- a finished run ----------------------------------------------------------


def test_a_run_says_everything_about_itself(finished: Path) -> None:
    config, described = read_config(finished)
    assert config == HEAD
    assert described["labels"] == list(CLASSES)
    assert described["input"]["height"] == SIZE
    report = json.loads((finished / "report.json").read_text())
    assert report["metrics"]["validation"]["images"] == 27
    assert report["train_images"] == 60
    assert report["backend"] == keras.backend.backend()
    history = (finished / "history.csv").read_text().splitlines()
    assert history[0].startswith("epoch,")
    assert len(history) == 1 + HEAD.epochs
    assert not list(finished.rglob("unfinished*"))
    assert not (finished / "state.npz").exists()  # nothing resumes from it any more


def test_the_saved_model_answers_as_the_report_says(finished: Path, drawings: Path) -> None:
    split = load_split(drawings, "validation", CLASSES)
    probabilities = predict_split(load_model(finished), split)
    assert probabilities.shape == (27, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(27), abs=1e-5)
    reported = json.loads((finished / "report.json").read_text())["metrics"]["validation"]
    found = metrics.summary(probabilities, split.labels)
    assert found["correct"] == reported["correct"]
    expected = reported["negative_log_likelihood"]
    assert found["negative_log_likelihood"] == pytest.approx(expected, abs=1e-4)


def test_the_saved_model_is_the_last_epoch_of_few_validation_images(finished: Path) -> None:
    lines = (finished / "history.csv").read_text().splitlines()
    column = lines[0].split(",").index("val_accuracy")
    last = float(lines[-1].split(",")[column])
    found = json.loads((finished / "report.json").read_text())
    assert found["checkpoint"] == f"xception_0{HEAD.epochs}_{last:.4f}.keras"
    # Scored again in float32 from pixels, not from half-precision activations: 1 image may move.
    assert found["metrics"]["validation"]["accuracy"] == pytest.approx(last, abs=1.5 / 27)


def test_the_temperature_is_in_the_graph(finished: Path) -> None:
    model = keras.models.load_model(finished / "model.keras", compile=False)
    temperature = json.loads((finished / "report.json").read_text())["temperature"]
    image = np.random.default_rng(0).uniform(-1, 1, (1, SIZE, SIZE, 3)).astype(np.float32)
    logits = np.asarray(without_probabilities(model).predict_on_batch(image), dtype=np.float64)
    expected = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    assert np.asarray(model.predict_on_batch(image)) == pytest.approx(expected, abs=1e-5)


def test_a_run_goes_on_from_another_ones_weights(
    finished: Path, drawings: Path, weights: Path, cache: Path
) -> None:
    config = dataclasses.replace(
        HEAD, name="more", start_from="head", epochs=1, warmup_epochs=0.0, learning_rate=1e-9
    )
    folder = train(config, dataset=drawings, weights=weights, runs=finished.parent, cache=cache)
    before, after = (
        json.loads((run / "report.json").read_text())["metrics"]["validation"]
        for run in (finished, folder)
    )
    assert after["correct"] == before["correct"]  # at such a rate nothing is learned or lost


def test_training_block_14_changes_it_and_nothing_before(
    tmp_path: Path, drawings: Path, weights: Path, cache: Path
) -> None:
    config = dataclasses.replace(
        HEAD, name="block14", first_trainable_block=14, epochs=1, views=1,
        warmup_epochs=0.0, mixup_alpha=0.2, learning_rate=1e-3,
    )  # fmt: skip
    folder = train(config, dataset=drawings, weights=weights, runs=tmp_path, cache=cache)
    pretrained = named_weights(build_backbone(SIZE, SIZE, weights))
    model = keras.models.load_model(folder / "model.keras", compile=False)
    changed = {
        name
        for name, value in named_weights(without_probabilities(model)).items()
        if name in pretrained and not np.array_equal(value, pretrained[name])
    }
    assert changed
    assert {name.split("_")[0] for name in changed} == {"block14"}
    assert "block14_sepconv1/depthwise_kernel" in changed
    assert "block14_sepconv2_bn/moving_mean" in changed


WHOLE = dataclasses.replace(
    HEAD, name="whole-network", input=InputSpec(80, 80), first_trainable_block=1, train_size=SIZE,
    augmentation="strong", dropped_blocks="6,8,9,11", epochs=1, warmup_epochs=0.0,
    learning_rate=1e-3, mixup_alpha=0.2, cutmix_alpha=1.0, layer_decay=0.9,
)  # fmt: skip


def test_the_whole_network_learns_from_images_varied_anew(
    tmp_path: Path, drawings: Path, weights: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = train(WHOLE, dataset=drawings, weights=weights, runs=tmp_path, cache=tmp_path / "none")

    model = without_probabilities(keras.models.load_model(folder / "model.keras", compile=False))
    assert model.input_shape == (None, 80, 80, 3)  # trained at 71 px, served at 80
    found, pretrained = named_weights(model), named_weights(build_backbone(SIZE, SIZE, weights))
    blocks = {name.split("_")[0] for name in found if name.startswith("block")}
    assert blocks == {"block1", "block2", "block7", "block13", "block14"}
    assert not np.array_equal(found["block1_conv1/kernel"], pretrained["block1_conv1/kernel"])
    assert not (tmp_path / "none").exists()  # nothing was cached
    shown = capsys.readouterr().out
    assert "training the whole network will take about" in shown
    assert "(--first-trainable-block 14)" in shown
    waited = re.search(r", waited (\d+)% of the time for images", shown)
    assert waited
    assert 0 <= int(waited[1]) < 100


def test_a_teacher_teaches_what_it_sees_and_never_whom_it_judges(
    finished: Path, drawings: Path, weights: Path, cache: Path, tmp_path: Path
) -> None:
    runs = finished.parent
    taught = dataclasses.replace(HEAD, name="taught", teacher="head", teacher_share=0.5, epochs=1,
                                 warmup_epochs=0.0)  # fmt: skip
    options: dict[str, Any] = {
        "dataset": drawings,
        "weights": weights,
        "runs": runs,
        "cache": cache,
    }
    folder = train(taught, **options)
    assert json.loads((folder / "started.json").read_text())["teacher_sha256"]
    # Cached: the teacher's probabilities of the plain images are those of the run itself.
    said = [np.load(file) for file in cache.rglob("activations.npy")]
    said = [array for array in said if array.shape == (60, 3)]
    assert len(said) == HEAD.views
    expected = predict_split(load_model(finished), load_split(drawings, "train", CLASSES))
    assert min(np.abs(array - expected).max() for array in said) < 2e-3

    for name, fold, message in (
        ("nobody", None, "teacher names no finished run"),
        ("head", Fold(0, 3), "has learned from images that judge"),
    ):
        with pytest.raises(ConfigError, match=message):
            train(dataclasses.replace(taught, name="refused", teacher=name), **options, fold=fold)
    (tmp_path / "other").mkdir()
    described = json.loads((finished / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**described, "labels": ["x"]}))
    (tmp_path / "other" / "model.keras").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"has other classes: x\. This run has: disc, square"):
        load_teacher(dataclasses.replace(taught, teacher="other"), CLASSES, tmp_path, None)


def test_a_run_is_not_judged_by_images_that_it_starts_from(
    finished: Path, drawings: Path, weights: Path, tmp_path: Path
) -> None:
    # A team adds images and splits them anew: an image of train is one of validation now.
    shutil.copytree(drawings, tmp_path / "more")
    moved = tmp_path / "more" / "validation" / CLASSES[0] / "moved.png"
    (tmp_path / "more" / "train" / CLASSES[0] / "3.png").rename(moved)

    for used in ({"start_from": "head"}, {"teacher": "head"}):
        config = dataclasses.replace(HEAD, name="grown", **used)
        with pytest.raises(ConfigError, match=r"head has learned from 1 of the .*moved\.png\. Its"):
            train(config, dataset=tmp_path / "more", weights=weights, runs=finished.parent)

    assert not (finished.parent / "grown").exists()


def test_what_a_run_has_learned_through_other_runs_is_told_too(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "ab"]
    for file in files:
        file.write_text(file.name)
    record_learned(tmp_path / "first", [], hash_images(files[:1]))
    record_learned(tmp_path / "second", ["first"], hash_images(files[1:]))

    for file in files:
        with pytest.raises(ConfigError, match=f"second has learned from 1 .* as {file}"):
            refuse_seen(tmp_path, ["second"], {}, [file])
    # Twice in the data set: not by the run.
    refuse_seen(tmp_path, ["second"], hash_images(files), files)
    refuse_seen(tmp_path, ["restored"], {}, files)


def test_unlabelled_images_are_a_part_of_every_epoch_and_of_what_identifies_a_run(
    finished: Path,
    drawings: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder, count in zip(folders, (5, 6), strict=True):
        folder.mkdir()
        for number in range(count):
            Image.new("RGB", (90, 90), (number, 0, 0)).save(folder / f"{number}.png")
    one, two = map(str, folders)
    config = dataclasses.replace(WHOLE, name="unlabelled", teacher="head", unlabelled=one)
    options: dict[str, Any] = {"dataset": drawings, "weights": weights, "runs": finished.parent}

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # for the progress bar
    run = train(config, **options)

    report = json.loads((run / "report.json").read_text())
    assert (report["train_images"], report["unlabelled_images"]) == (60, 5)
    assert "64/64 [" in capsys.readouterr().err  # 65 images in batches of 8. 60 are 56
    with pytest.raises(ConfigError, match=r"run with other settings \(images is"):
        train(dataclasses.replace(config, unlabelled=two), **options)


def test_a_fold_starts_from_a_run_of_the_same_fold_alone(
    tmp_path: Path, drawings: Path, weights: Path, cache: Path
) -> None:
    fold = Fold(0, 3)
    common: dict[str, Any] = {"dataset": drawings, "weights": weights, "runs": tmp_path,
                              "cache": cache}  # fmt: skip
    first = dataclasses.replace(HEAD, epochs=1, warmup_epochs=0.0)
    train(first, **common, fold=fold)
    second = dataclasses.replace(first, name="second", start_from="head")
    train(second, **common, fold=fold)
    third = dataclasses.replace(first, name="third", start_from="head")
    with pytest.raises(ConfigError, match=r"has learned from images that judge in Fold\(index=1"):
        train(third, **common, fold=Fold(1, 3))
    with pytest.raises(ConfigError, match="nothing can be chosen by them"):
        train(third, **common)


def test_folds_judge_every_image_once_by_people_never_seen(
    tmp_path: Path, drawings: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [
        path.relative_to(drawings).as_posix()
        for split in ("train", "validation")
        for path in sorted((drawings / split).rglob("*.png"))
    ]
    senders = tmp_path / "senders.csv"
    rows = [f"{image},{Path(image).stem}\n" for image in images]  # 20 people, with all classes
    senders.write_text("image,sender\n" + "".join(rows))
    config = tmp_path / "head.toml"
    config.write_text(
        f'name = "judged-1.5"\nsize = {SIZE}\nfirst_trainable_block = 15\nviews = 1\nepochs = 1\n'
        "batch_size = 8\nlearning_rate = 0.1\nmixup_alpha = 0.0\nwarmup_epochs = 0\n"
    )
    command = ["folds", str(config), "--folds=2", f"--groups={senders}", f"--runs={tmp_path}",
               f"--dataset={drawings}", f"--backbone-weights={weights}",
               f"--out={tmp_path / 'out'}"]  # fmt: skip

    assert main([*command, "--against=absent.npz"]) == 2
    assert "absent.npz is no result of `folds`" in printed_error(capsys)
    assert list(tmp_path.glob("judged*")) == []  # refused before anything is trained
    assert main(command) == 0

    judged = read_judged(tmp_path / "out" / "judged-1.5.npz")
    assert len(judged.labels) == len(images) == 87
    for group in set(judged.groups):
        assert len(set(judged.folds[judged.groups == group])) == 1
    result = json.loads((tmp_path / "out" / "judged-1.5.json").read_text())
    assert result["kind"] == "final"
    assert result["groups"] == 20
    assert result["correct"] == int(judged.correct.sum())
    low, high = result["accuracy_interval_95_over_groups"]
    assert low - 1e-9 <= result["accuracy"] <= high + 1e-9
    assert main([*command, f"--against={tmp_path / 'out' / 'judged-1.5.npz'}"]) == 0
    assert "more than the other: +0.0000" in capsys.readouterr().out
    senders.write_text("image,sender\n" + "".join(rows[1:]))
    assert main([*command, "--only=0"]) == 2
    assert f"misses 1 of 87 images, the first is '{images[0]}'" in capsys.readouterr().err


# --- interrupted, and gone on with -------------------------------------------


def command(drawings: Path, weights: Path, **options: Any) -> list[str]:
    fixed = {
        "dataset": drawings, "backbone-weights": weights, "size": SIZE, "views": 1,
        "first-trainable-block": 15, "batch-size": 8, "learning-rate": 0.1, "dropout": 0.1,
        "mixup-alpha": 0.0, "ema-momentum": 0.5,
    }  # fmt: skip
    given = {**fixed, **{name.replace("_", "-"): value for name, value in options.items()}}
    return ["train", *(f"--{name}={value}" for name, value in given.items())]


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    yield
    while STARTED:
        with STARTED.pop() as process:  # closes its pipes
            process.kill()


def start(folder: Path, arguments: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a training in another folder, where its runs and cache will be."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.small_network", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )
    STARTED.append(process)
    return process


def epochs_in(history: Path) -> list[int]:
    if not history.exists():
        return []
    lines = history.read_text().splitlines()[1:]
    return [int(line.split(",")[0]) for line in lines if line]


def wait_for_epochs(process: subprocess.Popen[str], history: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(epochs_in(history)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def rows_in(history: Path) -> dict[int, list[float]]:
    lines = history.read_text().splitlines()[1:]
    rows = [[float(value) for value in line.split(",")] for line in lines]
    return {int(row[0]): row[1:] for row in rows}


@pytest.mark.slow
def test_a_killed_run_loses_at_most_one_epoch_and_ends_as_if_nothing_had_been(
    tmp_path: Path, drawings: Path, weights: Path, cache: Path
) -> None:
    whole = dataclasses.replace(HEAD, name="whole", views=1, epochs=40)
    train(whole, dataset=drawings, weights=weights, runs=tmp_path, cache=cache)

    arguments = command(drawings, weights, name="killed", epochs=40)
    history = tmp_path / "runs" / "killed" / "history.csv"
    process = start(tmp_path, arguments)
    wait_for_epochs(process, history, 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = epochs_in(history)
    assert len(before) < 40
    assert not (history.parent / "model.keras").exists()

    process = start(tmp_path, arguments)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    after = epochs_in(history)
    assert after[-1] == 39
    # The state is written after the epoch's row. A kill between the two repeats that epoch.
    assert after == list(range(40))
    assert 40 - len(before) <= output.count(": loss ") <= 41 - len(before)
    resumed, uninterrupted = rows_in(history), rows_in(tmp_path / "whole" / "history.csv")
    for epoch in (len(before), 39):
        assert resumed[epoch] == pytest.approx(uninterrupted[epoch], abs=2e-4), epoch


def test_an_interrupt_says_how_to_go_on(tmp_path: Path, drawings: Path, weights: Path) -> None:
    arguments = command(drawings, weights, name="stopped", epochs=500)
    process = start(tmp_path, arguments, preexec_fn=hear_interrupts)
    wait_for_epochs(process, tmp_path / "runs" / "stopped" / "history.csv", 1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.rstrip().endswith("interrupted; the same command uses what was finished")
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("unfinished*"))


def test_a_finished_run_is_not_trained_again(
    finished: Path, drawings: Path, weights: Path, cache: Path
) -> None:
    written = (finished / "model.keras").stat().st_mtime_ns
    again = train(HEAD, dataset=drawings, weights=weights, runs=finished.parent, cache=cache)
    assert again == finished
    assert (finished / "model.keras").stat().st_mtime_ns == written


# --- bad input ---------------------------------------------------------------


def test_another_configuration_does_not_go_on_with_a_run(
    finished: Path, drawings: Path, weights: Path
) -> None:
    other = dataclasses.replace(HEAD, dropout=0.2)
    with pytest.raises(ConfigError, match=r"other settings \(dropout is 0\.1, not 0\.2\)"):
        train(other, dataset=drawings, weights=weights, runs=finished.parent)


def test_other_data_weights_or_licence_are_not_answered_with_a_finished_run(
    finished: Path, drawings: Path, weights: Path, tmp_path: Path
) -> None:
    other = tmp_path / drawings.name  # the same name, one image more
    shutil.copytree(drawings, other)
    shutil.copy(other / "train" / CLASSES[0] / "0.png", other / "train" / CLASSES[0] / "more.png")
    with pytest.raises(ConfigError, match=r"other settings \(images is '"):
        train(HEAD, dataset=other, weights=weights, runs=finished.parent)
    with pytest.raises(ConfigError, match=r"\(licence is 'not stated', not 'Apache-2\.0'\)"):
        train(HEAD, dataset=drawings, weights=weights, runs=finished.parent, licence="Apache-2.0")


def test_another_class_of_images_in_sub_folders_is_another_run(tmp_path: Path) -> None:
    for label in ("hat", "skirt"):
        (tmp_path / label / "day").mkdir(parents=True)
        (tmp_path / label / "day" / "1.png").write_bytes(b"an image by its name")
    before = describe_sources([load_folder(tmp_path)], None, "MIT")
    (tmp_path / "hat").rename(tmp_path / "cap")

    assert describe_sources([load_folder(tmp_path)], None, "MIT") != before


def test_weights_are_compared_until_a_run_is_finished(tmp_path: Path) -> None:
    record_settings(tmp_path, {"weights": "of one machine"})
    with pytest.raises(ConfigError, match=r"weights is 'of one machine', not 'of another'"):
        check_settings(tmp_path, {"weights": "of another"})
    (tmp_path / "model.keras").write_bytes(b"trained on a GPU, converted elsewhere")
    check_settings(tmp_path, {"weights": "of another"})


def test_many_different_settings_are_told_in_printed_error(tmp_path: Path) -> None:
    record_settings(tmp_path, dict.fromkeys("abcdef", 0))
    with pytest.raises(ConfigError, match=r"a is 0, not None; .*d is 0, not None; and 2 more\)"):
        check_settings(tmp_path, {})


def test_a_folder_with_a_model_from_elsewhere_is_left_alone(
    drawings: Path, weights: Path, tmp_path: Path
) -> None:
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / "model.keras").write_bytes(b"restored")
    with pytest.raises(ConfigError, match=r"`train` did not make: started\.json is missing"):
        train(HEAD, dataset=drawings, weights=weights, runs=tmp_path)


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_a_run_s_name_is_one_folder(drawings: Path, weights: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a run's name is that of its folder"):
        train(dataclasses.replace(HEAD, name=name), dataset=drawings, weights=weights)


def test_an_empty_licence_is_refused(
    drawings: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"name": "x", "epochs": 2, "runs": tmp_path, "licence": ""}
    assert main(command(drawings, weights, **options)) == 2
    assert "an SPDX identifier, such as MIT. Received: ''" in printed_error(capsys)


def test_a_start_that_failed_does_not_take_the_name(
    drawings: Path,
    weights: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {"name": "x", "epochs": 1, "runs": tmp_path, "cache": cache}
    assert main(command(drawings, weights, start_from="nope", **options)) == 2
    assert "start_from names no finished run" in printed_error(capsys)
    assert not (tmp_path / "x").exists()
    assert main(command(drawings, weights, **options)) == 0  # one epoch: half of it warms up
    assert f"wrote {tmp_path / 'x' / 'model.keras'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "x" / "started.json").read_text())["warmup_epochs"] == 0.5
    assert main(command(drawings, weights, **options)) == 0
    shown = capsys.readouterr().out
    assert "is finished; nothing was trained" in shown
    assert "wrote" not in shown


def test_weights_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, drawings: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "other.weights.h5")
    assert main(command(drawings, tmp_path / "other.weights.h5", name="x", epochs=2)) == 2
    assert "other.weights.h5 cannot be used" in printed_error(capsys)
    (tmp_path / "text.weights.h5").write_text("no weights")
    assert main(command(drawings, tmp_path / "text.weights.h5", name="x", epochs=2)) == 2
    assert "text.weights.h5 cannot be used" in printed_error(capsys)


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights file at .*absent"):
        find_weights(tmp_path / "absent.h5")


@pytest.mark.parametrize("threaded_cores", [1024, 0])
def test_an_unreadable_image_amid_an_epoch_is_one_sentence_and_leaves_no_process(
    tmp_path: Path, drawings: Path, weights: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], threaded_cores: int,
) -> None:  # fmt: skip
    monkeypatch.setattr("training.data.training_batches.MAX_THREADED_CORES", threaded_cores)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(drawings, tmp_path / "data")
    (tmp_path / "data" / "train" / "square" / "1.png").write_bytes(b"")

    options = {"first_trainable_block": 1, "augmentation": "strong", "batch_size": 2}
    assert main(command(tmp_path / "data", weights, name="x", epochs=1, **options)) == 2

    assert "square/1.png cannot be used: The image is empty" in printed_error(capsys)
    assert multiprocessing.active_children() == []


def test_a_disk_that_is_full_amid_an_epoch_is_one_sentence(
    tmp_path: Path, drawings: Path, weights: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def vary(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("training.data.training_batches.vary_images", vary)
    monkeypatch.setattr("training.data.training_batches.MAX_THREADED_CORES", 1024)
    monkeypatch.chdir(tmp_path)

    options = {"first_trainable_block": 1, "augmentation": "strong", "batch_size": 2}
    assert main(command(drawings, weights, name="x", epochs=1, **options)) == 1

    assert "No space left on device. What was finished is kept" in printed_error(capsys)


def test_an_unreadable_image_is_named_and_what_was_finished_kept(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for split in ("train", "validation"):
        for label in CLASSES[:2]:
            (tmp_path / "data" / split / label).mkdir(parents=True)
            for index in range(2):
                draw(label, generator).save(tmp_path / "data" / split / label / f"{index}.png")
    broken = tmp_path / "data" / "train" / "square" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    arguments = command(tmp_path / "data", weights, name="x", epochs=2, batch_size=2)
    assert main(arguments) == 2
    assert "square/1.png cannot be used" in printed_error(capsys)
    assert not (tmp_path / "runs" / "x" / "model.keras").exists()
    broken.write_bytes(whole)
    assert main(arguments) == 0


def test_validation_with_other_classes_is_refused(
    tmp_path: Path, drawings: Path, weights: Path
) -> None:
    (tmp_path / "train").symlink_to(drawings / "train")
    (tmp_path / "validation").mkdir()
    for label in CLASSES[:2]:
        (tmp_path / "validation" / label).symlink_to(drawings / "validation" / label)
    with pytest.raises(ValueError, match=r"Missing: \['stripes'\]"):
        train(HEAD, dataset=tmp_path, weights=weights, runs=tmp_path / "runs")


def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(
    tmp_path: Path, drawings: Path, weights: Path
) -> None:
    # A limit on the size of files stands for a full disk: the same error, from the same calls.
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))

    arguments = command(drawings, weights, name="full", epochs=2, size=SIZE)
    process = start(tmp_path, arguments, preexec_fn=limit)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1, errors
    last = errors.rstrip().splitlines()[-1]
    assert last.startswith("error: ")
    assert "no room for" in last
    assert "Traceback" not in errors
    assert not list(tmp_path.rglob("activations.npy"))
    assert not list(tmp_path.rglob("*.keras"))


def test_a_batch_that_cannot_be_shared_and_a_loss_without_bound_are_printed_error(
    drawings: Path, weights: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    options = {"name": "x", "epochs": 2, "runs": tmp_path, "cache": cache}
    monkeypatch.setattr("training.fit.train.device_count", lambda: 3)
    assert main(command(drawings, weights, **options)) == 2
    assert "a batch of 8 images does not divide among 3 devices" in printed_error(capsys)
    monkeypatch.undo()
    diverging = {"learning_rate": 1e38, "ema_momentum": 0.0, "views": 1}
    assert main(command(drawings, weights, **options | diverging)) == 2
    assert "has diverged. Try a lower --learning-rate (now 1e+38)" in printed_error(capsys)
    assert not (tmp_path / "x" / "model.keras").exists()


# --- own images ----------------------------------------------------------------


def test_an_unsplit_folder_is_split_in_the_runs_folder_and_trained(
    tmp_path: Path, drawings: Path, weights: Path, cache: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "Schräubchen 钉"
    shutil.copytree(drawings / "train", folder)
    (folder / "disc" / "scan.tif").write_bytes(b"II*\0" + b"\0" * 20)
    arguments = command(folder, weights, name="mine", epochs=1, cache=cache)
    damaged = tmp_path / "damaged.weights.h5"
    damaged.write_bytes(b"no weights")

    assert main(command(folder, damaged, name="mine", epochs=1, cache=cache)) == 2
    assert not (tmp_path / "runs" / "mine").exists()
    capsys.readouterr()
    assert main(arguments) == 0

    shown = capsys.readouterr().out
    assert "is not split: 20% of its images become validation" in shown
    assert "left out: 1 x TIFF is not supported" in shown
    assert shown.rstrip().endswith(
        f"Next: make convert MODEL=runs/mine/model.keras DATASET='{folder}'"
    )
    described = json.loads((tmp_path / "runs" / "mine" / "config.json").read_text())
    assert described["dataset"] == "Schräubchen 钉"
    assert find_dataset(folder, model=tmp_path / "runs" / "mine") == (
        tmp_path / "runs" / "mine" / "images"
    )
    assert main([*arguments, "--no-next"]) == 0
    assert capsys.readouterr().out.endswith("is finished; nothing was trained\n")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, []),
        ({"accuracy": 0.5, "accuracy_interval_95": (0.3, 0.7)}, ["not clearly better than always"]),
        ({"accuracy": 0.7, "accuracy_interval_95": (0.6, 0.8)}, ["has memorised its images"]),
        ({"temperature": 0.05}, ["at the end of its range (0.05 to 20)"]),
        ({"temperature": 20.0}, ["at the end of its range (0.05 to 20)"]),
    ],
)
def test_signs_that_a_model_is_not_to_be_trusted_are_told(
    tmp_path: Path, changed: dict[str, Any], told: list[str]
) -> None:
    history = tmp_path / "history.csv"
    trained = 0.55 if changed.get("accuracy") == 0.5 else 0.95  # at chance nothing is learned
    history.write_text(f"epoch,accuracy\n0,0.1\n1,{trained}\n")
    figures = {"accuracy": 0.9, "accuracy_interval_95": (0.8, 0.95), "images": 20, **changed}
    report = {
        "checkpoint": "xception_02_0.9000.keras",
        "temperature": figures.pop("temperature", 1.0),
        "metrics": {"validation": figures},
    }
    validation = Split((), np.array([0] * 10 + [1] * 10), ("hat", "skirt"))

    problems = find_problems(report, validation, history)

    assert len(problems) == len(told)
    assert all(text in problem for text, problem in zip(told, problems, strict=True))


def test_a_run_s_problems_are_printed_below_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {
        **{"accuracy": 0.5, "accuracy_interval_95": (0.3, 0.7), "correct": 10, "images": 20},
        **{"macro_f1": 0.4, "expected_calibration_error": 0.1},
    }

    print_report(
        {"temperature": 1.0, "metrics": {"validation": figures}, "problems": ["too few images"]}
    )

    shown = capsys.readouterr().out.splitlines()
    assert "0.3000 to 0.7000, 10 of 20" in shown[0]
    assert shown[1] == "warning: too few images"
