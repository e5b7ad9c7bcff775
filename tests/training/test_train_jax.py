"""The same training on JAX, on one device and on two simulated ones, in processes of their own.

The backend is fixed when Keras is imported, hence the processes. `make test-jax` runs this, in an
environment that holds no TensorFlow.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lambda_function import REPOSITORY
from tests.support.processes import run_python

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(
        importlib.util.find_spec("jax") is None, reason="JAX is not installed: make test-jax"
    ),
]

WEIGHTS = REPOSITORY.parent / "shared" / "weights" / "xception_notop_imagenet.weights.h5"
TWO_DEVICES = "--xla_force_host_platform_device_count=2"
BLOCK_TENSORFLOW = "import sys; sys.modules['tensorflow'] = None; "
MAKE_WEIGHTS = (
    "import keras; keras.utils.set_random_seed(0); keras.applications.Xception(weights=None, "
    "include_top=False, input_shape=(71, 71, 3)).save_weights('random.weights.h5')"
)


def run(folder: Path, code: str, flags: str = "") -> str:
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(REPOSITORY),
    }
    words = ("-c", BLOCK_TENSORFLOW + code)
    done = run_python(*words, cwd=folder, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of two classes; 9 in validation, which two devices cannot share evenly."""
    root = tmp_path_factory.mktemp("jax")
    generator = np.random.default_rng(0)
    for split, counts in (("train", (17, 18)), ("validation", (5, 4))):
        for label, count in zip(("disc", "square"), counts, strict=True):
            (root / "data" / split / label).mkdir(parents=True)
            for index in range(count):
                ground, colour = (tuple(map(int, c)) for c in generator.integers(0, 256, (2, 3)))
                image = Image.new("RGB", (80, 80), ground)
                pen = ImageDraw.Draw(image)
                (pen.ellipse if label == "disc" else pen.rectangle)((10, 10, 70, 70), fill=colour)
                image.save(root / "data" / split / label / f"{index}.png")
    if not WEIGHTS.is_file():
        run(root, MAKE_WEIGHTS)
    return root


def train(folder: Path, name: str, flags: str = "") -> tuple[str, list[dict[str, float]]]:
    weights = WEIGHTS if WEIGHTS.is_file() else folder / "random.weights.h5"
    arguments = [
        "train", f"--name={name}", "--size=71", f"--dataset={folder / 'data'}",
        f"--backbone-weights={weights}", "--first-trainable-block=14", "--views=1", "--epochs=2",
        "--batch-size=8", "--dropout=0", "--learning-rate=0.001", "--ema-momentum=0.5",
    ]  # fmt: skip
    code = f"from training.commands import main; sys.exit(main({arguments!r}))"
    output = run(folder, code, flags)
    with (folder / "runs" / name / "history.csv").open() as file:
        return output, [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def test_training_runs_on_jax_without_tensorflow_and_two_devices_learn_what_one_does(
    folder: Path,
) -> None:
    output, alone = train(folder, "alone")
    assert "devices" not in output
    assert len(alone) == 2
    assert (folder / "runs" / "alone" / "model.keras").is_file()
    assert '"backend": "jax"' in (folder / "runs" / "alone" / "report.json").read_text()
    output, together = train(folder, "together", TWO_DEVICES)
    assert "training on 2 devices" in output
    assert (folder / "runs" / "together" / "model.keras").is_file()
    for one, two in zip(alone, together, strict=True):
        # Sums in another order; batch norms see the whole batch on either.
        assert two["loss"] == pytest.approx(one["loss"], rel=0.02)
        assert two["val_accuracy"] == pytest.approx(one["val_accuracy"], abs=1.5 / 9)
