"""How near inference is to the peak of one core.

    python -m benchmarks roofline --write

The work is counted from the model file: multiply-adds of its convolutions and matrix products, by
the shapes of its tensors. The peak is measured: the best of several large float32 matrix products
on one core, with NumPy's BLAS. An int8 model may exceed it, because the processor does more int8
operations at a time. Runs with the instruction sets of Lambda.

The float32 models are those of the baselines (``python -m benchmarks models``).
"""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.baselines import CORE, COURSE, MODELS
from benchmarks.harness import at_least_one, command_line, origin, summarise, write_result
from benchmarks.masking import enter_lane, lambda_lane
from lambda_function import SHIPPED_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MATRIX = 2048  # rows and columns: 16 MB a matrix, well above the caches
# Input 1 of these operations holds the weights. The other operations multiply next to nothing.
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def main(arguments: list[str]) -> None:
    """Measure, print and keep the result."""
    parser = command_line("roofline", __doc__)
    parser.add_argument("--repeats", type=at_least_one, default=30)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/roofline.json")
    options = parser.parse_args(arguments)
    enter_lane(lambda_lane(), OPENBLAS_NUM_THREADS="1")  # NumPy's BLAS reads it on import
    os.sched_setaffinity(0, {CORE})
    record = origin()
    peak = matrix_product_macs_per_s(10)
    print(f"peak of one core, float32 matrix product: {peak / 1e9:.1f} G multiply-adds/s")
    models = {}
    for path in [SHIPPED_MODEL, *sorted(MODELS.glob(f"*/{COURSE.model}"))]:
        name, speed = measure_model(path, options.repeats, peak)
        models[name] = speed
        print(
            f"{name}: {speed['gmacs']:.2f} G multiply-adds in {speed['inference_s'].median:.4f} s, "
            f"{speed['gmacs_per_s']:.1f} G/s, {speed['of_peak']:.0%} of the float32 peak"
        )
    if options.write:
        write_result("roofline", {**record, "peak_gmacs_per_s": peak / 1e9, "models": models})


def measure_model(path: Path, repeats: int, peak: float) -> tuple[str, dict[str, Any]]:
    """Return a model's name, and its work, time and speed on one core and thread."""
    from ai_edge_litert.interpreter import Interpreter  # absent where tflite-runtime stands in

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    size = int(interpreter.get_input_details()[0]["shape"][1])
    macs = count_macs(interpreter)
    taken = []
    for _ in range(repeats + 2):  # two to warm up
        start = time.perf_counter()
        interpreter.invoke()
        taken.append(time.perf_counter() - start)
    inference_s = summarise(taken[2:])
    rate = macs / inference_s.median
    return f"{weights_type(interpreter)} {size} px", {
        "gmacs": macs / 1e9,
        "inference_s": inference_s,
        "gmacs_per_s": rate / 1e9,
        "of_peak": rate / peak,
    }


def count_macs(interpreter: Any) -> int:
    """Return the multiply-adds of one inference.

    Args:
        interpreter: of ai-edge-litert, with allocated tensors.
    """
    shapes = {
        detail["index"]: [int(length) for length in detail["shape"]]
        for detail in interpreter.get_tensor_details()
    }
    return sum(
        operation_macs(item["op_name"], shapes[item["inputs"][1]], shapes[item["outputs"][0]])
        for item in interpreter._get_ops_details()
        if item["op_name"] in _WEIGHTED
    )


def operation_macs(name: str, weights: Sequence[int], output: Sequence[int]) -> int:
    """Return the multiply-adds of one operation.

    Args:
        name: one of TFLite's operation names.
        weights: shape. (out, height, width, in) for CONV_2D, (1, height, width, channels) for
            DEPTHWISE_CONV_2D, (out, in) for FULLY_CONNECTED.
        output: shape of the result.

    >>> operation_macs("CONV_2D", (8, 3, 3, 2), (1, 10, 10, 8))  # 800 values of 18 products
    14400
    """
    if name == "DEPTHWISE_CONV_2D":
        return math.prod(output) * math.prod(weights[1:3])
    return math.prod(output) * math.prod(weights[1:])


def weights_type(interpreter: Any) -> str:
    """Return the type of the weights, such as "int8" or "float32"."""
    types = {item["index"]: item["dtype"] for item in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    first = next(item for item in operations if item["op_name"] in _WEIGHTED)
    return str(np.dtype(types[first["inputs"][1]]).name)


def matrix_product_macs_per_s(repeats: int) -> float:
    """Return the multiply-adds a second of the fastest of several float32 matrix products."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((MATRIX, MATRIX), dtype=np.float32) for _ in range(2))
    best_s = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best_s = min(best_s, time.perf_counter() - start)
    return MATRIX**3 / best_s
