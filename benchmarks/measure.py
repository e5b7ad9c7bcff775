"""What all benchmarks share: statistics, the description of this machine, result files.

A figure is worth nothing without where and when it was measured, so every result file holds
date, commit, hardware and versions; and no single number stands alone: medians come with the
quartiles and the number of measurements.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lambda_function import REPOSITORY
from training.files import write_json
from training.provenance import commit, is_dirty

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = REPOSITORY / "benchmarks" / "results"


@dataclasses.dataclass(frozen=True)
class Summary:
    """A measured quantity.

    Attributes:
        median: of all measurements.
        low: the first quartile.
        high: the third quartile.
        p95: the 95th percentile; with few measurements, close to the largest.
        count: number of measurements.
    """

    median: float
    low: float
    high: float
    p95: float
    count: int


def summarise(values: Iterable[float]) -> Summary:
    """Reduce measurements to median, quartiles and 95th percentile.

    Percentiles are interpolated linearly between the sorted measurements, as NumPy does.

    Raises:
        ValueError: there is no measurement.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no measurement to summarise")
    return Summary(
        median=statistics.median(ordered),
        low=_percentile(ordered, 25),
        high=_percentile(ordered, 75),
        p95=_percentile(ordered, 95),
        count=len(ordered),
    )


def surroundings() -> dict[str, Any]:
    """Describe when, where and from which commit a measurement was made."""
    load = os.getloadavg()[0]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit().removesuffix("-dirty"),
        "uncommitted_changes": is_dirty(),
        "hardware": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "memory_gib": round(_memory_bytes() / 1024**3, 1),
            "machine": platform.machine(),
        },
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_before": round(load, 2),
    }


def at_least_one(text: str) -> int:
    """Read a number of rounds, requests or epochs from a command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on. Received: {text}")
    return int(text)


def write_result(name: str, measured: dict[str, Any], *, folder: Path = RESULTS) -> Path:
    """Write one benchmark's result with its surroundings; return the file."""
    path = folder / f"{name}.json"
    write_json(path, _plain(measured))
    return path


def _percentile(ordered: Sequence[float], percent: float) -> float:
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def _plain(value: Any) -> Any:
    """Turn dataclasses into dictionaries and round: four digits are more than we can measure."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
