"""The interpreter and the metadata are compared. Expected outputs are calculated by hand."""

from __future__ import annotations

import dataclasses
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lambda_function.classifier import ArtifactError, Classifier, _to_probabilities
from lambda_function.metadata import (
    DistanceSpec,
    InputSpec,
    MapSpec,
    MetadataError,
    embed_metadata,
    read_metadata,
)
from tests.support.converter import without_metadata
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"
TINY_MAP = TESTS / "data" / "tiny_map.tflite"  # has 4x6 cells
TINY_ALL = TESTS / "data" / "tiny_all.tflite"  # has a map and a feature distance


def one_colour(red: float, green: float, blue: float) -> np.ndarray:
    """A plain tensor of one colour, -1..1."""
    return np.broadcast_to(np.array([red, green, blue], np.float32), (1, 32, 48, 3)).copy()


def described_otherwise(file=TINY, **changes) -> bytes:
    content = without_metadata(file.read_bytes())
    return embed_metadata(content, dataclasses.replace(read_metadata(file), **changes))


def rebuilt(artifact: bytes, change) -> bytes:
    """The artifact after a change of its flatbuffer's objects."""
    flatbuffers = pytest.importorskip("flatbuffers")
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    model = schema.ModelT.InitFromPackedBuf(without_metadata(artifact))
    change(model, schema)
    builder = flatbuffers.Builder(len(artifact))
    builder.Finish(model.Pack(builder), b"TFL3")
    return embed_metadata(bytes(builder.Output()), read_metadata(artifact))


def with_outputs_in_reverse(artifact: bytes) -> bytes:
    """The same model, with its outputs listed in the other order."""

    def reverse(model, _) -> None:
        graph = model.subgraphs[0]
        assert len(graph.outputs) in (2, 3)
        graph.outputs = graph.outputs[::-1]

    return rebuilt(artifact, reverse)


def without_map(artifact: bytes) -> bytes:
    """The same model of two outputs: probabilities and feature distance."""

    def remove(model, _) -> None:
        (signature,) = model.signatureDefs
        (found,) = [each for each in signature.outputs if each.name == b"activation_map"]
        signature.outputs.remove(found)
        graph = model.subgraphs[0]
        graph.outputs = [index for index in graph.outputs if index != found.tensorIndex]

    metadata = dataclasses.replace(read_metadata(artifact), activation_map=None)
    return embed_metadata(without_metadata(rebuilt(artifact, remove)), metadata)


def with_a_map_of_nan(artifact: bytes) -> bytes:
    """The same model, whose map alone is not a number."""

    def damage(model, schema) -> None:
        graph = model.subgraphs[0]
        (convolution,) = [
            operator
            for operator in graph.operators
            if model.operatorCodes[operator.opcodeIndex].builtinCode
            == schema.BuiltinOperator.CONV_2D
        ]
        bias = model.buffers[graph.tensors[convolution.inputs[2]].buffer]
        bias.data = list(np.full(4, np.nan, "<f4").tobytes())

    return rebuilt(artifact, damage)


def with_a_distance_of_nan(artifact: bytes) -> bytes:
    """The same model, whose feature distance is a constant that is not a number."""

    def damage(model, schema) -> None:
        graph = model.subgraphs[0]
        (signature,) = model.signatureDefs
        (found,) = [each for each in signature.outputs if each.name == b"feature_distance"]
        graph.operators = [
            each for each in graph.operators if found.tensorIndex not in each.outputs
        ]
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = list(np.full(1, np.nan, "<f4").tobytes())
        graph.tensors[found.tensorIndex].buffer = len(model.buffers) - 1

    return rebuilt(artifact, damage)


@pytest.mark.parametrize("artifact", [TINY, TINY.read_bytes()], ids=["path", "bytes"])
def test_output_is_as_calculated_by_hand(artifact):
    # Means (1, -1, -1) give logits 12, -4, -4, 3 (see make_tiny_model.py).
    exponentials = np.exp(np.array([12.0, -4.0, -4.0, 3.0]) - 12)
    expected = exponentials / exponentials.sum()

    found = Classifier(artifact).predict(one_colour(1, -1, -1))

    assert found.shape == (4,)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("change", [bytes, with_outputs_in_reverse])
