"""The benchmark's pages, written from the result files.

    python -m benchmarks report            prints them
    python -m benchmarks report --write    writes the short table into README.md, between the
                                           markers, and benchmarks/results/README.md: all rows and
                                           lanes, further measurements, the index of all results

A test compares both pages with the result files.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import HANDLERS
from benchmarks.harness import RESULTS, command_line
from benchmarks.report.tables import (
    LANE_TITLES,
    README_ROWS,
    commit_of,
    comparison_table,
    instruction_sets_of,
    lambda_lane_of,
    note,
)
from lambda_function import REPOSITORY
from training.files import markdown_table, read_json, replace_marked, write_text

if TYPE_CHECKING:
    from collections.abc import Callable

README = REPOSITORY / "README.md"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"
TAG = "before-simplification"
INTRODUCTION = (
    "Written by `python -m benchmarks report --write`. Figures are ratios of one run where they "
    "can be: other machines, and this one at other hours, have other times."
)
REMARKS = (
    "`dependencies` is ours after `deploy/image/prune.py`, theirs as installed. "
    "`python -m benchmarks image-size` counts whole images. From slow image servers, ours fetches "
    "the images of a batch of 16 side by side. The others take one at a time. Accuracy is of each "
    "as shipped: the baselines' columns have the course's recipe, trained here."
)

SOURCES: dict[str, dict[str, Any]] = tomllib.loads(
    Path(__file__).with_name("sources.toml").read_text(encoding="utf-8")
)


def main(arguments: list[str]) -> None:
    """Print the pages, or write them."""
    parser = command_line("report", __doc__)
    parser.add_argument("--write", action="store_true", help="README.md and results/README.md")
    options = parser.parse_args(arguments)
    block, page = readme_block(RESULTS), results_page(RESULTS)  # both, before either is written
    if options.write:
        write_text(README, replace_marked(README.read_text(), (BEGIN, END), block))
        write_text(RESULTS / "README.md", page)
    else:
        print(f"{block}\n\n{page}")


def readme_block(results: Path) -> str:
    """Return what stands between README.md's markers: the rows that decide a choice.

    Args:
        results: folder with ``compare.json`` and, where it exists, ``accuracy.json``.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    compared = _read(results / "compare.json")
    lane = lambda_lane_of(compared)
    as_published = {handler.name for handler in HANDLERS}  # not at our model's size
    shown = {n: f for n, f in compared["handlers"][lane].items() if n in as_published}
    few = comparison_table(
        {**compared, "handlers": {lane: shown}},
        lane,
        _optional(results / "accuracy.json"),
        rows=README_ROWS,
    )
    origin = compared["provenance"]
    where = (
        f"Medians of one run on {origin['date']} at commit {commit_of(origin)}, "
        f"{origin['processor']} with {LANE_TITLES[lane]} ({instruction_sets_of(origin, lane)}), "
        f"one core and {compared['memory_mb']:,} MB a handler. In brackets: the ratio to the "
        "course handler. [All rows, quartiles, versions and further measurements]"
        "(benchmarks/results/README.md). `python -m benchmarks all` measures again, and "
        "`python -m benchmarks accuracy` the last row."
    )
    return f"{few}\n\n{where}"


