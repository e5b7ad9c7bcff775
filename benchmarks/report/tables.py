"""The comparison with the baselines as Markdown: one row a measure, one column a handler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.masking import AVX2, MACHINE
from training.evaluation.metrics import wilson_interval
from training.files import markdown_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Row = tuple[str, Callable[[dict[str, Any]], str]]

LANE_TITLES = {
    AVX2: "AVX2, the instruction sets of Lambda's x86_64",
    MACHINE: "the instruction sets of the machine",
}


def comparison_table(
    compared: dict[str, Any],
    lane: str,
    accuracy: dict[str, Any] | None = None,
    *,
    rows: Sequence[Row] | None = None,
) -> str:
    """Return the table of one lane.

    Args:
        compared: a ``compare`` result, with its "handlers".
        lane: whose figures.
        accuracy: an ``accuracy`` result, with its "handlers". None leaves the row out.
        rows: titles and cells. All by default.
    """
    handlers = compared["handlers"][lane]
    columns = ["", *(f"{figures['title']}:" for figures in handlers.values())]
    lines = [[title, *map(cell, handlers.values())] for title, cell in rows or ROWS]
    if accuracy:
        scored = accuracy["handlers"]
        cells = [_accuracy(scored[name]) if name in scored else "" for name in handlers]
        lines.append(["accuracy, test split (95 % interval)", *cells])
    return markdown_table(columns, lines).rstrip()


def lambda_lane_of(compared: dict[str, Any]) -> str:
    """Return the lane of a ``compare`` result that is nearest to Lambda."""
    return str(next(iter(compared["handlers"])))


def instruction_sets_of(origin: dict[str, Any], lane: str | None = None) -> str:
    """Return the instruction sets that a provenance record names, as text."""
    recorded = origin.get("instruction_sets")
    if isinstance(recorded, dict):
        chosen = {lane: recorded[lane]} if lane else recorded
        return "; ".join(f"{name}: {' '.join(sets)}" for name, sets in chosen.items())
    return " ".join(recorded) if recorded else "not recorded"


def commit_of(origin: dict[str, Any], digits: int = 7) -> str:
    """Return the commit that a provenance record names, as Markdown."""
    commit, dirty, _ = origin["commit"].partition("-dirty")
    return f"`{commit[:digits]}`" + (" with uncommitted changes" if dirty else "")


def note(compared: dict[str, Any]) -> str:
    """Return the sentences that say where and when the tables were measured."""
    origin = compared["provenance"]
    versions = sorted(
        {
            f"{package} {version}"
            for handlers in compared["handlers"].values()
            for figures in handlers.values()
            for package, version in figures["versions"].items()
        }
    )
    return (
        f"Measured {origin['date']} at commit {commit_of(origin, digits=12)} on "
        f"{origin['processor']}, one core per handler, {compared['memory_mb']:,} MB, "
        f"{compared['rounds']} interleaved rounds. Medians with quartiles, in brackets the ratio "
        f"to the course handler at 299 px. Prices: AWS list, {compared['prices']['region']}, "
        f"{compared['prices']['date']}, arm64 at the duration measured here. "
        f"Versions: {', '.join(versions)}. `python -m benchmarks compare --write` measures again, "
        "with models that `python -m benchmarks models` writes from the restored release."
    )


def _accuracy(scored: dict[str, Any]) -> str:
    low, high = wilson_interval(scored["correct"], scored["total"])  # the file's is rounded
    return f"{scored['accuracy']:.4f} ({low:.3f}-{high:.3f})"


def _ratio(figures: dict[str, Any], key: str) -> str:
    ratio = figures.get("ratio", {}).get(key)
    return "" if ratio is None else f" [{ratio:.2f}]"


def _seconds(key: str) -> Callable[[dict[str, Any]], str]:
    def cell(figures: dict[str, Any]) -> str:
        value = figures[key]
        spread = f"{value['median']:.3f} s ({value['low']:.3f}-{value['high']:.3f})"
        return spread + _ratio(figures, key)

    return cell


def _median(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda figures: f"{figures[key]['median']:.3f} s{_ratio(figures, key)}"


def _megabytes(key: str, digits: int) -> Callable[[dict[str, Any]], str]:
    return lambda figures: f"{figures[key]:.{digits}f} MB{_ratio(figures, key)}"


def _usd(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda figures: (
        f"${figures[key]['x86_64']:.2f} / ${figures[key]['arm64']:.2f}{_ratio(figures, key)}"
    )


_MEMORY: Row = (
    "peak memory after 20 requests",
    lambda figures: f"{figures['peak_mb']['median']:.0f} MB{_ratio(figures, 'peak_mb')}",
)
_FILE: Row = ("model file", _megabytes("artifact_mb", 1))
_RATE: Row = (
    "images a second, image servers taking 200 ms",
    lambda figures: (
        f"{figures['slow_images_per_s']['median']:.1f}{_ratio(figures, 'slow_images_per_s')}"
    ),
)
_PRICE: Row = ("a million predictions, Lambda alone, x86 / arm64", _usd("usd_per_million"))
ROWS: list[Row] = [
    ("process start to first response", _seconds("cold_s")),
    ("warm request, median", _seconds("warm_s")),
    (
        "warm request, 95th percentile",
        lambda figures: f"{figures['warm_s']['p95']:.3f} s{_ratio(figures, 'warm_p95_s')}",
    ),
    ("processor time a prediction", _seconds("cpu_s")),
    _MEMORY,
    _FILE,
    ("dependencies, installed", _megabytes("installed_mb", 0)),
    _RATE,
    _PRICE,
    ("the same from image servers taking 200 ms", _usd("usd_per_million_slow")),
]
README_ROWS: list[Row] = [
    ("process start to first response", _median("cold_s")),
    ("warm request", _median("warm_s")),
    _MEMORY,
    _FILE,
    _RATE,
    _PRICE,
]
