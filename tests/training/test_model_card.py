"""The tables of a model card come from a report, or say that nothing was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lambda_function import REPOSITORY, SHIPPED_MODEL
from tests.support.colours import TINY, printed_error, write_colours
from training.commands import main
from training.evaluation.model_card import MARKS, card
from training.files import sha256_of

REPORT = REPOSITORY / "benchmarks" / "results" / "evaluation_test.json"


def test_the_tables_show_the_figures_of_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_colours(tmp_path / "images", mislabelled=2)
    out, page = tmp_path / "card.md", tmp_path / "CARD.md"
    page.write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    command = ["evaluate", str(TINY), f"--folder={tmp_path / 'images'}", f"--out={tmp_path}"]
    assert main(command) == 0

    assert main(["card", str(tmp_path / "report.json"), f"--out={out}", f"--into={page}"]) == 0

    text = out.read_text()
    assert text in capsys.readouterr().out
    assert "| accuracy | 0.8333 (10 of 12) | 0.5520 to 0.9530 |  |" in text  # Wilson
    assert "| green | 3 | 0.600 | 1.000 (" in text  # five were called green
    assert page.read_text() == f"before\n{MARKS[0]}\n{text.strip()}\n{MARKS[1]}\nafter\n"


def test_a_model_without_an_evaluation_is_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", str(TINY)]) == 0

    printed = capsys.readouterr().out
    assert "tiny 1.2.3, tflite, SHA-256" in printed
    assert printed.count("| not measured |") == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no report at"),
        ("{", "is not JSON: "),
        ('{"temperature": 1.2, "metrics": {}}', "is not the report of an evaluation"),  # a run's
        ("[]", "is not the report of an evaluation"),
    ],
)
def test_a_file_that_is_no_report_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)

    assert main(["card", str(report), f"--out={tmp_path / 'card.md'}"]) == 2

    assert message in printed_error(capsys)
    assert not (tmp_path / "card.md").exists()


@pytest.mark.parametrize(
    ("page", "message"), [(None, "no file at"), ("no marks\n", "has no place for the figures")]
)
def test_a_page_without_marks_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str | None, message: str
) -> None:
    card_file, out = tmp_path / "CARD.md", tmp_path / "card.md"
    if page is not None:
        card_file.write_text(page)

    assert main(["card", str(REPORT), f"--into={card_file}", f"--out={out}"]) == 2

    assert message in printed_error(capsys)
    assert not out.exists()
    assert (card_file.read_text() if card_file.exists() else None) == page


@pytest.mark.release
def test_the_released_model_s_card_shows_its_report_on_test() -> None:
    report = json.loads(REPORT.read_text())

    shown = (REPOSITORY / "MODEL_CARD.md").read_text().split(MARKS[0])[1].split(MARKS[1])[0]

    assert shown.strip() == card(report).strip(), "run `training card REPORT --into MODEL_CARD.md`"
    assert report["models"][0]["model"]["sha256"] == sha256_of(SHIPPED_MODEL)
    assert report["images"]["name"] == "test"
