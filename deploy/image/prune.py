"""Remove from an installed tree what the function never loads: `python slim.py TREE`.

Run by the Dockerfile after pip. What stays was found by looking at ``sys.modules`` and
``/proc/self/maps`` of a process that had answered a request; the container tests run the result.
A pattern marked as required must match, so that a new release which renames its parts is noticed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class Waste(NamedTuple):
    """Files that are not needed.

    Attributes:
        owner: a directory that has to be there for this to apply.
        patterns: below the tree.
        reason: why nothing misses them.
        required: whether each pattern has to match something.
    """

    owner: str
    patterns: tuple[str, ...]
    reason: str
    required: bool = True


WASTE = (
    Waste(
        "ai_edge_litert",
        ("ai_edge_litert/libLiteRtWebGpuAccelerator.so",),
        "the GPU delegate: 19 MB; Lambda has no GPU",
        required=False,  # not in every platform's wheel
    ),
    Waste(
        "ai_edge_litert",
        ("ai_edge_litert/libLiteRt.so",),
        "CompiledModel's runtime: 8 MB, which the package loads at import where it is there; "
        "the interpreter is linked against libpywrap_litert_common.so alone",
    ),
    Waste(
        "ai_edge_litert",
        (
            "ai_edge_litert/tools",
            "ai_edge_litert/vendors",
            "ai_edge_litert/aot",
            "ai_edge_litert/*converter*.so",
            "ai_edge_litert/*calibration*.so",
            "ai_edge_litert/*genai*.so",
            "ai_edge_litert/*modify_model*.so",
            "ai_edge_litert/*analyzer*.so",
        ),
        "compilers for phones' accelerators, the converter and its kin: not the interpreter",
    ),
    Waste(
        "ai_edge_litert",
        (
            *("flatbuffers", "flatbuffers-*.dist-info"),
            *("ml_dtypes", "ml_dtypes-*.dist-info"),
            *("google", "protobuf-*.dist-info"),
            *("tqdm", "tqdm-*.dist-info"),
            *("backports", "backports_strenum-*.dist-info"),
        ),
        "dependencies of those compilers; the interpreter imports numpy only",
    ),
    Waste(
        "numpy",
        ("numpy/f2py", "numpy/**/tests", "numpy/_core/include", "numpy/**/*.a"),
        "a Fortran bridge, tests, and headers and archives for compilers",
        required=False,
    ),
    Waste(".", ("bin", "**/*.pyi", "**/__pycache__"), "scripts, type stubs, caches", False),
)


def slim(tree: Path) -> int:
    """Remove the waste and return how many bytes that freed.

    Args:
        tree: a directory made by ``pip install --target``.

    Raises:
        FileNotFoundError: a required pattern matches nothing.
    """
    before = size(tree)
    for waste in WASTE:
        if not (tree / waste.owner).is_dir():
            continue
        for pattern in waste.patterns:
            found = list(tree.glob(pattern))
            if waste.required and not found:
                raise FileNotFoundError(
                    f"{pattern} is not in {tree}: {waste.owner} has changed. Look at what the new "
                    f"release holds ({waste.reason}) and correct deploy/image/prune.py."
                )
            for path in found:
                _remove(path)
    return before - size(tree)


def size(tree: Path) -> int:
    """Return the bytes of all files below."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    freed = slim(Path(sys.argv[1]))
    print(f"slim: {freed / 1e6:.0f} MB removed, {size(Path(sys.argv[1])) / 1e6:.0f} MB left")