def test_outputs_are_found_by_name_in_any_order(change):
    classifier = Classifier(change(TINY_MAP.read_bytes()))
    image = one_colour(-1, -1, -1)
    image[:, 8:16, 40:48, 0] = 1  # the cell of row 1, column 5 is red

    outputs = classifier.predict_all(image)

    activation_map, probabilities = outputs.activation_map, outputs.probabilities
    assert activation_map is not None
    assert (activation_map.shape, activation_map.dtype) == ((4, 6, 4), np.float32)
    # Times the weights (see make_tiny_model.py): black gives 4, 4, 4, 6 and red 12, -4, -4, 2.
    expected = np.broadcast_to([4.0, 4, 4, 6], (4, 6, 4)).copy()
    expected[1, 5] = [12, -4, -4, 2]
    np.testing.assert_allclose(activation_map, expected, atol=1e-5)
    # The mean over the cells is the logit without the bias, which is 1 for "dark".
    logits = expected.mean(axis=(0, 1)) + np.array([0, 0, 0, 1])
    np.testing.assert_allclose(probabilities, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(image), probabilities)


@pytest.mark.parametrize("change", [bytes, with_outputs_in_reverse, without_map])
@pytest.mark.parametrize(("colour", "expected"), [((1, -1, -1), 3.0), ((0.5, 0, -0.25), 0.3125)])
def test_the_feature_distance_is_found_by_name_beside_any_outputs(change, colour, expected):
    classifier = Classifier(change(TINY_ALL.read_bytes()))
    image = one_colour(*colour)

    outputs = classifier.predict_all(image)

    assert outputs.feature_distance == pytest.approx(expected, abs=1e-5)  # the sum of the squares
    assert (outputs.activation_map is None) == (change is without_map)
    np.testing.assert_array_equal(outputs.probabilities, classifier.predict(image))
    np.testing.assert_allclose(outputs.probabilities, Classifier(TINY).predict(image), atol=1e-6)


def test_a_model_of_one_output_has_neither_map_nor_distance():
    outputs = Classifier(TINY).predict_all(one_colour(1, -1, -1))

    assert (outputs.activation_map, outputs.feature_distance) == (None, None)


DISTANCE = DistanceSpec(farthest=2.5, images=100, share=0.05)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            TINY_MAP,
            {"activation_map": MapSpec(6, 4)},
            r"says \(1, 4\), \(1, 6, 4, 4\), the model has \[\(1, 4\), \(1, 4, 6, 4\)\]",
        ),
        (TINY_MAP, {"output": "logits"}, r"says \['activation_map', 'logits'\], the model has"),
        (TINY_MAP, {"activation_map": None}, r"says \(1, 4\), the model has .*\(1, 4, 6, 4\)"),
        (TINY_MAP, {"labels": ("a", "b", "c")}, r"says \(1, 3\), \(1, 4, 6, 3\), the model has"),
        (TINY, {"activation_map": MapSpec(4, 6), "format_version": 3}, "outputs do not fit"),
        (TINY, {"feature_distance": DISTANCE, "format_version": 3}, "outputs do not fit"),
        (TINY_MAP, {"feature_distance": DISTANCE}, "outputs do not fit"),
        (TINY_ALL, {"feature_distance": None}, "outputs do not fit"),
        (TINY_ALL, {"activation_map": None}, "outputs do not fit"),
        (
            TINY,
            {"labels": ("a", "b", "c")},
            r"output does not fit .* says \(1, 3\), the model has \[\(1, 4\)\]",
        ),
        (
            TINY,
            {"input": InputSpec(48, 32)},
            r"input does not fit .* says \(1, 48, 32, 3\), the model has \[\(1, 32, 48, 3\)\]",
        ),
    ],
)
def test_tensors_that_do_not_fit_the_description_are_refused_with_both_sides(
    file, changes, message
):
    with pytest.raises(ArtifactError, match=message):
        Classifier(described_otherwise(file, **changes))


