"""Figures from the result files: `python -m benchmarks.plots` (needs matplotlib).

Reads benchmarks/results/*.json, writes benchmarks/results/plots/*.svg.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # no display
from matplotlib import pyplot, ticker

from benchmarks.measure import RESULTS

if TYPE_CHECKING:
    from pathlib import Path

# Equal input gives equal bytes.
mpl.rcParams["svg.hashsalt"] = "benchmarks"
OURS_COLOUR, PEER_COLOUR = "#0b6e4f", "#9aa5b1"  # told apart in grey as well
BARS = (
    ("cold_s", "process start to first answer, s"),
    ("warm_s", "warm request, s"),
    ("cpu_s", "processor time a prediction, s"),
    ("peak_mb", "peak memory, MB"),
)
ROWS = (
    ("megapixels", "picture, megapixels"),
    ("batch", "pictures in one request"),
    ("threads", "interpreter threads"),
)


def main() -> None:
    """Draw what has been measured."""
    for name, draw in (("compare", draw_comparison), ("growth", draw_growth)):
        source = RESULTS / f"{name}.json"
        if source.exists():
            print(draw(json.loads(source.read_text()), RESULTS / "plots" / f"{name}.svg"))


def draw_comparison(compared: dict[str, Any], path: Path) -> Path:
    """Draw one bar a peer and measure: medians, whiskers from quartile to quartile."""
    peers = compared["peers"]
    figure, axes = pyplot.subplots(1, len(BARS), figsize=(13, 3.2), sharey=True)
    titles = [peer["title"].replace("*", "") for peer in peers.values()]
    colours = [OURS_COLOUR if name == "ours" else PEER_COLOUR for name in peers]
    for axis, (key, title) in zip(axes, BARS, strict=True):
        found = [peer[key] for peer in peers.values()]
        medians = [item["median"] for item in found]
        below = [item["median"] - item["low"] for item in found]
        above = [item["high"] - item["median"] for item in found]
        axis.barh(titles, medians, xerr=[below, above], color=colours)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()  # the first peer on top
    return _save(figure, path, compared)


def draw_growth(grown: dict[str, Any], path: Path) -> Path:
    """Draw latency above memory, against each thing that grows."""
    figure, axes = pyplot.subplots(2, len(ROWS), figsize=(11, 5), sharex="col")
    for column, (key, title) in enumerate(ROWS):
        at = [point["at"] for point in grown[key]]
        latency, memory = axes[0][column], axes[1][column]
        for axis, values in (
            (latency, [point["elapsed_s"]["median"] for point in grown[key]]),
            (memory, [point["peak_mb"] for point in grown[key]]),
        ):
            axis.plot(at, values, "o-", color=OURS_COLOUR)
            axis.set_ylim(0, 1.1 * max(values))
            axis.spines[["top", "right"]].set_visible(False)
        memory.set_xlabel(title)
    axes[1][-1].xaxis.set_major_locator(ticker.MaxNLocator(integer=True))  # no half threads
    axes[0][0].set_ylabel("warm request, s")
    axes[1][0].set_ylabel("peak memory, MB")
    return _save(figure, path, grown)


def _save(figure: Any, path: Path, result: dict[str, Any]) -> Path:
    hardware = result["hardware"]["cpu"]
    figure.text(0.01, 0.005, f"{result['date']}, commit {result['commit']}, {hardware}", fontsize=7)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


if __name__ == "__main__":
    main()
