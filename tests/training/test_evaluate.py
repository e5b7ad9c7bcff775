"""Evaluation through the serving path, on pictures whose right answers are known by colour."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.metadata import InputSpec, embed_metadata, read_metadata
from tests.support.paths import TESTS
from training.commands import main
from training.data.dataset import Split, load_folder
from training.errors import DatasetError
from training.evaluation import evaluate as evaluate_module
from training.evaluation import metrics
from training.evaluation import test_log as ledger
from training.evaluation.evaluate import (
    Evaluation,
    compare,
    comparison_sentence,
    evaluate,
    reliability,
)
from training.evaluation.loaded_model import ModelFileError, Scorer, load_scorer, score
from training.evaluation.model_card import MARKS, card
from training.evaluation.report import report_html
from training.files import sha256_of

TINY = TESTS / "data" / "tiny.tflite"  # tells colours apart
COLOURS = {
    "red": (250, 5, 5),
    "green": (5, 250, 5),
    "blue": (5, 5, 250),
    "dark": (5, 5, 5),
}
MODEL = {
    "name": "toy", "version": "1", "kind": "tflite", "sha256": "ab" * 32, "size_bytes": 10,
    "input": [8, 8], "temperature": 1.0,
}  # fmt: skip


def write_pictures(root: Path, *, mislabelled: int = 0) -> Path:
    """Write three pictures of each colour; the first ``mislabelled`` of "red" are green."""
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for index in range(3):
            shown = COLOURS["green"] if label == "red" and index < mislabelled else colour
            Image.new("RGB", (60, 40), shown).save(root / label / f"{index}.png")
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "data" / "test", mislabelled=1)
    write_pictures(tmp_path / "data" / "validation", mislabelled=2)
    return tmp_path / "data"


@pytest.fixture
def options(tmp_path: Path, dataset: Path) -> list[str]:
    return [
        f"--dataset={dataset}", f"--out={tmp_path / 'out'}", f"--ledger={tmp_path / 'ledger.csv'}"
    ]  # fmt: skip


def relabelled(path: Path, name: str = "other") -> Path:
    """Write the tiny model again under another name: another hash, the same answers."""
    artifact = TINY.read_bytes()
    metadata = dataclasses.replace(read_metadata(artifact), name=name)
    flatbuffer = artifact[: artifact.index(b"PK\x03\x04")]
    path.write_bytes(embed_metadata(flatbuffer, metadata))
    return path


def toy_split(labels: list[int], names: tuple[str, ...] = ("a", "b")) -> Split:
    paths = tuple(Path(f"{names[label]}/{i}.jpg") for i, label in enumerate(labels))
    return Split(paths, np.array(labels), names)


def toy(probabilities: list[list[float]], labels: list[int], **model: Any) -> Evaluation:
    return Evaluation({**MODEL, **model}, toy_split(labels), np.array(probabilities))


# --- scoring -----------------------------------------------------------------


def test_an_artifact_is_scored_from_bytes_through_the_serving_path(dataset: Path) -> None:
    found = evaluate(load_scorer(TINY), load_folder(dataset / "test")).to_dict()
    assert found["metrics"]["images"] == 12
    assert found["metrics"]["correct"] == 11
    assert [answer["file"] for answer in found["mistakes"]] == ["red/0.png"]
    assert found["mistakes"][0]["predicted"] == "green"
    by_label = {row["label"]: row for row in found["per_class"]}
    assert by_label["red"]["recall"] == pytest.approx(2 / 3)
    assert by_label["green"]["precision"] == pytest.approx(3 / 4)
    assert found["model"]["version"] == "1.2.3"
    assert found["model"]["sha256"] == ledger_sha256(TINY)


def ledger_sha256(path: Path) -> str:
    done = subprocess.run(["sha256sum", str(path)], capture_output=True, text=True, check=True)
    return done.stdout.split()[0]


def test_columns_follow_the_images_classes_whatever_the_models_order(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images")
    split = load_folder(tmp_path / "images")
    assert split.class_names == ("blue", "dark", "green", "red")  # sorted; the model's are not
    probabilities = score(load_scorer(TINY), split)
    assert probabilities.argmax(axis=1).tolist() == split.labels.tolist()


def test_other_classes_than_the_models_are_refused(tmp_path: Path) -> None:
    for name in ("red", "cat"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "a.png")
    with pytest.raises(ModelFileError, match=r"labels \['blue'.*classes \['cat', 'red'\]"):
        score(load_scorer(TINY), load_folder(tmp_path))


def test_answers_that_are_no_probabilities_are_refused(dataset: Path) -> None:
    logits = Scorer(
        **{**MODEL, "input": InputSpec(8, 8)},
        labels=tuple(COLOURS),
        answer=lambda images: np.full((len(images), 4), 3.0),
    )
    with pytest.raises(ModelFileError, match=r"no probabilities: they sum to 12\.0"):
        score(logits, load_folder(dataset / "test"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.tflite", "no model at"), ("model.h5", "is a .tflite or a .keras")],
)
def test_a_model_that_cannot_be_scored_is_named(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "model.h5").write_bytes(b"")
    with pytest.raises(ModelFileError, match=message):
        load_scorer(tmp_path / name)


def test_a_keras_file_without_its_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"")
    with pytest.raises(ModelFileError, match=r"no config\.json beside it"):
        load_scorer(tmp_path)


# --- figures -----------------------------------------------------------------


def test_figures_before_temperature_are_those_of_the_undivided_logits() -> None:
    logits = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    served = metrics.softmax(logits / 2.5)
    found = toy(served.tolist(), [0, 1, 1, 0], temperature=2.5).to_dict()
    before = found["metrics_before_temperature"]
    # -log softmax by hand: log(1+e^-3), log(1+e^1), log(1+e^-2), log(1+e^-.5)
    expected = np.mean([0.048587, 1.313262, 0.126928, 0.474077])
    assert before["negative_log_likelihood"] == pytest.approx(expected, abs=1e-5)
    assert before["accuracy"] == found["metrics"]["accuracy"] == 0.75
    assert toy(served.tolist(), [0, 1, 1, 0]).to_dict()["metrics_before_temperature"] is None


def test_mistakes_are_listed_most_confident_first() -> None:
    found = toy([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [1, 1, 1, 0])
    assert found.worst_mistakes() == [1, 3, 0]
    assert found.answer(1) == {
        "file": "b/1.jpg",
        "label": "b",
        "predicted": "a",
        "probability": 0.9,
        "label_probability": 0.1,
    }


def test_reliability_bins_hold_mean_confidence_and_accuracy() -> None:
    probabilities = np.array([[0.91, 0.09], [0.97, 0.03], [0.55, 0.45], [1.0, 0.0]])
    bins = reliability(probabilities, np.array([0, 1, 0, 0]))
    assert [row["images"] for row in bins] == [0, 0, 0, 0, 0, 1, 0, 0, 0, 3]
    assert bins[9]["confidence"] == pytest.approx(0.96)
    assert bins[9]["accuracy"] == pytest.approx(2 / 3)
    assert bins[0]["accuracy"] is None


def test_two_models_are_compared_on_the_images_where_they_differ() -> None:
    labels = [0] * 9 + [1]
    first = toy([[0.9, 0.1]] * 8 + [[0.1, 0.9], [0.9, 0.1]], labels, name="first")
    second = toy([[0.9, 0.1]] * 1 + [[0.1, 0.9]] * 9, labels, name="second")
    found = compare(first, second)
    # 0 both; 1-7 only the first; 8 neither; 9 only the second
    counts = [found[k] for k in ("both_right", "only_first_right", "only_second_right")]
    assert counts == [1, 7, 1]
    assert found["both_wrong"] == 1
    assert found["mcnemar_exact_p"] == pytest.approx(2 * (1 + 8) / 2**8)
    assert [d["right"] for d in found["disagreements"][:3]] == ["first", "second", "first"]
    report = {"models": [first.to_dict(), second.to_dict()], "comparison": found}
    assert "exact McNemar p = 0.0703, chance may explain it" in comparison_sentence(report)


# --- the report --------------------------------------------------------------


def test_the_command_writes_a_self_contained_report(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(TINY), *options]) == 0
    shown = capsys.readouterr().out
    assert "accuracy   0.8333" in shown  # 10 of 12 on validation
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["models"][0]["metrics"]["correct"] == 10
    assert report["images"] == {
        "name": "validation",
        "count": 12,
        "classes": ["blue", "dark", "green", "red"],
    }
    page = (tmp_path / "out" / "report.html").read_text()
    addresses = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"'\s>]+)""", page)
    assert len(addresses) == 2
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    for text in (page, (tmp_path / "out" / "report.json").read_text()):
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text
    assert not (tmp_path / "ledger.csv").exists()  # validation is no matter of the ledger


