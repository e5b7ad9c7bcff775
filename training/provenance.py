"""What a result depends on beside its configuration: date, commit, versions, machine.

No host name, user name or path: results are published.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from lambda_function import REPOSITORY

PACKAGES = (
    "numpy", "pillow", "keras", "tensorflow", "jax", "torch", "ai-edge-litert", "tflite-runtime"
)  # fmt: skip
WRITTEN_BY_MEASUREMENTS = (
    "benchmarks/results",
    "README.md",
    "MODEL_CARD.md",
    "docs/deploy-reference.md",
)
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")


def today() -> str:
    """Return today's date, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """Return the short hash of the checked-out commit, ``-dirty`` added where code differs.

    Files that measurements write are left out: the second of a series would else be dirty by the
    first. ``unknown`` without git or a repository, as in a training image.
    """
    found = _git("rev-parse", "--short=7", "HEAD")
    return (found + ("-dirty" if is_dirty() else "")) if found else "unknown"


def is_dirty() -> bool:
    """Tell whether files of the repository differ from the commit, results and pages left out."""
    written = [f":(exclude){path}" for path in WRITTEN_BY_MEASUREMENTS]
    return bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *written))


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def provenance() -> dict[str, Any]:
    """Return plain JSON types: date, commit, versions of what is installed, hardware.

    As they are when a process first asks, which the commands do before they measure: a commit that
    somebody makes meanwhile is not what was measured.
    """
    return {
        "date": today(),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "processor": _first_value(_CPU_INFO, "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


def command(words: str, parsed: argparse.Namespace, **defaults: Any) -> str:
    """Return what was asked for, without what the machine decides: a result file names it.

    Args:
        words: the command and its arguments.
        parsed: its command line.
        defaults: the options that decide a result, with their defaults.
    """
    given = {
        name: getattr(parsed, name)
        for name, value in defaults.items()
        if getattr(parsed, name) != value
    }
    options = [f"--{name.replace('_', '-')} {value}" for name, value in given.items()]
    return " ".join([words, *options])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _memory_gib() -> int | None:
    value = _first_value(_MEMORY_INFO, "MemTotal")
    return round(int(value.split()[0]) / 1024**2) if value else None


def _first_value(file: Path, key: str) -> str | None:
    if not file.is_file():  # not Linux
        return None
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)
