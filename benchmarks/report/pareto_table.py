"""The table of converted models (``benchmarks.pareto``) and which are on the Pareto front."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from training.files import markdown_table

if TYPE_CHECKING:
    from collections.abc import Iterable

LITERT, TFLITE_RUNTIME = "ai-edge-litert", "tflite-runtime"
# Times nearer than this are equal. int8 and int8_float_head, whose arithmetic differs by a
# thousandth, came out in either order by median and by fastest run (November 2026).
TIME_RESOLUTION = 0.02
LANE_NAMES = {"avx2": "AVX2, as on Lambda", "machine": "the machine's instruction sets"}
HEADS = (
    "model",
    "recipe",
    "MB:",
    "validation accuracy [95 %]:",
    "same label as float32 (mean difference):",
    "load, s:",
    "1 thread, ms:",
    "2 threads, ms:",
    "resident, MB:",
    "tflite-runtime, 1 thread, ms:",
)


def to_table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lanes = list(result["rows"][0]["lanes"])
    origin = result["provenance"]
    heads = [*HEADS, *(f"1 thread, {LANE_NAMES[lane]}, ms:" for lane in lanes[1:])]
    lines = [
        "# Recipes by size, speed and accuracy",
        "",
        f"{origin['date']}, commit {origin['commit']}, {origin['processor']}, "
        f"{origin['cores']} cores, {origin['memory_gib']} GiB. Times with "
        f"{LANE_NAMES[lanes[0]]}. `python -m benchmarks pareto FILES --write` writes this file. "
        "Points on the Pareto front of accuracy and time (ai-edge-litert, 1 thread) are bold. "
        f"Times within {TIME_RESOLUTION:.0%} count as equal.",
        "",
    ]
    table = markdown_table(heads, (_cells(row) for row in result["rows"]))
    return "\n".join([*lines, table])


def is_on_front(point: tuple[float, float], points: Iterable[tuple[float, float]]) -> bool:
    """Return whether no other (time, accuracy) is better, as far as times can be told apart."""
    time_s, accuracy = point
    return not any(
        (other >= accuracy and other_s < time_s * (1 - TIME_RESOLUTION))
        or (other > accuracy and other_s <= time_s * (1 + TIME_RESOLUTION))
        for other_s, other in points
    )


def mark_front(rows: list[dict[str, Any]]) -> None:
    """Set ``on_front`` of every row."""
    places = [place for row in rows if (place := place_of(row))]
    for row in rows:
        place = place_of(row)
        row["on_front"] = place is not None and is_on_front(place, places)


def place_of(row: dict[str, Any]) -> tuple[float, float] | None:
    """Return (seconds on one thread, accuracy) in the first lane. None if it cannot be loaded."""
    measured = next(iter(row["lanes"].values()))[LITERT]["1"]
    if "median_s" not in measured:
        return None
    return measured["median_s"], row["accuracy"]["accuracy"]


def _cells(row: dict[str, Any]) -> list[str]:
    lane, *others = row["lanes"].values()
    one, two = lane[LITERT]["1"], lane[LITERT]["2"]
    accuracy = row["accuracy"]
    low, high = accuracy["interval_95"]
    cells = [
        f"{row['run']}, {row['size']} px",
        row["recipe"],
        f"{row['bytes'] / 1e6:.1f}",
        f"{accuracy['accuracy']:.4f} [{low:.3f}, {high:.3f}]",
        _nearness(accuracy),
        _cell(one, "load_s", 1, 2),
        _cell(one, "median_s", 1000, 0),
        _cell(two, "median_s", 1000, 0),
        _cell(one, "resident_mb", 1, 0),
        _cell(lane[TFLITE_RUNTIME]["1"], "median_s", 1000, 0),
        *(_cell(other[LITERT]["1"], "median_s", 1000, 0) for other in others),
    ]
    if row["on_front"]:
        cells = [f"**{cell}**" if cell else "" for cell in cells]
    return cells


def _nearness(accuracy: dict[str, Any]) -> str:
    if "agreement_with_float32" not in accuracy:
        return ""
    difference = accuracy["mean_difference_from_float32"]
    return f"{accuracy['agreement_with_float32']:.4f} ({difference:.4f})"


def _cell(measured: dict[str, Any], name: str, factor: float, digits: int) -> str:
    if "error" in measured:
        return f"cannot load: {measured['error']}".replace("|", "/")
    value = measured[name]
    return "" if value is None else f"{value * factor:.{digits}f}"
