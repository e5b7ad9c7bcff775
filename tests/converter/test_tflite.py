"""From a Keras model to an artifact: what the file says, holds and answers; how it is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.errors import ConversionError, InspectionError, SourceError
from converter.flatbuffer import Flatbuffer
from converter.inspect import describe
from converter.recipes import RECIPES, UnknownRecipeError, find_recipe
from converter.source import open_source
from converter.tflite import check_servable
from lambda_function import REPOSITORY
from lambda_function.classifier import Classifier
from lambda_function.metadata import MetadataError, embed_metadata, read_metadata
from tests.support import converter as support
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"


# --- what needs no TensorFlow ---------------------------------------------------


def test_every_recipe_says_what_it_means():
    assert set(RECIPES) == {"float32", "float16", "dynamic", "int8", "int8_float_head"}
    assert all(len(recipe.meaning) > 40 for recipe in RECIPES.values())


def test_unknown_recipe_is_refused_with_the_list():
    with pytest.raises(UnknownRecipeError, match=r"one of float32, .*Received: 'int4'"):
        find_recipe("int4")


def test_flatbuffer_shows_tensors_signature_and_operators():
    flatbuffer = Flatbuffer(TINY.read_bytes())

    assert [(t.dtype, t.shape) for t in flatbuffer.inputs] == [("FLOAT32", (1, 32, 48, 3))]
    assert [(t.dtype, t.shape) for t in flatbuffer.outputs] == [("FLOAT32", (1, 4))]
    assert sorted(flatbuffer.operators) == ["FULLY_CONNECTED", "MEAN", "SOFTMAX"]
    # 3 x 4 weights and 4 biases, float32
    assert flatbuffer.layer_types["FULLY_CONNECTED"].constant_bytes == 16 * 4
    assert flatbuffer.foreign_operators() == []


def with_custom_operator(artifact: bytes, name: str) -> bytes:
    """The same artifact, whose first operator is another's invention."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(artifact)
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    code.customCode = name.encode()
    builder = flatbuffers.Builder(len(artifact))
    builder.Finish(model.Pack(builder), b"TFL3")
    return embed_metadata(bytes(builder.Output()), read_metadata(artifact))


def test_flex_operators_are_foreign_and_never_served():
    artifact = with_custom_operator(TINY.read_bytes(), "FlexErf")

    assert Flatbuffer(artifact).foreign_operators() == ["CUSTOM:FlexErf"]
    with pytest.raises(ConversionError, match="beyond TFLite's own: CUSTOM:FlexErf"):
        check_servable(artifact)


def test_another_signature_is_never_served():
    with pytest.raises(ConversionError, match=r"signature .*serving_default.* Received: \{\}"):
        check_servable(TINY.read_bytes())


def test_inspect_prints_what_the_artifact_says_and_holds():
    text = describe(TINY)

    for expected in (
        "red, green, blue, dark",
        "height 32, width 48, resize_filter bilinear",
        "FLOAT32 [1, 32, 48, 3]",
        "SOFTMAX",
        "1.2.3",
    ):
        assert expected in text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9])
def test_inspect_refuses_a_truncated_file_with_one_sentence(tmp_path, share):
    content = TINY.read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(len(content) * share)])

    with pytest.raises((InspectionError, MetadataError)) as caught:
        describe(cut)
    assert "\n" not in str(caught.value)


def test_inspect_refuses_what_is_no_model(tmp_path):
    page = tmp_path / "model.tflite"
    page.write_bytes(b"<!doctype html>")

    with pytest.raises(InspectionError, match=r"expected 'TFL3' at byte 4\. Received: b'ctyp'"):
        describe(page)


def test_damage_in_the_middle_never_escapes_as_another_error(tmp_path):
    content = TINY.read_bytes()
    generator = np.random.default_rng(0)
    for trial in range(200):
        damaged = bytearray(content)
        for position in generator.integers(8, 1200, 6):
            damaged[position] = generator.integers(0, 256)
        path = tmp_path / f"{trial}.tflite"
        path.write_bytes(damaged)
        try:
            describe(path)
        except (InspectionError, MetadataError) as error:
            assert str(error)


def run_folder(tmp_path: Path, **changes) -> Path:
    """A run folder whose model.keras is no model."""

    class Fake:
        def save(self, path: Path) -> None:
            path.write_bytes(b"not a zip")

    return support.write_run(tmp_path / "run", Fake(), **changes)


@pytest.mark.parametrize("missing", ["config.json", "report.json", "model.keras"])
def test_a_missing_file_of_the_run_folder_is_named(tmp_path, missing):
    path = run_folder(tmp_path)
    path.with_name(missing).unlink()

    with pytest.raises(SourceError, match=missing.replace(".", r"\.")):
        open_source(path)