def results_page(results: Path) -> str:
    """Return benchmarks/results/README.md.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    compared = _read(results / "compare.json")
    accuracy = _optional(results / "accuracy.json")
    lines = ["# Results", "", INTRODUCTION, "", "## Beside the baselines"]
    for number, lane in enumerate(compared["handlers"]):
        sets = instruction_sets_of(compared["provenance"], lane)
        title = f"With {LANE_TITLES[lane]} ({sets}):"
        table = comparison_table(compared, lane, accuracy if number == 0 else None)
        lines += ["", title, "", table]
    lines += ["", note(compared), "", REMARKS]
    return "\n".join([*lines, *further(results), "", "## Files", "", index(results)])


def further(results: Path) -> list[str]:
    """Return one line for each further measurement that was made."""
    measured = [(name, _optional(results / f"{name}.json"), line) for name, line in FURTHER.items()]
    lines = [
        f"- {line(result)} ({_command_of(name, result)}, commit "
        f"{commit_of(result['provenance'])}, instruction sets "
        f"{instruction_sets_of(result['provenance'])})"
        for name, result, line in measured
        if result
    ]
    return ["", *lines] if lines else []


def index(results: Path) -> str:
    """Return the index of a folder of results as Markdown: one line a result file.

    Raises:
        KeyError: it is not known what writes a file.
    """
    heads = ["file", "answers", "command", "measured", "commit", "on", "instruction sets"]
    files = sorted(results.glob("*.json"))
    answered = [_cells(path) for path in files if SOURCES[path.stem].get("deleted")]
    kept = [_cells(path) for path in files if not SOURCES[path.stem].get("deleted")]
    lines = [markdown_table(heads, kept).rstrip()]
    if answered:
        lines += [
            "",
            "Answered questions. Their code is deleted: the commands are those of the tag "
            f"`{TAG}`, or of the commit beside them if it is later. "
            "[docs/experiments.md](../../docs/experiments.md) says what came out.",
            "",
            markdown_table(heads, answered).rstrip(),
        ]
    lines += [
        "",
        "`test_log.csv`: every first scoring of an artifact on test. `course/`: the steps of "
        "README's 'Follow the course' (`make steps ARGS='--results benchmarks/results/course'`).",
    ]
    return "\n".join(lines) + "\n"


def _cells(path: Path) -> list[str]:
    result = _read(path)
    origin = result["provenance"]
    return [
        f"[{path.stem}]({path.name})",
        SOURCES[path.stem]["answers"],
        _command_of(path.stem, result),
        origin["date"],
        commit_of(origin),
        f"{origin['processor']}, {origin['cores']} cores",
        instruction_sets_of(origin),
    ]


def _command_of(name: str, result: dict[str, Any]) -> str:
    return f"`{result.get('command', SOURCES[name]['command'])}`"


def _overhead(overhead: dict[str, Any]) -> str:
    median_ms = overhead["handler_ms"]["median"]
    return f"Around inference (routing, JSON, logging): {median_ms:.2f} ms."


def _batch(batch: dict[str, Any]) -> str:
    return (
        "A batch of 16 images from servers taking 200 ms: the first download, and "
        f"{batch['ratio']['median']:.2f} times the bare work of 16 (bar: {batch['bar']})."
    )


def _scaling(scaling: dict[str, Any]) -> str:
    units = {"megapixels": "megapixels", "batch": "images a request", "threads": "threads"}
    parts = [_from_to(scaling[name], unit) for name, unit in units.items()]
    return f"Scaling: {'. '.join(parts)}."


def _from_to(points: list[dict[str, Any]], unit: str) -> str:
    first, last = points[0], points[-1]
    return (
        f"{first['at']:g} -> {last['at']:g} {unit} {first['elapsed_s']['median']:.3f} -> "
        f"{last['elapsed_s']['median']:.3f} s, {first['peak_mb']:.0f} -> {last['peak_mb']:.0f} MB"
    )


def _startup(startup: dict[str, Any]) -> str:
    steps = [f"{n} {times['elapsed_ms']['median']:.0f}" for n, times in startup["starts"].items()]
    return f"Milliseconds from process start to the end of each step: {', '.join(steps)}."


def _soak(soak: dict[str, Any]) -> str:
    return (
        f"Soak: {soak['requests']:,} mixed requests, {soak['statuses'].get('500', 0)} with "
        f"status 500, memory {soak['resident_after_warm_up_mb']:.0f} -> "
        f"{soak['resident_at_end_mb']:.0f} MB, open files "
        f"{soak['open_files_after_warm_up']} -> {soak['open_files_at_end']}."
    )


FURTHER: dict[str, Callable[[dict[str, Any]], str]] = {
    "overhead": _overhead,
    "batch": _batch,
    "scaling": _scaling,
    "startup": _startup,
    "soak": _soak,
}


def _read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = read_json(path)
    return result


def _optional(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.exists() else None
