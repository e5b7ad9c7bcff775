"""What a TFLite file holds, read through the interpreter before it takes any memory."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import numpy as np

from converter.errors import InspectionError

IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every TFLite file


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of the graph.

    Attributes:
        name: of the tensor.
        dtype: NumPy's name, such as ``float32``.
        shape: with the fixed batch size first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Operators:
    """All operators of one kind.

    Attributes:
        count: of operators.
        constant_bytes: of their weights, biases and other constants. A constant that several
            operators read counts for the first.
        dtypes: of these constants, sorted.
    """

    count: int
    constant_bytes: int
    dtypes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Graph:
    """A TFLite file's graph.

    Attributes:
        inputs, outputs: of the graph.
        signatures: name -> {"inputs": names, "outputs": names}.
        operators: kind -> its operators, most bytes first.
        tensor_bytes: of all tensors together, the memory that the graph needs at most.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    signatures: dict[str, dict[str, list[str]]]
    operators: dict[str, Operators]
    tensor_bytes: int

    @property
    def operator_count(self) -> int:
        """Number of operators of all kinds."""
        return sum(kind.count for kind in self.operators.values())


def read_graph(content: bytes) -> Graph:
    """Return what a TFLite file holds. No tensor is allocated and nothing is computed.

    Args:
        content: the file. The interpreter ignores what is appended to the flatbuffer.

    Raises:
        InspectionError: not a TFLite model, damaged or cut short.
    """
    if content[4:8] != IDENTIFIER:
        raise InspectionError(
            "this is not a TFLite model: expected 'TFL3' at byte 4. "
            f"Received: {bytes(content[4:8])!r}"
        )
    # Imported here: the other commands do not need it.
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            model_content=content,
            # The default delegate would hide the operators that it takes over.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        tensors = {int(t["index"]): t for t in interpreter.get_tensor_details()}
        return Graph(
            tuple(_tensor(detail) for detail in interpreter.get_input_details()),
            tuple(_tensor(detail) for detail in interpreter.get_output_details()),
            interpreter.get_signature_list(),
            _read_operators(interpreter, tensors),
            sum(map(_bytes_of, tensors.values())),
        )
    except (ValueError, RuntimeError, KeyError, IndexError) as error:
        raise InspectionError(
            f"this TFLite model of {len(content):,} bytes is damaged or cut short: {error}"
        ) from error


def _read_operators(interpreter: Any, tensors: dict[int, Any]) -> dict[str, Operators]:
    details = interpreter._get_ops_details()  # the only view of the graph that there is
    computed = {int(index) for operator in details for index in operator["outputs"]}
    counted = computed | {int(detail["index"]) for detail in interpreter.get_input_details()}
    counts = collections.Counter(str(operator["op_name"]) for operator in details)
    sizes: collections.Counter[str] = collections.Counter()
    dtypes: dict[str, set[str]] = collections.defaultdict(set)
    for operator in details:
        name = str(operator["op_name"])
        for index in map(int, operator["inputs"]):
            if index in tensors and index not in counted:  # -1 stands for an absent input
                counted.add(index)
                sizes[name] += _bytes_of(tensors[index])
                dtypes[name].add(np.dtype(tensors[index]["dtype"]).name)
    ordered = sorted(counts, key=lambda name: (-sizes[name], name))
    return {n: Operators(counts[n], sizes[n], tuple(sorted(dtypes[n]))) for n in ordered}


def _tensor(detail: dict[str, Any]) -> Tensor:
    shape = tuple(int(size) for size in detail["shape"])
    return Tensor(str(detail["name"]), np.dtype(detail["dtype"]).name, shape)


def _bytes_of(detail: dict[str, Any]) -> int:
    elements = int(np.prod(detail["shape"], dtype=np.float64))
    return elements * int(np.dtype(detail["dtype"]).itemsize)
