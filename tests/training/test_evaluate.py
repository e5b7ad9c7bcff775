"""Evaluation through the serving path, on images whose right answers are known by colour."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY_MAP_MODEL
from tests.support.colours import COLOURS, TINY, printed_error, rename_tiny, write_colours
from tests.support.processes import run_python
from training.commands import main
from training.data.dataset import Split, load_folder
from training.evaluation import metrics, test_log
from training.evaluation.evaluate import Evaluation, class_rows, compare, evaluate
from training.evaluation.loaded_model import load_model

MODEL = {
    "name": "toy", "version": "1", "kind": "tflite", "sha256": "ab" * 32, "size_bytes": 10,
    "input": [8, 8], "temperature": 1.0,
}  # fmt: skip
TINY_SHA256 = subprocess.run(
    ["sha256sum", str(TINY)], capture_output=True, text=True, check=True
).stdout.split()[0]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_colours(tmp_path / "data" / "test", mislabelled=1)
    write_colours(tmp_path / "data" / "validation", mislabelled=2)
    return tmp_path / "data"


@pytest.fixture
def options(tmp_path: Path, dataset: Path) -> list[str]:
    log = tmp_path / "test_log.csv"
    return [f"--dataset={dataset}", f"--out={tmp_path / 'out'}", f"--test-log={log}"]


def toy(probabilities: list[list[float]], labels: list[int], **model: Any) -> Evaluation:
    paths = tuple(Path(f"{'ab'[label]}/{i}.jpg") for i, label in enumerate(labels))
    split = Split(paths, np.array(labels), ("a", "b"))
    return Evaluation({**MODEL, **model}, split, np.array(probabilities))


def test_an_artifact_is_scored_from_bytes_through_the_serving_path(dataset: Path) -> None:
    result = evaluate(load_model(TINY), load_folder(dataset / "test")).to_dict()

    assert (result["metrics"]["images"], result["metrics"]["correct"]) == (12, 11)
    assert [mistake["file"] for mistake in result["mistakes"]] == ["red/0.png"]
    assert result["mistakes"][0]["predicted"] == "green"
    by_label = {row["label"]: row for row in result["per_class"]}
    assert by_label["red"]["recall"] == pytest.approx(2 / 3)
    assert by_label["green"]["precision"] == pytest.approx(3 / 4)
    assert (result["model"]["version"], result["model"]["sha256"]) == ("1.2.3", TINY_SHA256)


def test_figures_before_temperature_are_those_of_the_undivided_logits() -> None:
    logits = np.array([[3.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.5, 0.0]])
    served = metrics.softmax(logits / 2.5).tolist()

    result = toy(served, [0, 1, 1, 0], temperature=2.5).to_dict()

    before = result["metrics_before_temperature"]
    # -log softmax by hand: log(1+e^-3), log(1+e^1), log(1+e^-2), log(1+e^-.5)
    expected = np.mean([0.048587, 1.313262, 0.126928, 0.474077])
    assert before["negative_log_likelihood"] == pytest.approx(expected, abs=1e-5)
    assert before["accuracy"] == result["metrics"]["accuracy"] == 0.75
    assert toy(served, [0, 1, 1, 0]).to_dict()["metrics_before_temperature"] is None


def test_mistakes_are_listed_most_confident_first() -> None:
    evaluation = toy([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.3, 0.7]], [1, 1, 1, 0])

    assert evaluation.worst_mistakes() == [1, 3, 0]
    assert evaluation.prediction(1) == {
        "file": "b/1.jpg",
        "label": "b",
        "predicted": "a",
        "probability": 0.9,
        "label_probability": 0.1,
    }


def test_a_class_without_an_image_has_an_interval_from_0_to_1() -> None:
    rows = class_rows(np.array([[1, 0], [0, 0]]), ("red", "green"))

    assert rows[1]["images"] == 0
    assert rows[1]["recall_interval_95"] == (0.0, 1.0)


def test_two_models_are_compared_on_the_images_where_they_differ() -> None:
    labels = [0] * 9 + [1]
    first = toy([[0.9, 0.1]] * 8 + [[0.1, 0.9], [0.9, 0.1]], labels, name="first")
    second = toy([[0.9, 0.1]] * 1 + [[0.1, 0.9]] * 9, labels, name="second")

    comparison = compare(first, second)

    # 0 both, 1-7 only the first, 8 neither, 9 only the second
    names = ("both_right", "only_first_right", "only_second_right", "both_wrong")
    assert [comparison[name] for name in names] == [1, 7, 1, 1]
    assert comparison["mcnemar_exact_p"] == pytest.approx(2 * (1 + 8) / 2**8)
    right = [found["right"] for found in comparison["disagreements"][:3]]
    assert right == ["first", "second", "first"]
    assert "exact McNemar p = 0.0703, chance may explain it" in comparison["sentence"]


def test_the_command_writes_a_self_contained_report(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(TINY), *options]) == 0

    shown, bars = capsys.readouterr()
    assert "| accuracy | 0.8333 (10 of 12) |" in shown
    assert bars == ""  # the output is no terminal
    text = (tmp_path / "out" / "report.json").read_text()
    report = json.loads(text)
    assert report["models"][0]["metrics"]["correct"] == 10
    classes = ["blue", "dark", "green", "red"]
    assert report["images"] == {"name": "validation", "count": 12, "classes": classes}
    page = (tmp_path / "out" / "report.html").read_text()
    addresses = re.findall(r"""(?:src|href|url\()\s*=?\s*["']?([^"'\s>]+)""", page)
    assert len(addresses) == 2  # the two mistakes
    assert all(address.startswith("data:image/jpeg;base64,") for address in addresses)
    assert not [p for p in (str(tmp_path), str(Path.home())) if p in page or p in text]
    assert not (tmp_path / "test_log.csv").exists()  # the log is about test


def write_senders(file: Path, dataset: Path, *, skip: int = 0) -> Path:
    """Say who sent each image: two thirds are of Ann, among them the two that are mislabelled."""
    images = sorted((dataset / "validation").rglob("*.png"), reverse=True)[skip:]
    lines = [
        f"{path.relative_to(dataset).as_posix()},{'Ann <b>' if i < 10 else i}"
        for i, path in enumerate(images)
    ]
    file.write_text("\n".join(["image,sender", *lines]) + "\n")
    return file


@pytest.mark.parametrize("named", [False, True])
def test_accuracy_is_shown_per_group_where_a_file_names_the_groups(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str],
    named: bool,
) -> None:  # fmt: skip
    file = write_senders(tmp_path / "own.csv" if named else dataset / "senders.csv", dataset)

    assert main(["evaluate", str(TINY), *options, *([f"--groups={file}"] if named else [])]) == 0

    printed = capsys.readouterr().out
    assert "| Ann <b> | 10 | 8 | 0.800 (0.490 to 0.943) |" in printed
    assert "| 2 with fewer than 10 images | 2 | 2 | 1.000 (0.342 to 1.000) |" in printed
    # Ann alone is drawn with 1/27, the others alone with 8/27.
    assert "| all 3, drawn as wholes | 12 | 10 | 0.833 (0.800 to 1.000) |" in printed
    found = json.loads((tmp_path / "out" / "report.json").read_text())["models"][0]["per_group"]
    assert (found["count"], found["rows"][0]["correct"]) == (3, 8)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<tr><td>Ann &lt;b&gt;</td><td>10</td><td>8</td><td>0.800</td>" in page
    assert "Over the 3 groups" in page


def test_without_a_file_of_groups_nothing_is_said_of_them(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(TINY), *options]) == 0

    assert "drawn as wholes" not in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["models"][0]["per_group"] is None
    assert "group" not in (tmp_path / "out" / "report.html").read_text().partition("<body>")[2]