def test_a_config_without_labels_or_with_an_unknown_filter_is_refused(tmp_path):
    with pytest.raises(SourceError, match="resize_filter must be one of"):
        open_source(
            run_folder(
                tmp_path,
                input={
                    "height": 8,
                    "width": 8,
                    "resize_filter": "nearest",
                    "normalisation": "xception",
                },
            )
        )
    path = run_folder(tmp_path)
    config = json.loads(path.with_name("config.json").read_text())
    del config["labels"]
    path.with_name("config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match="'labels' is missing"):
        open_source(path)


# --- with TensorFlow ------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return support.write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = support.write_run(tmp_path_factory.mktemp("runs") / "colours", support.colour_model())
    return open_source(path)


@pytest.fixture(scope="module")
def float_model(source):
    from converter.tflite import to_float32

    return to_float32(source)


@pytest.fixture(scope="module")
def ranges(source, dataset, float_model):
    from converter.calibration import Ranges, choose_images

    chosen = choose_images(dataset, source.labels, source.spec, count=8, seed=5)
    return Ranges(float_model, chosen)


@pytest.fixture(scope="module")
def artifacts(source, float_model, ranges):
    from converter.tflite import quantise

    return {n: quantise(source, float_model, recipe, ranges) for n, recipe in RECIPES.items()}


def tensors(dataset: Path):
    from converter.calibration import choose_images
    from lambda_function.metadata import InputSpec

    spec = InputSpec(support.HEIGHT, support.WIDTH)
    return list(choose_images(dataset, support.LABELS, spec, count=12).tensors())


@pytest.mark.training
@pytest.mark.parametrize("recipe", RECIPES)
def test_artifact_says_everything_about_itself(artifacts, source, recipe):
    metadata = read_metadata(artifacts[recipe])

    assert metadata.labels == support.LABELS
    assert (metadata.input.height, metadata.input.width) == (support.HEIGHT, support.WIDTH)
    assert (metadata.name, metadata.version, metadata.recipe) == ("colours", "1.2.3", recipe)
    assert metadata.temperature == 1.5
    assert metadata.source_sha256 == source.weights_sha256
    assert metadata.training == {"seed": 7}
    assert metadata.metrics["validation"]["images"] == 9
    calibration = metadata.conversion["calibration"]
    assert calibration == (
        {"images": 8, "split": "train", "seed": 5} if recipe.startswith("int8") else None
    )


@pytest.mark.training
@pytest.mark.parametrize("recipe", RECIPES)
def test_artifact_has_batch_one_named_ends_and_no_foreign_operator(artifacts, recipe):
    flatbuffer = Flatbuffer(artifacts[recipe])

    assert flatbuffer.signatures == {"serving_default": (("image",), ("probabilities",))}
    assert [(t.dtype, t.shape) for t in flatbuffer.inputs] == [
        ("FLOAT32", (1, support.HEIGHT, support.WIDTH, 3))
    ]
    assert [(t.dtype, t.shape) for t in flatbuffer.outputs] == [("FLOAT32", (1, 3))]
    assert flatbuffer.foreign_operators() == []


@pytest.mark.training
@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [("float32", 1e-6), ("float16", 2e-3), ("dynamic", 0.03), ("int8", 0.03)],
)
def test_artifact_answers_as_keras_does(artifacts, source, dataset, recipe, tolerance):
    images = tensors(dataset)
    expected = source.load().predict_on_batch(np.concatenate(images))
    classifier = Classifier(artifacts[recipe])

    found = np.stack([classifier.predict(image) for image in images])

    assert np.abs(found - expected).max() < tolerance
    assert np.ptp(expected) > 0.5  # else agreement would mean little


@pytest.mark.training
def test_weights_are_stored_as_the_recipe_says(artifacts):
    stored = {n: Flatbuffer(a).layer_types for n, a in artifacts.items()}

    assert stored["float32"]["CONV_2D"].weight_dtypes == ("FLOAT32",)
    assert "FLOAT16" in stored["float16"]["DEQUANTIZE"].weight_dtypes
    assert "INT8" in stored["dynamic"]["CONV_2D"].weight_dtypes
    # tflite-runtime reads int8 ones with one scale for all classes
    assert "INT8" not in stored["dynamic"]["FULLY_CONNECTED"].weight_dtypes
    assert stored["dynamic"]["DEQUANTIZE"].weight_dtypes == ("FLOAT16",)
    assert stored["int8"]["FULLY_CONNECTED"].weight_dtypes == ("INT32", "INT8")
    assert stored["int8_float_head"]["FULLY_CONNECTED"].weight_dtypes == ("FLOAT32",)
    assert stored["int8_float_head"]["CONV_2D"].weight_dtypes == ("INT32", "INT8")


@pytest.mark.training
def test_embedding_changes_no_answer(artifacts, dataset):
    from ai_edge_litert.interpreter import Interpreter

    artifact = artifacts["int8"]
    bare = artifact[: artifact.rindex(b"PK\x03\x04", 0, artifact.rindex(b"PK\x03\x04"))]
    assert len(bare) < len(artifact)
    assert embed_metadata(bare, read_metadata(artifact)) == artifact
    interpreter = Interpreter(model_content=bare)
    interpreter.allocate_tensors()
    classifier = Classifier(artifact)

    for image in tensors(dataset):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        before = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        np.testing.assert_array_equal(classifier.predict(image), before)


