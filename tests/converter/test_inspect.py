"""What a TFLite file holds is printed, and damaged files are refused with one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from converter.errors import InspectionError
from converter.inspect import describe
from converter.sources.tflite_file import read_graph
from lambda_function.metadata import MetadataError
from tests.support.converter import without_metadata
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"


def test_a_graph_has_tensors_and_operators():
    graph = read_graph(TINY.read_bytes())

    assert [(t.dtype, t.shape) for t in graph.inputs] == [("float32", (1, 32, 48, 3))]
    assert [(t.dtype, t.shape) for t in graph.outputs] == [("float32", (1, 4))]
    assert sorted(graph.operators) == ["FULLY_CONNECTED", "MEAN", "SOFTMAX"]
    assert graph.operator_count == 3
    # 3 x 4 weights and 4 biases, float32
    assert graph.operators["FULLY_CONNECTED"].constant_bytes == 16 * 4
    # The input dominates: 32 x 48 x 3 float32.
    assert 32 * 48 * 3 * 4 < graph.tensor_bytes < 32 * 48 * 3 * 4 + 400


def test_inspect_prints_what_the_artifact_says_and_holds():
    text = describe(TINY)

    for expected in (
        *("red, green, blue, dark", "height 32, width 48, resize_filter bilinear"),
        *("float32 [1, 32, 48, 3]", "SOFTMAX", "1.2.3", "activation_map   none"),
    ):
        assert expected in text


def test_inspect_prints_the_grid_of_an_activation_map():
    text = describe(TESTS / "data" / "tiny_map.tflite")

    assert 'activation_map\n    "covers": "the whole upright image' in text
    assert '"height": 4' in text
    assert "-> activation_map, probabilities" in text


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_with_one_sentence(tmp_path, share):
    content = TINY.read_bytes()
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(content[: int(len(content) * share)])

    with pytest.raises((InspectionError, MetadataError)) as caught:
        describe(cut)
    assert "\n" not in str(caught.value)


def test_a_file_from_elsewhere_is_named_with_the_command_that_takes_it_in(tmp_path):
    plain = tmp_path / "plain.tflite"
    plain.write_bytes(without_metadata(TINY.read_bytes()))

    with pytest.raises(MetadataError, match=rf"^{plain}: the file holds no labels.*make import"):
        describe(plain)


def test_a_file_that_is_no_model_is_refused():
    with pytest.raises(InspectionError, match=r"expected 'TFL3' at byte 4\. Received: b'ctyp'"):
        read_graph(b"<!doctype html>")


def test_damage_never_escapes_as_another_error():
    content = TINY.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for position in rng.integers(8, 1200, 6):
            damaged[position] = rng.integers(0, 256)
        try:
            read_graph(bytes(damaged))
        except InspectionError as error:
            assert str(error)
