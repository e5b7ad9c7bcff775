"""The benchmark's tables, made from the result files: on the terminal and in the READMEs.

    python -m benchmarks.table            prints them
    python -m benchmarks.table --write    puts the short one into README.md, between the markers,
                                          and writes benchmarks/results/README.md: the whole one,
                                          further measurements, and the index of all results

``tests/benchmarks/test_benchmarks.py`` holds that both pages show what the result files say.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.baselines import PEERS
from benchmarks.index import command_of, commit_of, index
from benchmarks.measure import REPOSITORY, RESULTS
from training.evaluation.metrics import wilson_interval
from training.files import replace_marked, write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

REMARKS = (
    "`dependencies` is ours after `deploy/image/prune.py`, theirs as installed; "
    "`make image-size` counts whole images. From slow image servers, ours fetches the pictures of "
    "a batch of 16 side by side; the others take one at a time. Accuracy is of each as shipped: "
    "the peers' columns have the course's recipe, trained here."
)
PLOT = "![Start, warm request, processor time and memory of all six](plots/compare.svg)"
INTRODUCTION = (
    "Written by `python -m benchmarks.table --write`. Figures are ratios of one run where they can "
    "be: other machines, and this one at other hours, have other times."
)
FEW_TITLES = (
    "peak memory after 20 requests",
    "model file",
    "pictures a second, image servers taking 200 ms",
    "a million predictions, x86 / arm64",
)
README = REPOSITORY / "README.md"
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


def main() -> None:
    """Print the table, or put it into the README."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.table", description=main.__doc__)
    parser.add_argument("--write", action="store_true", help="into README.md and results/README.md")
    arguments = parser.parse_args()
    block, page = readme_block(RESULTS), results_page(RESULTS)  # both, before either is written
    if arguments.write:
        write_text(README, replace_marked(README.read_text(), (BEGIN, END), block))
        write_text(RESULTS / "README.md", page)
    else:
        print(f"{block}\n\n{page}")


def readme_block(results: Path) -> str:
    """Return what stands between README.md's markers: the rows and peers that decide a choice.

    Args:
        results: folder with ``compare.json`` and, where it exists, ``accuracy.json``.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    compared = json.loads((results / "compare.json").read_text())
    as_published = {peer.name for peer in PEERS}  # not at our model's size
    shown = {name: peer for name, peer in compared["peers"].items() if name in as_published}
    few = comparison_table(
        {**compared, "peers": shown}, _optional(results / "accuracy.json"), rows=FEW_ROWS
    )
    where = (
        f"Medians of one run on {compared['date']} at commit {commit_of(compared)}, "
        f"{compared['hardware']['cpu']}, one core and {compared['memory_mb']:,} MB a handler; in "
        "brackets the ratio to the course handler. [All rows, quartiles, versions and further "
        "measurements](benchmarks/results/README.md); `make benchmark` measures again."
    )
    return f"{few}\n\n{where}"


def results_page(results: Path) -> str:
    """Return benchmarks/results/README.md: the whole table, further measurements, the index.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    compared = json.loads((results / "compare.json").read_text())
    whole = comparison_table(compared, _optional(results / "accuracy.json"))
    lines = [
        "# Results",
        "",
        INTRODUCTION,
        "",
        "## Beside its peers",
        "",
        whole,
        "",
        note(compared),
    ]
    lines += ["", REMARKS, "", PLOT]
    return "\n".join([*lines, *further(results), "", "## Files", "", index(results)])


def current_block(text: str) -> str | None:
    """Return what is between the markers now, or None where there are none."""
    rest = text.partition(BEGIN)[2]
    block, end, _ = rest.partition(END)
    return block.strip("\n") if end else None


