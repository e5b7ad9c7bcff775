"""The command line writes an artifact with its report, or says why not in one sentence."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.__main__ import main
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.metadata import read_metadata
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api
from tests.support.converter import HEIGHT, LABELS, WIDTH, colour_model, write_run
from tests.support.paths import TESTS
from tests.support.processes import run_python

TINY = TESTS / "data" / "tiny.tflite"


def run(*words: str | Path) -> int:
    return main([*map(str, words)])


@pytest.mark.training
def test_a_passed_gate_writes_artifact_and_report_beside_the_model(
    dataset, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    model = write_run(Path("my runs/a.b"), colour_model())
    output = model.with_name("model.tflite")
    shipped = SHIPPED_MODEL.read_bytes()

    words = ("--recipe", "float32", "--version", "9.1.0", "--dataset", dataset)
    assert run(model, *words) == 0

    assert SHIPPED_MODEL.read_bytes() == shipped
    shown = capsys.readouterr().out
    assert shown.endswith("Next: make adopt MODEL='my runs/a.b/model.tflite'\n")
    assert "accuracy loss, not trained on" in shown

    metadata = read_metadata(output)
    assert (metadata.recipe, metadata.version) == ("float32", "9.1.0")
    report = json.loads(output.with_name("model.parity.json").read_text())
    assert report["passed"] is True
    assert report["figures"]["images"] == 9 + 12
    assert run(model, *words, "--no-next") == 0
    assert "Next:" not in capsys.readouterr().out
    files = {path.name for path in output.parent.iterdir() if path.stem.startswith("model")}
    assert files == {"model.keras", "model.parity.json", "model.tflite"}


def network():
    """Return a network whose four features are an image's blue, green, red and contrast."""
    import keras

    layers = keras.layers
    images = keras.Input((HEIGHT, WIDTH, 3))
    features = layers.Conv2D(4, 3, padding="same", activation="relu", name="features")
    dense = layers.Dense(3, name="dense")
    pooled = layers.GlobalAveragePooling2D()(features(images))
    logits = layers.Rescaling(1 / 1.5)(dense(layers.Dropout(0.2)(pooled)))  # the temperature
    model = keras.Model(images, layers.Softmax()(logits))
    kernel = np.zeros((3, 3, 3, 4), np.float32)
    kernel[1, 1, :, :3] = np.eye(3)[::-1]  # blue, green, red from RGB
    kernel[..., 3] = -1 / 2
    kernel[1, 1, :, 3] = 4
    features.set_weights([kernel, np.array([1, 1, 1, 0], np.float32)])
    dense.set_weights([np.array([*(8 * np.eye(3)), [1, -1, 0]], np.float32), np.zeros(3)])
    return model


def write_many(root: Path) -> Path:
    """Write 210 train and 105 validation images of the input's size, tints with noise."""
    rng = np.random.default_rng(11)
    for split, count in (("train", 70), ("validation", 35)):
        for position, label in enumerate(LABELS):  # blue, green, red
            (root / split / label).mkdir(parents=True)
            for number in range(count):
                tint, noise = rng.integers(0, 60, 3), rng.integers(20, 90)
                pixels = rng.integers(0, noise, (HEIGHT, WIDTH, 3)) + tint
                pixels[..., 2 - position] += 100
                path = root / split / label / f"{number}.png"
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    return root


def features_of(model, *paths: Path) -> np.ndarray:
    """Return Keras's features, (images, height, width, 4), without any code of ours."""
    import keras

    pixels = np.stack([np.asarray(Image.open(path), np.float32) for path in paths])
    features = keras.Model(model.inputs[0], model.get_layer("features").output)
    return np.asarray(features(pixels / 127.5 - 1), np.float64)


