"""`python -m converter inspect FILE`: print everything that an artifact says and holds."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from converter.sources.tflite_file import Graph, Tensor, read_graph
from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import MAP_OUTPUT, ModelMetadata, read_metadata


def main(arguments: list[str]) -> int:
    """Print the description of one artifact."""
    parser = argparse.ArgumentParser(prog="python -m converter inspect", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", default=SHIPPED_MODEL)
    print(describe(parser.parse_args(arguments).file))
    return 0


def describe(path: Path) -> str:
    """Return a text about an artifact.

    Args:
        path: of the ``.tflite`` file.

    Raises:
        InspectionError: not a TFLite model, or damaged.
        MetadataError: it has no metadata, or an unknown version of it.
        OSError: the file cannot be read.
    """
    content = path.read_bytes()
    graph = read_graph(content)
    lines = [
        f"{path.name}  {len(content):,} bytes",
        f"SHA-256  {hashlib.sha256(content).hexdigest()}",
        "",
        *_metadata_lines(read_metadata(path)),
        "",
        *_tensor_lines("input", graph.inputs),
        *_tensor_lines("output", graph.outputs),
        *(
            f"signature  {name}({', '.join(ends['inputs'])}) -> {', '.join(ends['outputs'])}"
            for name, ends in graph.signatures.items()
        ),
        "",
        *_operator_lines(graph),
    ]
    return "\n".join(lines)


def _metadata_lines(metadata: ModelMetadata) -> list[str]:
    fields = metadata.to_dict()
    nested = [name for name, value in fields.items() if isinstance(value, dict) and name != "input"]
    lines = [] if metadata.activation_map else [f"{MAP_OUTPUT:<16} none"]
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


def _tensor_lines(kind: str, tensors: tuple[Tensor, ...]) -> list[str]:
    return [f"{kind:<10} {t.name}  {t.dtype} {list(t.shape)}" for t in tensors]


def _operator_lines(graph: Graph) -> list[str]:
    total = sum(kind.constant_bytes for kind in graph.operators.values())
    return [
        f"{'operator':<22}{'count':>6}{'bytes of constants':>20}  stored as",
        *(
            f"{name:<22}{kind.count:>6}{kind.constant_bytes:>20,}  {', '.join(kind.dtypes)}"
            for name, kind in graph.operators.items()
        ),
        f"{'all':<22}{graph.operator_count:>6}{total:>20,}",
    ]