def test_the_report_escapes_what_it_did_not_write() -> None:
    evaluation = Evaluation(
        {**MODEL, "name": "<script>alert(1)</script>"},
        toy_split([0, 1], ("<b>", "c&d")),
        np.array([[0.2, 0.8], [0.1, 0.9]]),
    )
    report = {
        "images": {"name": "<i>", "count": 2, "classes": ["<b>", "c&d"]},
        "models": [evaluation.to_dict()],
        "comparison": None,
        "provenance": {
            "date": "", "commit": "", "python": "", "packages": {}, "processor": "", "cores": 1
        },
    }  # fmt: skip
    page = report_html(report, {"<b>/0.jpg": "data:,"})
    for raw in ("<script", "<b>/", "<i>", "c&d<"):
        assert raw not in page
    assert "c&amp;d" in page


def test_a_gallery_is_left_out_on_request(tmp_path: Path, options: list[str]) -> None:
    assert main(["evaluate", str(TINY), "--no-gallery", *options]) == 0
    assert "<img" not in (tmp_path / "out" / "report.html").read_text()


def test_two_artifacts_are_compared_by_the_command(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = relabelled(tmp_path / "other.tflite")
    assert main(["evaluate", str(TINY), str(other), *options]) == 0
    assert "exact McNemar p = 1.0000" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "tiny 1.2.3 (tflite) against other 1.2.3 (tflite)" in page


def test_an_artifact_is_scored_where_keras_is_not_installed(
    tmp_path: Path, options: list[str]
) -> None:
    blocked = "import sys; sys.modules.update(keras=None, tensorflow=None, matplotlib=None); "
    call = (
        f"from training.commands import main; sys.exit(main({['evaluate', str(TINY), *options]}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked + call],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def test_the_model_card_takes_its_figures_from_a_report(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(TINY), *options]) == 0
    report = tmp_path / "out" / "report.json"
    assert main(["card", str(report), f"--out={tmp_path / 'card.md'}"]) == 0
    text = (tmp_path / "card.md").read_text()
    assert text in capsys.readouterr().out
    assert "| accuracy | 0.8333 (10 of 12) | 0.5520 to 0.9530 |  |" in text  # Wilson
    assert "| green | 3 | 0.600 | 1.000 (" in text  # five were called green
    (tmp_path / "CARD.md").write_text(f"before\n{MARKS[0]}\nold\n{MARKS[1]}\nafter\n")
    assert main(["card", str(report), f"--into={tmp_path / 'CARD.md'}"]) == 0
    assert (tmp_path / "CARD.md").read_text() == (
        f"before\n{MARKS[0]}\n{text.strip()}\n{MARKS[1]}\nafter\n"
    )


def test_a_report_does_not_take_the_place_of_a_run_s_own(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.keras").write_bytes(b"trained for hours")
    (run / "report.json").write_text("its own")
    kept = [option for option in options if not option.startswith("--out")]
    assert main(["evaluate", str(TINY), *kept, f"--out={run}"]) == 2
    assert "is a run's folder, and its report.json would be lost" in one_sentence(capsys)
    assert (run / "report.json").read_text() == "its own"


def test_a_class_without_a_picture_has_no_recall_and_no_traceback() -> None:
    split = Split((Path("a/1.png"),), np.array([0]), ("red", "green", "blue", "dark"))
    confusion = np.zeros((4, 4), dtype=np.int64)
    confusion[0, 0] = 1
    rows = evaluate_module._per_class(confusion, split.class_names)
    assert rows[1]["images"] == 0
    assert rows[1]["recall_interval_95"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no report at"),
        ("{", "is not JSON: "),
        ('{"temperature": 1.2, "metrics": {}}', "is not the report of an evaluation"),  # a run's
        ("[]", "is not the report of an evaluation"),
    ],
)
def test_a_card_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    report = tmp_path / "report.json"
    if content is not None:
        report.write_text(content)
    assert main(["card", str(report), f"--out={tmp_path / 'card.md'}"]) == 2
    assert message in one_sentence(capsys)
    assert not (tmp_path / "card.md").exists()


@pytest.mark.parametrize(
    ("page", "message"), [(None, "no file at"), ("no marks\n", "has no place for the figures")]
)
def test_a_card_goes_into_no_file_without_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], page: str | None, message: str
) -> None:
    report = REPOSITORY / "benchmarks" / "results" / "evaluation_test.json"
    card_file, out = tmp_path / "CARD.md", tmp_path / "card.md"
    if page is not None:
        card_file.write_text(page)
    assert main(["card", str(report), f"--into={card_file}", f"--out={out}"]) == 2
    assert message in one_sentence(capsys)
    assert not out.exists()
    assert (card_file.read_text() if card_file.exists() else None) == page