def distances_to(known: np.ndarray, names: np.ndarray, features: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distances to the nearest class mean, as a textbook has it."""
    means = {name: known[names == name].mean(axis=0) for name in LABELS}
    spread = known - np.array([means[name] for name in names])
    inverse = np.linalg.inv(spread.T @ spread / len(known))
    away = [features - mean for mean in means.values()]
    return np.min([np.einsum("ni,ij,nj->n", each, inverse, each) for each in away], axis=0)


@pytest.mark.training
def test_a_converted_model_explains_and_marks_what_keras_and_numpy_say(tmp_path):
    model, data = network(), write_many(tmp_path / "data")
    path, output = write_run(tmp_path / "run", model), tmp_path / "out" / "model.tflite"
    words = ("--recipe", "float32", "--dataset", data, "--output", output)

    assert run(path, *words, "--uncertain", "--activation-map") == 0

    api = Api(Service(Settings(), Classifier(output)))

    def ask(image: Path, **fields):
        return api.invoke({"image": base64.b64encode(image.read_bytes()).decode(), **fields})

    train, validation = (sorted((data / split).rglob("*.png")) for split in ("train", "validation"))
    red = validation[-1]
    for explain, label in ((True, "red"), ("green", "green")):
        explanation = ask(red, explain=explain)["explanation"]
        weights = model.get_layer("dense").get_weights()[0][:, LABELS.index(label)]
        cells = np.maximum(features_of(model, red)[0] @ weights, 0)
        assert explanation["label"] == label
        np.testing.assert_allclose(explanation["grid"], cells / cells.max(), atol=1e-3)
    block = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    block[8:20, 10:30, 0] = 255
    Image.fromarray(block).save(tmp_path / "block.png")
    assert ask(tmp_path / "block.png", explain="red")["explanation"]["box"] == [10, 8, 30, 20]

    known, held_out = (
        features_of(model, *paths).mean(axis=(1, 2)) for paths in (train, validation)
    )
    distances = distances_to(known, np.array([p.parent.name for p in train]), held_out)
    spec = read_metadata(output).feature_distance
    # At most 5 of 105 images may be farther.
    assert spec.farthest == pytest.approx(np.sort(distances)[-6], rel=0.01)
    assert (spec.images, spec.share) == (105, 5 / 105)
    near, far = (ask(validation[i]) for i in np.argsort(distances)[[52, -1]])
    assert ("uncertain" in near, far["uncertain"]) == (False, True)
    assert ask(tmp_path / "block.png")["uncertain"] is True


@pytest.mark.training
def test_a_failed_gate_shows_why_and_leaves_the_old_file(source, dataset, tmp_path, capsys):
    # Calibrated on images that are nearly grey, the integer model saturates on real ones.
    dull = tmp_path / "dull"
    shutil.copytree(dataset, dull)
    rng = np.random.default_rng(0)
    for image in (dull / "train").rglob("*.png"):
        pixels = rng.integers(128, 134, (90, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(image)
    output = tmp_path / "out" / "model.tflite"
    output.parent.mkdir()
    output.write_bytes(b"published before")

    status = run(
        source.path, "--recipe", "int8", "--output", output, "--dataset", dull,
        "--images", dataset / "validation",
    )  # fmt: skip

    printed = capsys.readouterr().out
    assert status == 3
    assert "FAILED mean probability difference" in printed
    assert "worst images" in printed
    assert "/0.png" in printed
    assert output.read_bytes() == b"published before"
    assert [path.name for path in output.parent.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nowhere.keras", "--recipe", "int8"), "no model at nowhere.keras"),
        (("imprt", "course.h5"), "no command imprt. Name one of import, adopt, inspect"),
        ((TINY, "--recipe", "int3"), "Received: 'int3'"),
        ((TINY, "--recipe", "int8", "--output", TESTS), "--output must be a .tflite file"),
        ((TINY, "--recipe", "int8", "--output", SHIPPED_MODEL), "only make adopt replaces"),
        (("inspect", __file__), "TFL3"),
        (
            (TINY, "--recipe", "int8", "--output", "a.tflite", "--uncertain", "--images", TESTS),
            "Leave out one of the two",
        ),
    ],
)
def test_bad_input_gets_one_sentence(words, expected, capsys):
    assert run(*words) == 2

    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert expected in errors


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        run("model.keras", "--recipe", "int8", "--force")

    assert ended.value.code == 2
    assert "unrecognized arguments: --force" in capsys.readouterr().err


PROBE = """
import sys
from converter.__main__ import main
main(sys.argv[1:])
print(",".join(sorted(name for name in sys.modules if name.startswith("converter."))))
"""


def test_a_command_imports_only_what_it_needs():
    done = run_python("-c", PROBE, "inspect", TINY, check=True)

    assert done.stdout.splitlines()[-1].split(",") == [
        *("converter.__main__", "converter.errors", "converter.inspect", "converter.sources"),
        "converter.sources.tflite_file",
    ]


def test_a_file_that_is_not_there_is_named_without_an_error_number(capsys):
    assert main(["inspect", "nowhere.tflite"]) == 1

    assert capsys.readouterr().err == "error: nowhere.tflite: No such file or directory\n"
