"""The comparison with the baselines as Markdown: one row a measure, one column a handler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from benchmarks.baselines import COURSE
from benchmarks.masking import AVX2, MACHINE
from training.evaluation.metrics import wilson_interval
from training.files import markdown_table

Pick = Callable[[dict[str, Any]], float]  # of a handler's figures
Show = Callable[[dict[str, Any]], str]
LANE_TITLES = {
    AVX2: "AVX2, the instruction sets of Lambda's x86_64",
    MACHINE: "the instruction sets of the machine",
}


class Row(NamedTuple):
    """One measure of the table.

    Attributes:
        title: of the row.
        value: of a handler, for the ratio to the course handler.
        text: format of the value, or what else the cell shows.
    """

    title: str
    value: Pick
    text: str | Show

    def cell(self, figures: dict[str, Any], base: dict[str, Any] | None) -> str:
        """Return a handler's cell, with the ratio to ``base`` if there is one."""
        value, text = self.value(figures), self.text
        shown = text.format(value) if isinstance(text, str) else text(figures)
        return f"{shown} [{value / self.value(base):.2f}]" if base else shown


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
        rows: measures. All by default.
    """
    handlers = compared["handlers"][lane]
    columns = ["", *(f"{figures['title']}:" for figures in handlers.values())]
    base = handlers.get(COURSE.name)
    lines = [
        [row.title, *(row.cell(figures, base) for figures in handlers.values())]
        for row in rows or ROWS
    ]
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


def _median(key: str) -> Pick:
    return lambda figures: float(figures[key]["median"])


def _number(key: str) -> Pick:
    return lambda figures: float(figures[key])


def _with_quartiles(key: str) -> Show:
    return lambda figures: "{median:.3f} s ({low:.3f}-{high:.3f})".format(**figures[key])


def _usd(title: str, key: str) -> Row:
    return Row(
        title,
        lambda figures: float(figures[key]["x86_64"]),
        lambda figures: "${x86_64:.2f} / ${arm64:.2f}".format(**figures[key]),
    )


_COLD, _WARM, _CPU = _median("cold_s"), _median("warm_s"), _median("cpu_s")
_MEMORY = Row("peak memory after 20 requests", _median("peak_mb"), "{:.0f} MB")
_FILE = Row("model file", _number("artifact_mb"), "{:.1f} MB")
_RATE = Row("images a second, image servers taking 200 ms", _median("slow_images_per_s"), "{:.1f}")
_PRICE = _usd("a million predictions, Lambda alone, x86 / arm64", "usd_per_million")
ROWS = [
    Row("process start to first response", _COLD, _with_quartiles("cold_s")),
    Row("warm request, median", _WARM, _with_quartiles("warm_s")),
    Row(
        "warm request, 95th percentile", lambda figures: float(figures["warm_s"]["p95"]), "{:.3f} s"
    ),
    Row("processor time a prediction", _CPU, _with_quartiles("cpu_s")),
    _MEMORY,
    _FILE,
    Row("dependencies, installed", _number("installed_mb"), "{:.0f} MB"),
    _RATE,
    _PRICE,
    _usd("the same from image servers taking 200 ms", "usd_per_million_slow"),
]
README_ROWS = [
    Row("process start to first response", _COLD, "{:.3f} s"),
    Row("warm request", _WARM, "{:.3f} s"),
    _MEMORY,
    _FILE,
    _RATE,
    _PRICE,
]
