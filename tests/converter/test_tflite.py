"""From a Keras model to an artifact: what the file says, holds and predicts."""

from __future__ import annotations

import numpy as np
import pytest

from converter.calibration import choose_images
from converter.errors import ConversionError
from converter.recipes import RECIPES, find_recipe
from converter.sources.pooled_head import find_pooled_head
from converter.sources.run_folder import open_source
from converter.sources.tflite_file import read_graph
from converter.tflite import check_servable, quantise, to_float32
from lambda_function.classifier import Classifier
from lambda_function.metadata import MapSpec, embed_metadata, read_metadata
from tests.converter.conftest import convert
from tests.support import converter as support
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"


def test_unknown_recipe_is_refused_with_the_list():
    with pytest.raises(ConversionError, match=r"one of float32, .*Received: 'int4'"):
        find_recipe("int4")


@pytest.mark.parametrize("name", ["FlexErf", "Invented"])
def test_the_interpreter_refuses_operators_beyond_its_own(name):
    artifact = support.with_custom_operator(TINY.read_bytes(), name)

    with pytest.raises(ConversionError, match=name) as caught:
        check_servable(artifact)
    assert "\n" not in str(caught.value)


@pytest.fixture
def artifacts(plain):
    return plain.artifacts


def tensors(train, source):
    return list(choose_images(train, source.spec, count=12).tensors())


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
        {"images": 8, "split": "train", "seed": 5, "quantile": 0.7}
        if recipe.startswith("int8")
        else None
    )
    signature = {"inputs": ["image"], "outputs": ["probabilities"]}
    assert read_graph(artifacts[recipe]).signatures == {"serving_default": signature}


@pytest.mark.training
@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [("float32", 1e-6), ("float16", 2e-3), ("dynamic", 0.03), ("int8", 0.03)],
)
def test_artifact_predicts_as_keras_does(artifacts, source, train, recipe, tolerance):
    images = tensors(train, source)
    expected = source.load().predict_on_batch(np.concatenate(images))
    classifier = Classifier(artifacts[recipe])

    served = np.stack([classifier.predict(image) for image in images])

    assert np.abs(served - expected).max() < tolerance
    assert np.ptp(expected) > 0.5  # else agreement would mean little


@pytest.mark.training
def test_weights_are_stored_as_the_recipe_says(artifacts):
    stored = {
        name: {kind: operators.dtypes for kind, operators in read_graph(file).operators.items()}
        for name, file in artifacts.items()
    }

    assert stored["float32"]["CONV_2D"] == ("float32",)
    assert "float16" in stored["float16"]["DEQUANTIZE"]
    assert "int8" in stored["dynamic"]["CONV_2D"]
    # tflite-runtime reads int8 ones with one scale for all classes
    assert "int8" not in stored["dynamic"].get("FULLY_CONNECTED", ())
    assert stored["dynamic"]["DEQUANTIZE"] == ("float16",)
    assert stored["int8"]["FULLY_CONNECTED"] == ("int32", "int8")
    assert stored["int8_float_head"]["FULLY_CONNECTED"] == ("float32",)
    assert stored["int8_float_head"]["CONV_2D"] == ("int32", "int8")


@pytest.mark.training
def test_embedding_changes_no_prediction(artifacts, train, source):
    from ai_edge_litert.interpreter import Interpreter

    artifact = artifacts["int8"]
    bare = support.without_metadata(artifact)
    assert embed_metadata(bare, read_metadata(artifact)) == artifact
    interpreter = Interpreter(model_content=bare)
    interpreter.allocate_tensors()
    classifier = Classifier(artifact)

    for image in tensors(train, source):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        before = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        np.testing.assert_array_equal(classifier.predict(image), before)


@pytest.mark.training
def test_equal_input_gives_equal_bytes(artifacts, source, train):
    assert convert(source, train) == artifacts


@pytest.mark.training
@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        ("float32", 1e-4),
        ("float16", 0.02),
        ("dynamic", 0.1),
        ("int8", 3),  # ranges cover 0.7 of the images' extremes: the highest values are cut
        ("int8_float_head", 3),
    ],
)
def test_map_and_distance_are_outputs_of_every_recipe(recipe, tolerance, mapped, source, train):
    artifact = mapped.artifacts[recipe]
    images = tensors(train, source)
    head = find_pooled_head(source.load())
    found = head.with_features.predict_on_batch(np.concatenate(images))
    output, features, pooled = map(np.asarray, found)
    classifier = Classifier(artifact)

    outputs = [classifier.predict_all(image) for image in images]
    served, maps = ([getattr(o, n) for o in outputs] for n in ("probabilities", "activation_map"))

    assert read_metadata(artifact).activation_map == MapSpec(support.HEIGHT, support.WIDTH)
    signature = {
        "inputs": ["image"],
        "outputs": ["activation_map", "feature_distance", "probabilities"],
    }
    assert read_graph(artifact).signatures == {"serving_default": signature}
    assert np.abs(np.stack(served) - output).max() < 0.03
    expected = features @ head.kernel  # up to 27
    assert np.abs(np.stack(maps) - expected).max() < tolerance
    assert np.ptp(expected) > 10
    distances = np.array([o.feature_distance for o in outputs])
    measured = mapped.source.distance.measure(pooled)
    # Constants are float16 in every recipe, which alone makes 0.0003.
    assert np.abs(distances / measured - 1).max() < max(tolerance / 10, 5e-4)
    assert measured.min() > 1


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["int8", "int8_float_head"])
def test_integer_recipes_compute_the_distance_in_float(recipe, mapped):
    operators = read_graph(mapped.artifacts[recipe]).operators

    # Only the distance subtracts. A stranger's distance would be beyond what integers were
    # calibrated for.
    assert operators["SUB"].dtypes == ("float32",)
    assert "float16" in operators["DEQUANTIZE"].dtypes


def test_calibration_images_are_chosen_by_the_seed(dataset, train):
    spec = open_source(support.write_run(dataset.parent / "run")).spec

    def names(seed):
        return choose_images(train, spec, count=6, seed=seed).images.paths

    assert names(0) == names(0)
    assert names(0) != names(1)
    assert len(names(0)) == 6


@pytest.mark.training
def test_a_model_that_needs_flex_is_refused(tmp_path):
    import keras

    class Angle(keras.layers.Layer):
        def call(self, inputs):
            import tensorflow as tf

            return tf.math.angle(tf.complex(inputs, inputs))

    keras.utils.get_custom_objects()["Angle"] = Angle
    source = open_source(support.write_run(tmp_path, support.colour_model(before=Angle())))

    with pytest.raises(ConversionError):
        check_servable(quantise(source, to_float32(source), RECIPES["float32"], None))
