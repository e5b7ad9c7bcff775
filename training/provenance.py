"""The record of when, where and from which code a result was made.

``provenance()`` is the one record. Every result file holds it under the key ``provenance``:

    date              UTC, ISO 8601
    commit            short hash, "-dirty" added if files differed, "unknown" without git
    python            version
    packages          name -> version of each installed library that can change a result
    system            name and release of the operating system
    machine           architecture, such as x86_64
    processor         the processor's name
    instruction_sets  those that the processor offers (lambda_function/processor.py)
    cores             number of logical cores
    memory_gib        main memory
    load_average      of the last minute, when the process started to measure

It holds no host name, user name or path, because results are published.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
from typing import Any

from lambda_function import REPOSITORY
from lambda_function.processor import CPU_INFO, instruction_sets

PACKAGES = (
    "numpy", "pillow", "keras", "tensorflow", "jax", "torch", "ai-edge-litert", "tflite-runtime"
)  # fmt: skip
WRITTEN_BY_MEASUREMENTS = ("benchmarks/results", "README.md", "MODEL_CARD.md", "docs")


@functools.cache
def provenance() -> dict[str, Any]:
    """Return the record as plain JSON types.

    The record is made at the first call and kept. Commands call it before they measure, because
    the checked-out commit may change meanwhile.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "packages": _versions(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _cpu_value("model name") or platform.processor() or platform.machine(),
        "instruction_sets": instruction_sets(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3),
        "load_average": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Return the short hash of the checked-out commit, with ``-dirty`` if code differs.

    Files that measurements write are left out. Otherwise the first measurement of a series would
    make the second one dirty. Without git or a repository, as in a training image, the commit is
    ``unknown``.
    """
    hash_ = _git("rev-parse", "--short=7", "HEAD")
    return (hash_ + ("-dirty" if is_dirty() else "")) if hash_ else "unknown"


def is_dirty() -> bool:
    """Tell whether files of the repository differ from the commit, results and pages left out."""
    written = [f":(exclude){path}" for path in WRITTEN_BY_MEASUREMENTS]
    return bool(_git("status", "--porcelain", "--untracked-files=no", "--", ".", *written))


def command(words: str, parsed: argparse.Namespace, **defaults: Any) -> str:
    """Return the command line that makes a result again, without options that name local paths.

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


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    except OSError:  # no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_value(key: str) -> str | None:
    if not CPU_INFO.is_file():  # not Linux
        return None
    lines = (line.partition(":") for line in CPU_INFO.read_text().splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), None)