# --- bad input ---------------------------------------------------------------


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the error that was printed; it is one line and no traceback."""
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


def test_an_unreadable_image_stops_it_with_its_name_and_nothing_written(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "validation" / "blue" / "1.png").write_bytes(b"\x89PNG broken")
    assert main(["evaluate", str(TINY), *options]) == 2
    assert "blue/1.png cannot be used" in one_sentence(capsys)
    assert not (tmp_path / "out").exists()


def test_a_missing_class_folder_is_named(
    options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (dataset / "validation" / "blue").rename(dataset / "validation" / "azure")
    assert main(["evaluate", str(TINY), *options]) == 2
    assert "azure" in one_sentence(capsys)


def test_a_damaged_artifact_is_refused(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.tflite").write_bytes(TINY.read_bytes()[:900])
    assert main(["evaluate", str(tmp_path / "cut.tflite"), *options]) == 2
    assert "carries no metadata" in one_sentence(capsys)


# --- the test ledger ---------------------------------------------------------


def test_the_first_scoring_on_test_is_recorded_and_the_next_one_compared(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", *options]
    assert main(command) == 0
    written = (tmp_path / "ledger.csv").read_text()
    header, row = written.splitlines()
    assert header == (
        "sha256,version,date,commit,images,correct,accuracy,low,high,macro_f1,ece,nll,brier"
    )
    fields = dict(zip(header.split(","), row.split(","), strict=True))
    assert fields["sha256"] == ledger_sha256(TINY)
    assert (fields["images"], fields["correct"], fields["accuracy"]) == ("12", "11", "0.916667")
    assert fields["version"] == "1.2.3"

    assert main([*command, "--must-be-recorded"]) == 0
    assert (tmp_path / "ledger.csv").read_text() == written
    assert "as recorded" in capsys.readouterr().out


def test_a_known_artifact_that_scores_differently_fails_and_changes_nothing(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", *options]
    assert main(command) == 0
    written = (tmp_path / "ledger.csv").read_text()
    Image.new("RGB", (60, 40), COLOURS["red"]).save(dataset / "test" / "red" / "0.png")
    assert main(command) == 2
    assert "correct 11 -> 12" in one_sentence(capsys)
    assert (tmp_path / "ledger.csv").read_text() == written


def test_a_second_artifact_gets_a_row_of_its_own(tmp_path: Path, options: list[str]) -> None:
    other = relabelled(tmp_path / "other.tflite")
    for model in (TINY, other, TINY):
        assert main(["evaluate", str(model), "--split=test", *options]) == 0
    rows = ledger.read(tmp_path / "ledger.csv")
    assert [row["sha256"] for row in rows] == [ledger_sha256(TINY), ledger_sha256(other)]


def test_naming_the_test_split_as_a_folder_is_recorded_too(
    tmp_path: Path, options: list[str], dataset: Path
) -> None:
    assert main(["evaluate", str(TINY), f"--folder={dataset / 'test'}", *options]) == 0
    assert len(ledger.read(tmp_path / "ledger.csv")) == 1
    assert main(["evaluate", str(TINY), f"--folder={dataset / 'validation'}", *options]) == 0
    assert len(ledger.read(tmp_path / "ledger.csv")) == 1


def test_where_it_must_be_recorded_an_unknown_artifact_fails(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", "--must-be-recorded", *options]
    assert main(command) == 2
    assert "is not in ledger.csv" in one_sentence(capsys)
    assert not (tmp_path / "ledger.csv").exists()


@pytest.mark.parametrize(
    ("column", "value", "same"),
    [
        ("ece", "0.104900", True),  # the last digits of probabilities differ between processors
        ("ece", "0.106000", False),
        ("nll", "0.203000", False),
        ("brier", "0.303000", False),
        ("correct", "9", False),
        ("macro_f1", "0.900001", False),
    ],
)
def test_counts_must_repeat_exactly_and_probabilities_nearly(
    tmp_path: Path, column: str, value: str, same: bool
) -> None:
    row = dict.fromkeys(ledger.COLUMNS, "") | {
        "sha256": "ab" * 32, "images": "10", "correct": "10", "accuracy": "1.000000",
        "low": "0.72", "high": "1", "macro_f1": "0.900000",
        "ece": "0.100000", "nll": "0.200000", "brier": "0.300000",
    }  # fmt: skip
    ledger.record(row, tmp_path / "ledger.csv")
    changed = {**row, column: value}
    if same:
        ledger.record(changed, tmp_path / "ledger.csv")
    else:
        with pytest.raises(ledger.LedgerError, match=f"{column} .* -> {value}"):
            ledger.record(changed, tmp_path / "ledger.csv")


def test_a_ledger_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("sha,accuracy\nab,1\n")
    with pytest.raises(ledger.LedgerError, match="has columns"):
        ledger.read(tmp_path / "ledger.csv")


def test_a_dataset_error_is_a_value_error() -> None:
    """``_is_test_split`` relies on it where there is no data set at all."""
    assert issubclass(DatasetError, ValueError)


def test_the_shipped_model_s_card_shows_its_report_on_test() -> None:
    root = REPOSITORY
    report = json.loads((root / "benchmarks" / "results" / "evaluation_test.json").read_text())
    shown = (root / "MODEL_CARD.md").read_text().split(MARKS[0])[1].split(MARKS[1])[0]
    assert shown.strip() == card(report).strip(), "run `training card REPORT --into MODEL_CARD.md`"
    assert report["models"][0]["model"]["sha256"] == sha256_of(SHIPPED_MODEL)
    assert report["images"]["name"] == "test"
