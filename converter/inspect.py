"""`python -m converter inspect FILE`: everything that an artifact says and holds, for people."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from converter.flatbuffer import Flatbuffer, TensorInfo
from lambda_function.metadata import ModelMetadata, read_metadata


def describe(path: Path) -> str:
    """Return a text about an artifact.

    Args:
        path: of the ``.tflite`` file.

    Raises:
        InspectionError: not a TFLite model, or damaged.
        MetadataError: no metadata in it, or of an unknown version.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    flatbuffer = Flatbuffer(content)
    metadata = read_metadata(content)
    head = [
        f"{path.name}  {len(content):,} bytes",
        f"SHA-256  {hashlib.sha256(content).hexdigest()}",
        "",
        *_metadata_lines(metadata),
        "",
        *_tensor_lines("input", flatbuffer.inputs),
        *_tensor_lines("output", flatbuffer.outputs),
        *_signature_lines(flatbuffer),
        "",
        *_layer_lines(flatbuffer),
    ]
    return "\n".join(head)


def _metadata_lines(metadata: ModelMetadata) -> list[str]:
    fields = metadata.to_dict()
    nested = [name for name, value in fields.items() if isinstance(value, dict) and name != "input"]
    lines = []
    for name in sorted(set(fields) - set(nested)):
        value = fields[name]
        if isinstance(value, list):
            value = ", ".join(str(item) for item in value)
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {item}" for key, item in value.items())
        lines.append(f"{name:<16} {value}")
    for name in sorted(nested):
        text = json.dumps(fields[name], indent=2, sort_keys=True, ensure_ascii=False)
        lines += [name, *(f"  {line}" for line in text.splitlines()[1:-1])]
    return lines


def _tensor_lines(kind: str, tensors: tuple[TensorInfo, ...]) -> list[str]:
    return [f"{kind:<10} {t.name}  {t.dtype} {list(t.shape)}" for t in tensors]


def _signature_lines(flatbuffer: Flatbuffer) -> list[str]:
    return [
        f"signature  {name}({', '.join(inputs)}) -> {', '.join(outputs)}"
        for name, (inputs, outputs) in flatbuffer.signatures.items()
    ]


def _layer_lines(flatbuffer: Flatbuffer) -> list[str]:
    layers = flatbuffer.layer_types
    lines = [f"{'operator':<22}{'count':>6}{'bytes of constants':>20}  stored as"]
    lines += [
        f"{name:<22}{layer.count:>6}{layer.constant_bytes:>20,}  {', '.join(layer.weight_dtypes)}"
        for name, layer in layers.items()
    ]
    total = sum(layer.constant_bytes for layer in layers.values())
    lines.append(f"{'all':<22}{len(flatbuffer.operators):>6}{total:>20,}")
    return lines