def comparison_table(
    compared: dict[str, Any],
    accuracy: dict[str, Any] | None = None,
    *,
    rows: Sequence[tuple[str, Callable[[dict[str, Any]], str]]] | None = None,
) -> str:
    """Return the Markdown table: one row a measure, one column a peer.

    Args:
        compared: a ``compare`` result, with its "peers".
        accuracy: an ``accuracy`` result, with its "peers"; None leaves the row out.
        rows: titles and cells; default: all.
    """
    peers = compared["peers"]
    names = list(peers)
    lines = [["", *(peers[name]["title"] for name in names)]]
    lines.append(["---"] + ["---:"] * len(names))
    lines += [[title, *(cell(peers[name]) for name in names)] for title, cell in rows or ROWS]
    if accuracy:
        scored = accuracy["peers"]
        cells = [_accuracy(scored[name]) if name in scored else "" for name in names]
        lines.append(["accuracy, test split (95 % interval)", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def note(compared: dict[str, Any]) -> str:
    """Return the sentence that says where and when the table was measured."""
    hardware = compared["hardware"]
    versions = sorted(
        {f"{k} {v}" for p in compared["peers"].values() for k, v in p["versions"].items()}
    )
    return (
        f"Measured {compared['date']} at commit {commit_of(compared, digits=12)} on "
        f"{hardware['cpu']}, one core per handler, {compared['memory_mb']:,} MB; "
        f"{compared['rounds']} interleaved rounds, medians with quartiles, in brackets the ratio "
        f"to the course handler at 299 px. Prices: AWS list, {compared['prices']['region']}, "
        f"{compared['prices']['date']}; arm64 at the duration measured here. "
        f"Versions: {', '.join(versions)}. `make benchmark` measures it again, with models "
        "that `make benchmark-models` builds from the restored release."
    )


def further(results: Path) -> list[str]:
    """Return one line for each further measurement that was made."""
    found = [(name, _optional(results / f"{name}.json"), line) for name, line in FURTHER.items()]
    lines = [
        f"- {line(result)} ({command_of(name, result)}; commit {commit_of(result)})"
        for name, result, line in found
        if result
    ]
    return ["", *lines] if lines else []


def _limit(limit: dict[str, Any]) -> str:
    parts = [
        f"{name}: {model['gmacs_per_s']:.0f} G multiply-adds/s ({model['of_peak']:.0%} of this "
        f"core's float32 peak)"
        for name, model in limit["models"].items()
    ]
    return (
        f"Distance to the limit of one core: {'; '.join(parts)}. "
        "An int8 instruction does more at once than a float32 one."
    )


def _overhead(overhead: dict[str, Any]) -> str:
    median_ms = overhead["handler_ms"]["median"]
    return f"Around inference (routing, JSON, logging): {median_ms:.2f} ms."


def _batch(batch: dict[str, Any]) -> str:
    return (
        "A batch of 16 pictures from servers taking 200 ms: the first download, and "
        f"{batch['ratio']['median']:.2f} times the bare work of 16 (bar: {batch['bar']})."
    )


def _growth(growth: dict[str, Any]) -> str:
    units = {"megapixels": "megapixels", "batch": "pictures a request", "threads": "threads"}
    return f"Growth: {'; '.join(_from_to(growth[name], unit) for name, unit in units.items())}."


def _from_to(points: list[dict[str, Any]], unit: str) -> str:
    first, last = points[0], points[-1]
    return (
        f"{first['at']:g} -> {last['at']:g} {unit} {first['elapsed_s']['median']:.3f} -> "
        f"{last['elapsed_s']['median']:.3f} s, {first['peak_mb']:.0f} -> {last['peak_mb']:.0f} MB"
    )


def _large_photos(large: dict[str, Any]) -> str:
    jpeg, progressive = (large["time"][name]["ratio"] for name in ("JPEG", "progressive JPEG"))
    return (
        f"A 24-megapixel photo, bytes to tensor: {jpeg:.2f} of decoding it whole "
        f"(progressive: {progressive:.2f})."
    )


def _tuning(tuning: dict[str, Any]) -> str:
    epochs = len(tuning["notebook_epoch_seconds"])
    return (
        f"The course's eleven tuning trials: {tuning['our_seconds']:.0f} s, "
        f"1/{tuning['ratio']:.0f} of the notebook's way ({epochs} epochs measured, scaled to 190)."
    )


def _soak(soak: dict[str, Any]) -> str:
    return (
        f"Soak: {soak['requests']:,} mixed requests, {soak['statuses'].get('500', 0)} with "
        f"status 500, memory {soak['resident_after_warm_up_mb']:.0f} -> "
        f"{soak['resident_at_end_mb']:.0f} MB, open files "
        f"{soak['open_files_after_warm_up']} -> {soak['open_files_at_end']}."
    )


FURTHER: dict[str, Callable[[dict[str, Any]], str]] = {
    "limit": _limit,
    "overhead": _overhead,
    "batch": _batch,
    "growth": _growth,
    "large_photos": _large_photos,
    "tuning_speed": _tuning,
    "soak": _soak,
}


def _optional(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _seconds(key: str) -> Any:
    def cell(figure: dict[str, Any]) -> str:
        value = figure[key]
        spread = f"{value['median']:.3f} s ({value['low']:.3f}-{value['high']:.3f})"
        return spread + _ratio(figure, key)

    return cell


def _median(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda figure: f"{figure[key]['median']:.3f} s{_ratio(figure, key)}"


def _ratio(figure: dict[str, Any], key: str) -> str:
    ratio = figure.get("ratio", {}).get(key)
    return "" if ratio is None else f" [{ratio:.2f}]"


ROWS = [
    ("process start to first answer", _seconds("cold_s")),
    ("warm request, median", _seconds("warm_s")),
    (
        "warm request, 95th percentile",
        lambda figure: f"{figure['warm_s']['p95']:.3f} s{_ratio(figure, 'warm_p95_s')}",
    ),
    ("processor time a prediction", _seconds("cpu_s")),
    (
        "peak memory after 20 requests",
        lambda figure: f"{figure['peak_mb']['median']:.0f} MB{_ratio(figure, 'peak_mb')}",
    ),
    (
        "model file",
        lambda figure: f"{figure['artifact_mb']:.1f} MB{_ratio(figure, 'artifact_mb')}",
    ),
    (
        "dependencies, installed",
        lambda figure: f"{figure['installed_mb']:.0f} MB{_ratio(figure, 'installed_mb')}",
    ),
    (
        "pictures a second, image servers taking 200 ms",
        lambda figure: (
            f"{figure['slow_pictures_per_s']['median']:.1f}{_ratio(figure, 'slow_pictures_per_s')}"
        ),
    ),
    (
        "a million predictions, x86 / arm64",
        lambda figure: (
            f"${figure['usd_per_million']['x86_64']:.2f} / "
            f"${figure['usd_per_million']['arm64']:.2f}{_ratio(figure, 'usd_per_million')}"
        ),
    ),
    (
        "the same from image servers taking 200 ms",
        lambda figure: (
            f"${figure['usd_per_million_slow']['x86_64']:.2f} / "
            f"${figure['usd_per_million_slow']['arm64']:.2f}"
            f"{_ratio(figure, 'usd_per_million_slow')}"
        ),
    ),
]


FEW_ROWS = [
    ("process start to first answer", _median("cold_s")),
    ("warm request", _median("warm_s")),
    *(row for row in ROWS if row[0] in FEW_TITLES),
]


def _accuracy(scored: dict[str, Any]) -> str:
    low, high = wilson_interval(scored["correct"], scored["total"])  # the file's is rounded
    return f"{scored['accuracy']:.4f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    try:
        main()
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"{error}: run `make benchmark` first, and see the markers in README.md")