@pytest.mark.training
@pytest.mark.parametrize("recipe", RECIPES)
def test_equal_input_gives_equal_bytes(artifacts, source, dataset, recipe):
    from converter.calibration import Ranges, choose_images
    from converter.tflite import quantise, to_float32

    again = to_float32(source)
    chosen = choose_images(dataset, source.labels, source.spec, count=8, seed=5)

    assert quantise(source, again, RECIPES[recipe], Ranges(again, chosen)) == artifacts[recipe]


@pytest.mark.training
def test_calibration_is_chosen_by_seed_and_stays_within_train(dataset, source):
    from converter.calibration import choose_images

    def names(seed):
        chosen = choose_images(dataset, source.labels, source.spec, count=6, seed=seed)
        return [path.relative_to(dataset).as_posix() for path in chosen.images.paths]

    assert names(0) == names(0)
    assert names(0) != names(1)
    assert all(name.startswith("train/") for name in names(1))


@pytest.mark.training
def test_wrong_output_count_is_refused_with_both_sides(tmp_path):
    path = support.write_run(tmp_path / "run", support.colour_model(outputs=4))

    with pytest.raises(SourceError, match=r"config.json says \(N, 3\), the model has \(N, 4\)"):
        open_source(path).load()


@pytest.mark.training
def test_wrong_input_size_is_refused_with_both_sides(tmp_path):
    spec = {"height": 20, "width": 30, "resize_filter": "bicubic", "normalisation": "xception"}
    path = support.write_run(tmp_path / "run", support.colour_model(), input=spec)

    with pytest.raises(SourceError, match=r"says \(N, 20, 30, 3\), the model has \(N, 36, 48, 3\)"):
        open_source(path).load()


@pytest.mark.training
def test_what_is_no_keras_model_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"model\.keras is not a Keras model: ") as caught:
        open_source(run_folder(tmp_path)).load()
    assert "\n" not in str(caught.value)


@pytest.mark.training
def test_a_model_that_needs_flex_is_refused(tmp_path):
    import keras

    class Erf(keras.layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.math.angle(tf.complex(inputs, inputs))

    keras.utils.get_custom_objects()["Erf"] = Erf
    path = support.write_run(tmp_path / "run", support.colour_model(before=Erf()))
    from converter.tflite import quantise, to_float32

    source = open_source(path)
    with pytest.raises(ConversionError):
        check_servable(quantise(source, to_float32(source), RECIPES["float32"], None))


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "converter", *map(str, words)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.mark.training
def test_command_line_writes_artifact_and_parity_or_leaves_what_was_there(
    source, dataset, tmp_path
):
    output = tmp_path / "out" / "model.tflite"

    done = command(source.path, "--recipe", "float32", "--output", output, "--dataset", dataset)

    assert done.returncode == 0, done.stderr
    assert read_metadata(output).recipe == "float32"
    report = json.loads(output.with_name("model.parity.json").read_text())
    assert report["passed"] is True
    assert report["figures"]["images"] == 9 + 12
    assert sorted(path.name for path in output.parent.iterdir()) == [
        "model.parity.json",
        "model.tflite",
    ]


@pytest.mark.training
def test_a_failed_gate_shows_why_and_leaves_the_published_file(source, dataset, tmp_path):
    # Calibrated on pictures that are nearly grey, the integer model saturates on real ones.
    dull = tmp_path / "dull"
    shutil.copytree(dataset, dull)
    generator = np.random.default_rng(0)
    for picture in (dull / "train").rglob("*.png"):
        pixels = generator.integers(128, 134, (90, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(picture)
    output = tmp_path / "out" / "model.tflite"
    output.parent.mkdir()
    output.write_bytes(b"what was published before")

    done = command(
        source.path, "--recipe", "int8", "--output", output, "--dataset", dull,
        "--images", dataset / "validation",
    )  # fmt: skip

    assert done.returncode == 3
    assert "FAILED mean probability difference" in done.stdout
    assert "worst images" in done.stdout
    assert "/0.png" in done.stdout
    assert output.read_bytes() == b"what was published before"
    assert [path.name for path in output.parent.iterdir()] == ["model.tflite"]


def test_command_line_says_bad_input_in_one_sentence(tmp_path):
    missing = command(tmp_path / "model.keras", "--recipe", "int8")
    unknown = command(TINY, "--recipe", "int3")
    page = command("inspect", __file__)

    assert [done.returncode for done in (missing, unknown, page)] == [2, 2, 2]
    for done, expected in ((missing, "no model at"), (unknown, "int3"), (page, "TFL3")):
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
        assert expected in done.stderr


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [("--calibration-images", "0", 1), ("--calibration-images", "-4", 1), ("--seed", "-1", 0)],
)
def test_a_choice_of_images_that_cannot_be_is_refused(tmp_path, option, value, least):
    done = command(tmp_path / "model.keras", "--recipe", "int8", f"{option}={value}")

    assert done.returncode == 2
    assert f"must be a whole number from {least} on. Received: {value}" in done.stderr


def test_there_is_no_force(tmp_path):
    done = command(tmp_path / "model.keras", "--recipe", "int8", "--force")

    assert done.returncode == 2
    assert "unrecognized arguments: --force" in done.stderr
