"""README's table of the course is generated from the measured figures."""

from __future__ import annotations

import json
from pathlib import Path

from lambda_function import REPOSITORY
from training.experiments.course_figures import RESULTS, table


def test_the_table_shows_course_and_ours_and_what_is_not_measured(tmp_path: Path) -> None:
    results = tmp_path / "course"
    results.mkdir()
    (results / "inner.json").write_text(
        json.dumps({"course": {"10": 0.815, "100": 0.815}, "ours": {"10": 0.82, "100": 0.84}})
    )
    (results / "larger.json").write_text(json.dumps({"ours": "0.900 (validation)"}))
    (tmp_path / "accuracy.json").write_text(
        json.dumps({"handlers": {"course": {"accuracy": 0.91}, "ours": {"accuracy": 0.95}}})
    )

    lines = table(results).splitlines()

    assert len(lines) == 2 + 9
    assert lines[2].endswith("| `python -m training steps look` | no figure | not measured yet |")
    assert lines[6].endswith("| 10: 0.815, 100: 0.815 | 10: 0.820, 100: 0.840 |")
    assert lines[9].endswith("(test) | 0.900 (validation), 0.9100 (test) |")
    assert lines[10].endswith("| not measured yet, released model 0.9500 (test) |")


def test_the_readme_shows_the_course_as_it_was_measured() -> None:
    readme = (REPOSITORY / "README.md").read_text()

    shown = readme.partition("<!-- course:begin -->\n")[2].partition("\n<!-- course:end -->")[0]

    assert shown == table(RESULTS), "run `python -m training steps table --write`"
