"""What a TFLite file holds, read through the interpreter before it takes any memory."""

from __future__ import annotations

import collections
import dataclasses
import io
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import InspectionError, SourceError

IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every TFLite file
MAX_OPERATORS = 20_000  # EfficientNetV2L has about 1,100
MAX_TENSOR_BYTES = 4_000_000_000  # all tensors at once. The interpreter reuses most of this.


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


class TfliteFile:
    """A TFLite file from elsewhere, with one image in and one row of numbers out.

    Attributes:
        content: the flatbuffer, without anything that was appended to it.
        inputs, outputs: of the graph.
    """

    def __init__(self, content: bytes, graph: Graph) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.content = content
        self.inputs, self.outputs = graph.inputs, graph.outputs
        try:
            self._interpreter = Interpreter(model_content=content, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise SourceError(
                f"the interpreter cannot run the file: {' '.join(str(error).split())}"
            ) from error

    def predict_on_batch(self, tensors: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Return the outputs, float32, (images, outputs), of images one after another.

        Args:
            tensors: each float32, (height, width, 3), normalised.
        """
        rows = []
        for tensor in tensors:
            self._interpreter.set_tensor(
                self._interpreter.get_input_details()[0]["index"], tensor[np.newaxis]
            )
            self._interpreter.invoke()
            index = self._interpreter.get_output_details()[0]["index"]
            rows.append(self._interpreter.get_tensor(index)[0])
        return np.stack(rows)


def starts_as_tflite(path: Path) -> bool:
    """Return whether a file has the identifier of TFLite files, whatever its name is."""
    with path.open("rb") as file:
        return file.read(8)[4:] == IDENTIFIER


def open_tflite(path: Path) -> TfliteFile:
    """Open a TFLite file of unknown origin, after a look at what it asks for.

    Raises:
        InspectionError: damaged.
        SourceError: it needs too much, or operators or types that are not served.
    """
    content = path.read_bytes()
    content = content[: _start_of_archive(content)]
    graph = read_graph(content)
    if flex := sorted(name for name in graph.operators if name.startswith("Flex")):
        raise SourceError(
            f"{path} needs TensorFlow's operators {', '.join(flex)}, which Lambda's interpreter "
            "does not have. Convert the model again with TFLITE_BUILTINS only, or replace the "
            "layers that they come from."
        )
    if graph.operator_count > MAX_OPERATORS or graph.tensor_bytes > MAX_TENSOR_BYTES:
        raise SourceError(
            f"{path} has {graph.operator_count:,} operators and {graph.tensor_bytes:,} bytes of "
            f"tensors. At most {MAX_OPERATORS:,} and {MAX_TENSOR_BYTES:,} are taken."
        )
    for tensor in (*graph.inputs, *graph.outputs):
        if tensor.dtype != "float32":
            raise SourceError(
                f"{path} has a tensor {tensor.name} of {tensor.dtype}. Input and output must be "
                "float32: convert the model again without setting inference_input_type."
            )
    return TfliteFile(content, graph)


def _start_of_archive(content: bytes) -> int:
    """Return where appended metadata begins: TFLite's own, or an artifact's."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return min((info.header_offset for info in archive.infolist()), default=len(content))
    except zipfile.BadZipFile:
        return len(content)