def test_groups_of_a_folder_are_named_by_paths_below_it(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_senders(tmp_path / "own.csv", dataset)
    file.write_text(file.read_text().replace("validation/", ""))
    command = ["evaluate", str(TINY), f"--folder={dataset / 'validation'}", f"--groups={file}"]

    assert main([*command, *options]) == 0

    assert "| Ann <b> | 10 | 8 |" in capsys.readouterr().out


def test_a_file_that_misses_images_is_refused_before_anything_is_scored(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_senders(dataset / "senders.csv", dataset, skip=2)

    assert main(["evaluate", str(TINY), *options]) == 2

    assert "senders.csv misses 2 of 12 images" in printed_error(capsys)
    assert not (tmp_path / "out").exists()


def test_each_of_the_worst_mistakes_has_its_map_beside_it(
    tmp_path: Path, options: list[str]
) -> None:
    assert main(["evaluate", str(TINY_MAP_MODEL), *options]) == 0

    mistakes = json.loads((tmp_path / "out" / "report.json").read_text())["models"][0]["mistakes"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert mistakes
    assert page.count("<figure class=double>") == len(mistakes)
    assert page.count("data:image/jpeg;base64,") == 2 * len(mistakes)
    assert "where the model sees the class that it predicted" in page


def test_a_gallery_is_left_out_on_request(tmp_path: Path, options: list[str]) -> None:
    assert main(["evaluate", str(TINY), "--no-gallery", *options]) == 0

    assert "<img" not in (tmp_path / "out" / "report.html").read_text()


def test_two_artifacts_are_compared_by_the_command(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = rename_tiny(tmp_path / "other.tflite", "other")

    assert main(["evaluate", str(TINY), str(other), *options]) == 0

    assert "exact McNemar p = 1.0000" in capsys.readouterr().out
    page = (tmp_path / "out" / "report.html").read_text()
    assert "tiny 1.2.3 (tflite) against other 1.2.3 (tflite)" in page


def test_an_artifact_is_scored_where_keras_is_not_installed(
    tmp_path: Path, options: list[str]
) -> None:
    blocked = "import sys; sys.modules.update(keras=None, tensorflow=None, matplotlib=None); "
    words = ["evaluate", str(TINY), *options]
    call = f"from training.commands import main; sys.exit(main({words}))"

    run_python("-c", blocked + call, check=True)

    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize("command", ["evaluate", "robustness"])
def test_a_model_that_is_not_there_is_named_before_the_images(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "nope", "--dataset=nowhere"]) == 2
    assert "no model at nope" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(TINY), "--folder=nowhere"]) == 2
    assert printed_error(capsys) == (
        "error: there is no folder nowhere. Name one that holds a folder of images per class"
    )


def test_a_report_does_not_replace_the_report_of_a_run(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.keras").write_bytes(b"trained for hours")

    assert main(["evaluate", str(TINY), *options, f"--out={tmp_path}"]) == 2

    assert "is a run's folder, and its report.json would be lost" in printed_error(capsys)
    assert not (tmp_path / "report.json").exists()


def break_image(dataset: Path) -> None:
    (dataset / "validation" / "blue" / "1.png").write_bytes(b"\x89PNG broken")


def rename_class(dataset: Path) -> None:
    (dataset / "validation" / "blue").rename(dataset / "validation" / "azure")


@pytest.mark.parametrize(
    ("spoil", "message"), [(break_image, "blue/1.png cannot be used"), (rename_class, "azure")]
)
def test_bad_images_stop_it_by_name_and_write_nothing(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str],
    spoil: Any, message: str,
) -> None:  # fmt: skip
    spoil(dataset)

    assert main(["evaluate", str(TINY), *options]) == 2

    assert message in printed_error(capsys)
    assert not (tmp_path / "out").exists()


def test_a_damaged_artifact_is_refused(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cut.tflite").write_bytes(TINY.read_bytes()[:900])

    assert main(["evaluate", str(tmp_path / "cut.tflite"), *options]) == 2

    assert f"{tmp_path}/cut.tflite: the file holds no labels" in printed_error(capsys)


# --- the test log ------------------------------------------------------------


def test_the_first_score_on_test_is_recorded_and_the_next_one_compared(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", *options]
    assert main(command) == 0
    written = (tmp_path / "test_log.csv").read_text()

    assert main([*command, "--must-be-recorded"]) == 0

    header, line = written.splitlines()
    assert header == (
        "sha256,version,date,commit,images,correct,accuracy,low,high,macro_f1,ece,nll,brier"
    )
    row = dict(zip(header.split(","), line.split(","), strict=True))
    assert (row["sha256"], row["version"]) == (TINY_SHA256, "1.2.3")
    assert (row["images"], row["correct"], row["accuracy"]) == ("12", "11", "0.916667")
    assert (tmp_path / "test_log.csv").read_text() == written
    assert "as recorded" in capsys.readouterr().out


def test_a_known_artifact_that_scores_differently_fails_and_changes_nothing(
    tmp_path: Path, options: list[str], dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", *options]
    assert main(command) == 0
    written = (tmp_path / "test_log.csv").read_text()
    Image.new("RGB", (60, 40), COLOURS["red"]).save(dataset / "test" / "red" / "0.png")

    assert main(command) == 2

    assert "correct 11 -> 12" in printed_error(capsys)
    assert (tmp_path / "test_log.csv").read_text() == written


def test_the_test_split_named_as_a_folder_is_recorded_too(
    tmp_path: Path, options: list[str], dataset: Path
) -> None:
    for folder in ("test", "validation"):
        assert main(["evaluate", str(TINY), f"--folder={dataset / folder}", *options]) == 0

    assert len(test_log.read(tmp_path / "test_log.csv")) == 1


def test_an_artifact_that_must_be_recorded_and_is_not_fails(
    tmp_path: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(TINY), "--split=test", "--must-be-recorded", *options]

    assert main(command) == 2

    assert "is not in test_log.csv" in printed_error(capsys)
    assert not (tmp_path / "test_log.csv").exists()


def test_another_team_s_model_has_its_test_log_beside_it(tmp_path: Path, dataset: Path) -> None:
    model = rename_tiny(tmp_path / "model.tflite", "screws")
    before = test_log.RELEASE_LOG.read_bytes()

    command = ["evaluate", str(model), "--split=test", f"--dataset={dataset}", "--no-gallery"]
    assert main([*command, f"--out={tmp_path / 'out'}"]) == 0

    (row,) = test_log.read(tmp_path / "model.test_log.csv")
    assert row["correct"] == "11"
    assert test_log.RELEASE_LOG.read_bytes() == before


def test_validation_is_the_run_s_own_and_test_the_data_set_s(tmp_path: Path, dataset: Path) -> None:
    (dataset / "validation").rename(dataset / "train")
    (tmp_path / "run").mkdir()
    model = rename_tiny(tmp_path / "run" / "model.tflite", "screws")
    for split in ("train", "validation"):
        write_colours(tmp_path / "run" / "images" / split)
    command = ["evaluate", str(model), f"--dataset={dataset}", f"--out={tmp_path}", "--no-gallery"]

    correct = []
    for split in ("validation", "test"):
        assert main([*command, f"--split={split}"]) == 0
        report = json.loads((tmp_path / "report.json").read_text())
        correct.append(report["models"][0]["metrics"]["correct"])

    assert correct == [12, 11]  # one image of the data set's test is mislabelled
