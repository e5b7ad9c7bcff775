"""The plot of ``benchmarks.pareto``. Equal input gives equal bytes. Needs Matplotlib."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")  # no display
from matplotlib import pyplot

from benchmarks.report.pareto_table import LANE_NAMES, place_of
from converter.recipes import RECIPES

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

mpl.rcParams["svg.hashsalt"] = "benchmarks"
FRONT_COLOUR = "#0b6e4f"
RECIPE_COLOURS = ("#333333", "#7a5195", "#ef8a17", "#1f77b4", "#0b6e4f", "#c0392b", "#8c6d31")
RUN_MARKERS = "osD^vP*Xh"


def point_styles(rows: Iterable[dict[str, Any]]) -> dict[tuple[str, str], tuple[str, str]]:
    """Return (run, recipe) -> (marker, colour): a marker for each run, a colour for each recipe."""
    runs = dict.fromkeys((row["size"], row["run"]) for row in rows)
    names = [run for _, run in sorted(runs)]
    markers = dict(zip(names, itertools.cycle(RUN_MARKERS), strict=False))
    colours = dict(zip(RECIPES, itertools.cycle(RECIPE_COLOURS), strict=False))
    return {(run, name): (markers[run], colours[name]) for run in markers for name in colours}


def draw_pareto(result: dict[str, Any], folder: Path) -> None:
    """Plot accuracy against time, with intervals and the Pareto front, as SVG."""
    figure, axes = pyplot.subplots(figsize=(10, 5), layout="constrained")
    rows = result["rows"]
    places = [(row, place) for row in rows if (place := place_of(row))]
    styles = point_styles(rows)
    for row, (time_s, accuracy) in places:
        low, high = row["accuracy"]["interval_95"]
        marker, colour = styles[row["run"], row["recipe"]]
        axes.errorbar(
            time_s * 1000,
            accuracy,
            yerr=[[accuracy - low], [high - accuracy]],
            fmt=marker,
            color=colour,
            ecolor="#dddddd",
            markersize=8,
            markeredgecolor="black" if row["on_front"] else colour,
            label=f"{row['run']}, {row['size']} px, {row['recipe']}, {row['bytes'] / 1e6:.0f} MB",
            zorder=3,
        )
    front = sorted(place for row, place in places if row["on_front"])
    axes.step(
        [time_s * 1000 for time_s, _ in front],
        [accuracy for _, accuracy in front],
        where="post",
        color=FRONT_COLOUR,
        linewidth=1.2,
        label="Pareto front",
        zorder=2,
    )
    lane = next(iter(rows[0]["lanes"]))
    origin = result["provenance"]
    axes.set_xlabel("one prediction, ai-edge-litert, 1 thread, ms (median)")
    axes.set_ylabel("validation accuracy, 95 % interval")
    axes.set_xlim(left=0)
    title = f"{origin['date']}, {origin['processor']}, {LANE_NAMES[lane]}"
    axes.set_title(title, fontsize=9, loc="left")
    axes.grid(alpha=0.25)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
    figure.savefig(folder / "pareto.svg", metadata={"Date": None})
    pyplot.close(figure)
