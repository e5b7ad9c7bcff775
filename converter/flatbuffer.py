"""A look into a TFLite file without running it: operators, tensors, signatures, sizes.

Reads through the schema that comes with ai-edge-litert; needs no TensorFlow.
"""

from __future__ import annotations

import collections
import dataclasses
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from converter.errors import InspectionError

IDENTIFIER = b"TFL3"  # bytes 4 to 7 of every TFLite file


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """An input or output of the model.

    Attributes:
        name: of the tensor.
        dtype: as TFLite's schema calls it, such as ``FLOAT32``.
        shape: with the fixed batch size first.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class LayerType:
    """All operators of one kind.

    Attributes:
        count: of operators.
        constant_bytes: of their weights, biases and other constants.
        weight_dtypes: of those constants, sorted.
    """

    count: int
    constant_bytes: int
    weight_dtypes: tuple[str, ...]


class Flatbuffer:
    """A TFLite model, read as a whole when it is opened.

    Args:
        content: the file; whatever is appended to the flatbuffer is ignored.

    Attributes:
        operators: names, in the order of execution; foreign ones begin with ``CUSTOM:``.
        inputs, outputs: of the model.
        signatures: name -> (input names, output names).
        layer_types: operator -> count and size of constants, largest first. A constant that
            several operators read is counted for the first; weights kept in half precision
            are read by ``DEQUANTIZE``.

    Raises:
        InspectionError: not a TFLite model, or cut short.
    """

    def __init__(self, content: bytes) -> None:
        if content[4:8] != IDENTIFIER:
            raise InspectionError(
                "this is not a TFLite model: expected 'TFL3' at byte 4. "
                f"Received: {bytes(content[4:8])!r}"
            )
        from ai_edge_litert import schema_py_generated as schema

        self._operators = _names(schema.BuiltinOperator)
        self._dtypes = _names(schema.TensorType)
        try:
            self._model = schema.Model.GetRootAs(content, 0)
            self._graph = self._model.Subgraphs(0)
            self._sizes = [_buffer_size(self._model, i) for i in self._buffers()]
            self.operators = [self._operator(i) for i in range(self._graph.OperatorsLength())]
            self.inputs = self._tensors(self._graph.Inputs, self._graph.InputsLength())
            self.outputs = self._tensors(self._graph.Outputs, self._graph.OutputsLength())
            self.signatures = self._read_signatures()
            self.layer_types = self._read_layer_types()
        except (struct.error, LookupError, TypeError, ValueError, AttributeError) as error:
            raise InspectionError(
                f"this TFLite model of {len(content):,} bytes is damaged or cut short"
            ) from error

    def foreign_operators(self) -> list[str]:
        """Return the operators that TFLite's own set does not hold: Flex and custom ones."""
        return sorted({name for name in self.operators if name.startswith("CUSTOM:")})

    def _read_signatures(self) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
        found = {}
        for i in range(self._model.SignatureDefsLength()):
            signature = self._model.SignatureDefs(i)
            inputs = [signature.Inputs(k).Name() for k in range(signature.InputsLength())]
            outputs = [signature.Outputs(k).Name() for k in range(signature.OutputsLength())]
            found[signature.SignatureKey().decode()] = (_texts(inputs), _texts(outputs))
        return found

    def _read_layer_types(self) -> dict[str, LayerType]:
        counts = collections.Counter(self.operators)
        sizes: collections.Counter[str] = collections.Counter()
        dtypes: dict[str, set[str]] = collections.defaultdict(set)
        seen: set[int] = set()
        for position, name in enumerate(self.operators):
            operator = self._graph.Operators(position)
            for i in range(operator.InputsLength()):
                index = int(operator.Inputs(i))
                if index < 0:
                    continue  # an optional input that is absent
                tensor = self._graph.Tensors(index)
                size = self._sizes[tensor.Buffer()]
                if size and tensor.Buffer() not in seen:
                    seen.add(tensor.Buffer())
                    sizes[name] += size
                    dtypes[name].add(self._dtypes[tensor.Type()])
        ordered = sorted(counts, key=lambda name: (-sizes[name], name))
        return {n: LayerType(counts[n], sizes[n], tuple(sorted(dtypes[n]))) for n in ordered}

    def _buffers(self) -> range:
        return range(self._model.BuffersLength())

    def _operator(self, position: int) -> str:
        code = self._model.OperatorCodes(self._graph.Operators(position).OpcodeIndex())
        if code.CustomCode() is not None:
            return f"CUSTOM:{code.CustomCode().decode()}"
        # Codes above 127 live in the newer field; the older one then says 127.
        return self._operators[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]

    def _tensors(self, index: Callable[[int], Any], count: int) -> tuple[TensorInfo, ...]:
        tensors = [self._graph.Tensors(int(index(i))) for i in range(count)]
        return tuple(
            TensorInfo(
                tensor.Name().decode(),
                self._dtypes[tensor.Type()],
                tuple(int(n) for n in np.atleast_1d(tensor.ShapeAsNumpy())),
            )
            for tensor in tensors
        )


def _buffer_size(model: Any, index: int) -> int:
    buffer = model.Buffers(index)
    size = int(buffer.DataLength() or buffer.Size())
    if buffer.DataLength():
        buffer.Data(buffer.DataLength() - 1)  # its last byte must be there
    return size


def _names(enumeration: Any) -> dict[int, str]:
    return {v: k for k, v in vars(enumeration).items() if isinstance(v, int)}


def _texts(names: list[bytes]) -> tuple[str, ...]:
    return tuple(name.decode() for name in names)
