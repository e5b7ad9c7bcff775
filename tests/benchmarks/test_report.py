"""Tables and pages: arithmetic on made-up results, and the pages in the repository."""

from __future__ import annotations

import json

import pytest

from benchmarks.harness import RESULTS
from benchmarks.report.pages import (
    BEGIN,
    END,
    README,
    further,
    index,
    readme_block,
    results_page,
)
from benchmarks.report.tables import commit_of, comparison_table, note
from training.files import replace_marked

ORIGIN = {
    "date": "2026-01-02",
    "commit": "0123456789ab",
    "processor": "Some CPU",
    "cores": 2,
    "instruction_sets": {"avx2": ["avx2"], "machine": ["avx2", "avx512f"]},
}


def figures(scale):
    """A handler's figures: each is ``scale`` times that of the base."""
    spread = {"median": scale, "low": scale, "high": 2 * scale, "p95": 3 * scale, "count": 4}
    return {
        "title": f"handler {scale}",
        "versions": {"numpy": "2.4.6"},
        "cold_s": spread,
        "warm_s": spread,
        "cpu_s": spread,
        "peak_mb": spread,
        "slow_images_per_s": spread,
        "artifact_mb": scale,
        "installed_mb": scale,
        "usd_per_million": {"x86_64": scale, "arm64": scale},
        "usd_per_million_slow": {"x86_64": scale, "arm64": scale},
    }


def compared():
    lane = {"ours": figures(0.5), "course": figures(1.0)}
    return {
        "provenance": ORIGIN,
        "memory_mb": 1769,
        "rounds": 10,
        "prices": {"region": "US East", "date": "2026"},
        "handlers": {"avx2": lane, "machine": {"ours": figures(0.1)}},
    }


def test_the_table_has_a_row_a_measure_and_a_column_a_handler():
    lines = comparison_table(compared(), "avx2").splitlines()
    assert lines[0] == "|  | handler 0.5 | handler 1.0 |"
    assert lines[2] == (
        "| process start to first response | 0.500 s (0.500-1.000) [0.50] "
        "| 1.000 s (1.000-2.000) [1.00] |"
    )
    assert "| warm request, 95th percentile | 1.500 s [0.50] | 3.000 s [1.00] |" in lines
    dollars = "| $0.50 / $0.50 [0.50] | $1.00 / $1.00 [1.00] |"
    assert f"| a million predictions, Lambda alone, x86 / arm64 {dollars}" in lines
    assert {line.count("|") for line in lines} == {4}


def test_the_readme_has_the_deciding_rows_of_lambdas_instruction_sets(tmp_path):
    result = compared()
    result["handlers"]["avx2"]["course-224"] = figures(0.7)  # not as it is published
    (tmp_path / "compare.json").write_text(json.dumps(result))
    lines = readme_block(tmp_path).splitlines()
    assert lines[0] == "|  | handler 0.5 | handler 1.0 |"
    assert lines[2] == "| process start to first response | 0.500 s [0.50] | 1.000 s [1.00] |"
    assert len(lines) == 2 + 6 + 2
    assert "Lambda's x86_64 (avx2: avx2), one core and 1,769 MB" in lines[-1]


def test_the_results_page_has_a_table_for_each_lane(tmp_path):
    (tmp_path / "compare.json").write_text(json.dumps(compared()))
    page = results_page(tmp_path)
    assert page.index("Lambda's x86_64 (avx2: avx2):") < page.index("(machine: avx2 avx512f):")
    assert "| handler 0.1 |" in page


def test_accuracy_has_its_interval_where_it_was_measured():
    accuracy = {"handlers": {"ours": {"accuracy": 0.9382, "correct": 349, "total": 372}}}
    last = comparison_table(compared(), "avx2", accuracy).splitlines()[-1]
    assert last == "| accuracy, test split (95 % interval) | 0.9382 (0.909-0.958) |  |"


def test_further_measurements_have_a_line_each_where_they_were_made(tmp_path):
    assert further(tmp_path) == []
    points = [
        {"at": at, "elapsed_s": {"median": at / 10}, "peak_mb": 100 + at} for at in (1, 2, 32)
    ]
    masked = {**ORIGIN, "instruction_sets": ["avx2"]}
    results = {
        "scaling": {**dict.fromkeys(("megapixels", "batch", "threads"), points)},
        "batch": {"ratio": {"median": 1.046}, "bar": 1.15},
        "startup": {"starts": {"imports": {"elapsed_ms": {"median": 150.2}}}},
    }
    for name, result in results.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({**result, "provenance": masked}))
    (tmp_path / "tuning_speed.json").write_text(json.dumps({"provenance": masked}))  # code is gone
    blank, *added = further(tmp_path)
    assert blank == ""
    assert len(added) == 3
    assert "1.05 times the bare work of 16 (bar: 1.15)" in added[0]
    assert added[0].endswith(
        "(`python -m benchmarks micro --write`, commit `0123456`, instruction sets avx2)"
    )
    assert "1 -> 32 images a request 0.100 -> 3.200 s, 101 -> 132 MB" in added[1]
    assert "to the end of each step: imports 150." in added[2]


def test_the_note_says_when_where_and_from_which_commit():
    text = note(compared())
    for part in ("2026-01-02", "`0123456789ab`", "Some CPU", "1,769 MB", "10 interleaved rounds"):
        assert part in text
    assert "uncommitted" not in text
    assert commit_of({"commit": "0123456-dirty"}) == "`0123456` with uncommitted changes"


def test_only_the_text_between_the_markers_is_replaced():
    text = f"a\n{BEGIN}\nold\n{END}\nb"
    fresh = replace_marked(text, (BEGIN, END), "new")
    assert fresh == f"a\n{BEGIN}\nnew\n{END}\nb"


@pytest.mark.release
def test_the_pages_show_what_the_result_files_say():
    command = "run `python -m benchmarks report --write`"
    readme = README.read_text()
    assert replace_marked(readme, (BEGIN, END), readme_block(RESULTS)) == readme, command
    assert (RESULTS / "README.md").read_text() == results_page(RESULTS), command


def test_a_figure_whose_code_is_deleted_names_the_tag_and_is_in_no_main_table():
    main, _, answered = index(RESULTS).partition("before-simplification")
    assert "tuning_speed" not in main
    assert "| [tuning_speed](tuning_speed.json) |" in answered
    assert "`python -m benchmarks.tuning_speed --write`" in answered


def test_a_result_of_unknown_origin_is_an_error(tmp_path):
    (tmp_path / "guess.json").write_text("{}")
    with pytest.raises(KeyError, match="guess"):
        index(tmp_path)


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.json")), ids=lambda path: path.stem)
def test_a_result_file_has_the_one_provenance_record(path):
    record = json.loads(path.read_text())["provenance"]
    assert record["date"].startswith("20")
    assert len(record["commit"]) >= 7
    assert record["processor"]
    assert record["cores"] >= 1


def test_the_readmes_speed_figures_were_measured_with_avx2_and_nothing_newer():
    result = json.loads((RESULTS / "compare.json").read_text())
    assert result["provenance"]["instruction_sets"]["avx2"] == ["avx2"]
    assert next(iter(result["handlers"])) == "avx2"  # README shows the first lane
