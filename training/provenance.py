"""What a result depends on beside its configuration: date, commit, versions, machine.

No host name, user name or path: results are published.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    "numpy", "pillow", "keras", "tensorflow", "jax", "torch", "ai-edge-litert", "tflite-runtime"
)  # fmt: skip
_CPU_INFO = Path("/proc/cpuinfo")
_MEMORY_INFO = Path("/proc/meminfo")


def today() -> str:
    """Return today's date, UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def commit() -> str:
    """Return the short hash of the checked-out commit, ``-dirty`` added where files differ."""
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    done = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def provenance() -> dict[str, Any]:
    """Return plain JSON types: date, commit, versions of what is installed, hardware."""
    return {
        "date": today(),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "processor": _first_value(_CPU_INFO, "model name") or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
    }


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
