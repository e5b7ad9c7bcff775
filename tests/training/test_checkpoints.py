"""A run resumes after its last finished epoch, as if it had never been stopped."""

from __future__ import annotations

import csv
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from training.config import TrainConfig  # noqa: E402
from training.data.training_batches import CachedFeatures, weigh_images  # noqa: E402
from training.errors import ConfigError  # noqa: E402
from training.fit.backbone import named_weights  # noqa: E402
from training.fit.checkpoints import SaveCheckpoint, last_checkpoint  # noqa: E402
from training.fit.loop import fit  # noqa: E402
from training.fit.optimizer import build_optimizer  # noqa: E402

pytestmark = pytest.mark.training
CONFIG = TrainConfig(epochs=4, batch_size=8, learning_rate=0.01, views=1)
LABELS = np.arange(32) % 2
FEATURES = np.random.default_rng(0).normal(LABELS[:, None], 1.0, (32, 5)).astype(np.float16)


class Killed(BaseException):
    """Stands for a kill. No handler of ours catches it."""


def build(precision: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    policy = keras.DTypePolicy(precision)
    hidden = keras.layers.Dense(6, activation="relu", name="inner", dtype=policy)(inputs)
    dropped = keras.layers.Dropout(0.3, seed=1, dtype=policy)(hidden)
    logits = keras.layers.Dense(2, name="logits", dtype="float32")(dropped)
    model = keras.Model(inputs, logits)
    model.dtype_policy = policy  # compile() wraps the optimizer under mixed_float16
    return model


def run(
    folder: Path, precision: str = "float32", *, validation_images: int = 1000, **changes: Any
) -> keras.Model:
    config = dataclasses.replace(CONFIG, precision=precision, **changes)
    folder.mkdir(exist_ok=True)
    model = build(precision)
    dataset = CachedFeatures([FEATURES], LABELS, 2, config)
    held_out = weigh_images(FEATURES.astype(np.float32), np.eye(2, dtype=np.float32)[LABELS])
    fit(model, config, dataset, held_out, folder, validation_images=validation_images)
    return model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Return folder and weights of a run that was never stopped, by precision."""

    @functools.cache
    def find(precision: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path_factory.mktemp("whole")
        return folder, named_weights(run(folder, precision))

    return find


def kill_in_epoch(
    monkeypatch: pytest.MonkeyPatch, folder: Path, epoch: int, before: str, precision: str
) -> None:
    """Run until one epoch is about to write its state, its row or its best checkpoint."""
    target = {"state": "WriteState", "checkpoint": "SaveCheckpoint"}[before]
    with monkeypatch.context() as patched:
        original = getattr(__import__("training.fit.loop", fromlist=[target]), target)

        class Killing(original):  # type: ignore[misc, valid-type]
            def on_epoch_end(self, number: int, logs: Any = None) -> None:
                if number == epoch:
                    raise Killed
                super().on_epoch_end(number, logs)

        patched.setattr(f"training.fit.loop.{target}", Killing)
        with pytest.raises(Killed):
            run(folder, precision)


def history(folder: Path) -> list[dict[str, float]]:
    with (folder / "history.csv").open() as file:
        return [{name: float(v) for name, v in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("before", ["state", "checkpoint"])
def test_a_killed_run_repeats_the_epoch_that_was_running_and_ends_as_if_it_had_not_been_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    whole: Callable[[str], tuple[Path, dict[str, Any]]], before: str, precision: str,
) -> None:  # fmt: skip
    folder, expected = whole(precision)
    kill_in_epoch(monkeypatch, tmp_path, 2, before, precision)
    capsys.readouterr()

    resumed = run(tmp_path, precision)

    shown = capsys.readouterr().out
    assert "resuming after epoch 2 of 4" in shown
    assert "epoch 3 of 4: loss" in shown
    assert "epoch 2 of 4: loss" not in shown
    assert history(tmp_path) == history(folder)
    for name, value in named_weights(resumed).items():
        assert np.array_equal(value, expected[name]), name
    assert last_checkpoint(tmp_path).name == last_checkpoint(folder).name


def test_a_kill_in_the_first_epoch_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    whole: Callable[[str], tuple[Path, dict[str, Any]]],
) -> None:  # fmt: skip
    kill_in_epoch(monkeypatch, tmp_path, 0, "state", "float32")
    assert not (tmp_path / "state.npz").exists()

    run(tmp_path)

    assert history(tmp_path) == history(whole("float32")[0])


@pytest.mark.parametrize("damage", [b"PK", b""])
def test_a_damaged_state_is_one_sentence(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "state.npz").write_bytes(damage)

    with pytest.raises(ConfigError, match=r"state\.npz is damaged: .*Remove"):
        run(tmp_path)


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "state.npz", epochs=1, v0=np.zeros((9, 9)))

    with pytest.raises(ConfigError, match="is damaged"):
        run(tmp_path)


def save(folder: Path, accuracies: list[float], *, validation_images: int) -> list[str]:
    """Return the checkpoints of a run that had these accuracies."""
    callback = SaveCheckpoint(folder, validation_images)
    callback.set_model(build("float32"))
    for epoch, accuracy in enumerate(accuracies):
        callback.on_epoch_end(epoch, {"val_accuracy": accuracy})
    return sorted(file.name for file in (folder / "checkpoints").iterdir())


def test_of_equal_epochs_the_later_checkpoint_counts(tmp_path: Path) -> None:
    save(tmp_path, [0.9, 0.95, 0.92, 0.95, 0.94], validation_images=100)

    assert last_checkpoint(tmp_path).name == "xception_04_0.9500.keras"


def test_a_resumed_run_knows_its_best_accuracy(tmp_path: Path) -> None:
    save(tmp_path, [0.9, 0.95], validation_images=100)

    kept = save(tmp_path, [0.94], validation_images=100)

    assert kept == ["xception_01_0.9000.keras", "xception_02_0.9500.keras"]


def test_few_validation_images_do_not_choose_the_epoch(tmp_path: Path) -> None:
    save(tmp_path, [1.0, 0.9], validation_images=99)

    assert last_checkpoint(tmp_path).name == "xception_02_0.9000.keras"


def test_the_last_epoch_of_few_validation_images_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, validation_images=32)

    assert "32 validation images cannot tell which epoch is best" in capsys.readouterr().out
    assert last_checkpoint(tmp_path).name.startswith("xception_04_")


def test_one_checkpoint_is_kept_without_the_optimizer(tmp_path: Path) -> None:
    run(tmp_path, validation_images=32)

    (file,) = (tmp_path / "checkpoints").iterdir()
    assert not getattr(keras.models.load_model(file), "optimizer", None)


def test_the_average_of_the_weights_warms_up() -> None:
    """By hand: the momentum before step n is min(0.99, (1 + n) / (10 + n)), and 0 before step 0."""
    config = dataclasses.replace(CONFIG, ema_momentum=0.99, weight_decay=0.0, warmup_epochs=0.0)
    optimizer = build_optimizer(config, 10, build("float32"))
    weight = keras.Variable([1.0])
    optimizer.build([weight])
    average = None

    for step in range(4):
        optimizer.apply([keras.ops.ones((1,))])
        value = float(keras.ops.convert_to_numpy(weight)[0])
        momentum = (1 + step) / (10 + step) if step else 0.0
        average = value if average is None else momentum * average + (1 - momentum) * value

    held = keras.ops.convert_to_numpy(optimizer._model_variables_moving_average[0])
    assert held == pytest.approx(average, abs=1e-6)
    assert average < 0.99  # a constant momentum of 0.99 would keep the first weights


def test_a_checkpoint_of_an_unfinished_epoch_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "xception_03_1.0000.keras").write_bytes(b"of a run that was killed")

    run(tmp_path, epochs=1, warmup_epochs=0.0)

    assert last_checkpoint(tmp_path).name.startswith("xception_01_")