@pytest.mark.parametrize(
    ("file", "damage", "name"),
    [
        (TINY_MAP, with_a_map_of_nan, "activation map"),
        (TINY_ALL, with_a_distance_of_nan, "feature distance"),
    ],
)
def test_an_output_that_is_not_finite_is_refused_when_it_is_loaded(file, damage, name):
    with pytest.raises(ArtifactError, match=f"{name} is not finite"):
        Classifier(damage(file.read_bytes()))


def test_an_output_does_not_change_with_the_next_call():
    classifier = Classifier(TINY)
    first = classifier.predict(one_colour(1, -1, -1))
    kept = first.copy()

    classifier.predict(one_colour(-1, -1, 1))

    np.testing.assert_array_equal(first, kept)


class Leisurely:
    """An interpreter that lets other threads run in the middle of an inference."""

    def __init__(self, interpreter) -> None:
        self._interpreter = interpreter

    def invoke(self) -> None:
        time.sleep(0.002)
        self._interpreter.invoke()
        time.sleep(0.002)

    def __getattr__(self, name: str):
        return getattr(self._interpreter, name)


@pytest.mark.parametrize(
    ("output", "values", "expected"),
    [
        ("probabilities", [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        # e**0 : e**ln 3 : e**-100
        ("logits", [0.0, 1.0986123, -100.0], [0.25, 0.75, 0.0]),
        ("logits", [1000.0, 1000.0], [0.5, 0.5]),
        ("probability_of_second", [0.9], [0.1, 0.9]),
        ("logit_of_second", [1.0986123], [0.25, 0.75]),
        ("logit_of_second", [-1000.0], [1.0, 0.0]),
    ],
)
def test_an_output_is_completed_to_probabilities(output, values, expected):
    found = _to_probabilities(np.array(values, np.float32), output)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_graph_without_softmax_is_served_with_one():
    content = described_otherwise(output="logits")  # tiny's softmax now counts as logits
    logits = Classifier(TINY).predict(one_colour(1, -1, -1))

    found = Classifier(content).predict(one_colour(1, -1, -1))

    np.testing.assert_allclose(found, np.exp(logits) / np.exp(logits).sum(), atol=1e-6)


def test_threads_that_share_a_classifier_get_their_own_outputs():
    classifier = Classifier(TINY)
    classifier._interpreter = Leisurely(classifier._interpreter)
    colours = [one_colour(1, -1, -1), one_colour(-1, 1, -1), one_colour(-1, -1, 1)] * 10

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda tensor: int(classifier.predict(tensor).argmax()), colours))

    assert found == [0, 1, 2] * 10


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (without_metadata(TINY.read_bytes()), MetadataError, "holds no labels"),
        (
            embed_metadata(b"not a flatbuffer" * 100, read_metadata(TINY)),
            ArtifactError,
            "not a loadable TFLite model",
        ),
    ],
)
def test_half_an_artifact_is_refused_and_the_error_names_the_file(tmp_path, content, kind, message):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)

    with pytest.raises(kind, match=message) as of_bytes:
        Classifier(content)
    with pytest.raises(kind) as of_file:
        Classifier(path)
    assert str(of_file.value).startswith(f"{path}: {str(of_bytes.value)[:30]}")


def test_a_tensor_of_another_shape_is_refused_not_reshaped():
    with pytest.raises(ValueError, match="imension"):
        Classifier(TINY).predict(np.zeros((1, 48, 32, 3), np.float32))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (172, 0, "fails at inference: Input tensor 2 lacks data"),
        (383, 255, "does not return probabilities .* Received: \\[nan, nan, nan, nan\\]"),
        (840, 255, "tensors cannot be read: 'utf-8' codec"),
    ],
)
def test_a_damaged_graph_is_refused_when_it_is_loaded(position, value, message):
    artifact = bytearray(TINY.read_bytes())
    artifact[position] = value

    with pytest.raises(ArtifactError, match=message):
        Classifier(bytes(artifact))


def test_a_model_that_is_not_run_when_it_is_loaded_fails_at_its_first_image():
    artifact = bytearray(TINY.read_bytes())
    artifact[172] = 0
    classifier = Classifier(bytes(artifact), run_once=False)
    size = classifier.metadata.input

    with pytest.raises((ValueError, RuntimeError), match="lacks data"):
        classifier.predict(np.zeros((1, size.height, size.width, 3), np.float32))
