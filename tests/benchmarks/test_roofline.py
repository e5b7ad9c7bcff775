"""The multiply-adds of a model, counted from its file."""

from __future__ import annotations

import pytest

from benchmarks.roofline import count_macs, operation_macs, weights_type
from tests.support.paths import TESTS


@pytest.mark.parametrize(
    ("name", "weights", "output", "macs"),
    [
        ("CONV_2D", (32, 3, 3, 3), (1, 111, 111, 32), 111 * 111 * 32 * 27),
        ("DEPTHWISE_CONV_2D", (1, 3, 3, 64), (1, 10, 10, 64), 6400 * 9),
        ("FULLY_CONNECTED", (10, 2048), (1, 10), 20480),
    ],
)
def test_multiply_adds_of_an_operation(name, weights, output, macs):
    assert operation_macs(name, weights, output) == macs


def test_multiply_adds_of_the_small_test_model():
    """It multiplies the means of three channels by a 3 x 4 matrix, and nothing else."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="counts with ai-edge-litert")
    interpreter = litert.Interpreter(model_path=str(TESTS / "data" / "tiny.tflite"))
    interpreter.allocate_tensors()
    assert count_macs(interpreter) == 12
    assert weights_type(interpreter) == "float32"
