"""How near inference is to what one core can do.

    python -m benchmarks.roofline --write

The work is counted from the model file: multiply-adds of its convolutions and matrix products,
by the shapes of its tensors. The limit is measured: the best of several large float32 matrix
products on one core, with NumPy's BLAS. For float32 models the share of that peak is the answer;
an int8 model may exceed it, since the processor does more int8 operations at a time.

The float32 models are the peers' (``benchmarks.baselines.build``); ours is the shipped one.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before NumPy is imported: its BLAS starts one thread per core it sees.
os.environ.update({"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})

import numpy as np

from benchmarks.baselines import CORE, COURSE, MODELS
from benchmarks.measure import at_least_one, summarise, surroundings, write_result
from lambda_function import SHIPPED_MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

MATRIX = 2048  # rows and columns: 16 MB a matrix, well above the caches
# Which of an operation's inputs holds the weights; the other operations multiply next to nothing.
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--repeats", type=at_least_one, default=30)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/limit.json")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {CORE})
    context = surroundings()
    peak = matrix_product_macs_per_s(10)
    models = {}
    print(f"peak of one core, float32 matrix product: {peak / 1e9:.1f} G multiply-adds/s")
    for path in models_here():
        name, found = measure_model(path, arguments.repeats, peak)
        models[name] = found
        print(
            f"{name}: {found['gmacs']:.2f} G multiply-adds in {found['inference_s'].median:.4f} s, "
            f"{found['gmacs_per_s']:.1f} G/s, {found['of_peak']:.0%} of the float32 peak"
        )
    if arguments.write:
        result = {**context, "peak_gmacs_per_s": peak / 1e9, "models": models}
        print(f"written: {write_result('limit', result)}")


def models_here() -> list[Path]:
    """Return the shipped model and the float32 ones that have been built."""
    return [SHIPPED_MODEL, *sorted(MODELS.glob(f"*/{COURSE.model}"))]


def measure_model(path: Path, repeats: int, peak: float) -> tuple[str, dict[str, Any]]:
    """Return a model's name, and its work, time and speed on one core and thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    size = int(interpreter.get_input_details()[0]["shape"][1])
    macs = count_macs(interpreter)
    taken = []
    for _ in range(repeats + 2):  # two to warm up
        start = time.perf_counter()
        interpreter.invoke()
        taken.append(time.perf_counter() - start)
    found = summarise(taken[2:])
    rate = macs / found.median
    name = f"{weights_type(interpreter)} {size} px"
    return name, {
        "gmacs": macs / 1e9,
        "inference_s": found,
        "gmacs_per_s": rate / 1e9,
        "of_peak": rate / peak,
    }


def count_macs(interpreter: Any) -> int:
    """Return the multiply-adds of one inference.

    Args:
        interpreter: of ai-edge-litert, tensors allocated.
    """
    shapes = {
        detail["index"]: [int(n) for n in detail["shape"]]
        for detail in interpreter.get_tensor_details()
    }
    operations = [
        (item["op_name"], [shapes[index] for index in (item["inputs"][1], item["outputs"][0])])
        for item in interpreter._get_ops_details()
        if item["op_name"] in _WEIGHTED
    ]
    return sum(operation_macs(name, *found) for name, found in operations)


def operation_macs(name: str, weights: Sequence[int], output: Sequence[int]) -> int:
    """Return the multiply-adds of one operation.

    Args:
        name: one of TFLite's operation names.
        weights: shape; (out, height, width, in) for CONV_2D, (1, height, width, channels) for
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
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((MATRIX, MATRIX), dtype=np.float32) for _ in range(2))
    best_s = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        best_s = min(best_s, time.perf_counter() - start)
    return MATRIX**3 / best_s


if __name__ == "__main__":
    main()
