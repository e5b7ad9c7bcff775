"""Remove from an installed tree the files that the function never loads: `python prune.py TREE`.

The Dockerfile runs this after pip. The list comes from ``sys.modules`` and ``/proc/self/maps`` of a
process that had answered a request. The container tests run the result. A required pattern must
match, so a new release that renames its parts fails the build.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import NamedTuple


class UnusedFiles(NamedTuple):
    """Files that the function does not need.

    Attributes:
        owner: a directory of the tree. Without it the patterns do not apply.
        patterns: below the tree.
        reason: why the function works without them.
        required: whether each pattern must match something.
    """

    owner: str
    patterns: tuple[str, ...]
    reason: str
    required: bool = True


UNUSED_FILES = (
    UnusedFiles(
        "ai_edge_litert",
        ("ai_edge_litert/libLiteRtWebGpuAccelerator.so",),
        "the GPU delegate has 19 MB, and Lambda has no GPU",
        required=False,  # not in every platform's wheel
    ),
    UnusedFiles(
        "ai_edge_litert",
        ("ai_edge_litert/libLiteRt.so",),
        "CompiledModel's runtime has 8 MB, and the package loads it at import if it exists. "
        "The interpreter is linked against libpywrap_litert_common.so alone",
    ),
    UnusedFiles(
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
        "compilers for phones' accelerators and the converter do not belong to the interpreter",
    ),
    UnusedFiles(
        "ai_edge_litert",
        (
            *("flatbuffers", "flatbuffers-*.dist-info"),
            *("ml_dtypes", "ml_dtypes-*.dist-info"),
            *("google", "protobuf-*.dist-info"),
            *("tqdm", "tqdm-*.dist-info"),
            *("backports", "backports_strenum-*.dist-info"),
        ),
        "those compilers depend on them, and the interpreter imports numpy only",
    ),
    UnusedFiles(
        "numpy",
        ("numpy/f2py", "numpy/**/tests", "numpy/_core/include", "numpy/**/*.a"),
        "a Fortran bridge, tests, and headers and archives for compilers",
        required=False,
    ),
    UnusedFiles(".", ("bin", "**/*.pyi", "**/__pycache__"), "scripts, type stubs, caches", False),
)


def prune(tree: Path) -> int:
    """Remove the unused files and return how many bytes that freed.

    Args:
        tree: a directory made by ``pip install --target``.

    Raises:
        FileNotFoundError: a required pattern matches nothing.
    """
    before = size_bytes(tree)
    for unused in UNUSED_FILES:
        if not (tree / unused.owner).is_dir():
            continue
        for pattern in unused.patterns:
            paths = list(tree.glob(pattern))
            if unused.required and not paths:
                raise FileNotFoundError(
                    f"{pattern} is not in {tree}: {unused.owner} has changed. Look at the files of "
                    f"the new release ({unused.reason}) and correct deploy/image/prune.py."
                )
            for path in paths:
                _remove(path)
    return before - size_bytes(tree)


def size_bytes(tree: Path) -> int:
    """Return the size of all files in a tree."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    freed = prune(Path(sys.argv[1]))
    print(f"prune: {freed / 1e6:.0f} MB removed, {size_bytes(Path(sys.argv[1])) / 1e6:.0f} MB left")
