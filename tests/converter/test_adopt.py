"""A new model brings everything that belongs to it, all or nothing."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from converter import adopt
from converter.adopt import Checkout, apply, plan
from converter.errors import AdoptionError
from converter.import_model import main as import_model
from lambda_function import EXAMPLES, REPOSITORY, SHIPPED_MODEL
from lambda_function.metadata import MetadataError, read_metadata
from tests.support.converter import with_metadata, without_metadata
from tests.support.images import encode, photo
from tests.support.paths import TESTS
from training.commands import main as training
from training.errors import DatasetError

TINY = TESTS / "data" / "tiny.tflite"
LABELS = ("M3", "M4", "wood", "dry wall")
PAGE = Path("lambda_function/http/page.html")
COPIED = (
    *("README.md", "MODEL_CARD.md", "template.yaml", PAGE),
    Path("docs"),
    Path("tests/golden"),
    Path("examples"),
)


@pytest.fixture
def checkout(tmp_path):
    """A copy of the files that belong to the shipped model, of the release or of another."""
    root = tmp_path / "checkout"
    for name in COPIED:
        source, target = REPOSITORY / name, root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    copy = Checkout(root)
    copy.model.write_bytes(TINY.read_bytes())
    copy.model.with_suffix(".parity.json").write_text("{}")
    return copy


@pytest.fixture(scope="module")
def screws(tmp_path_factory):
    """An imported model with its parity report."""
    folder = tmp_path_factory.mktemp("screws")
    plain = folder / "screws.tflite"
    plain.write_bytes(without_metadata(TINY.read_bytes()))
    words = ("--title", "Which screw is it?", "--subject", "screw", "--normalisation", "tf")
    labels = ("--labels", ",".join(LABELS), "--resize", "nearest")
    output = folder / "model.tflite"
    assert import_model([str(plain), *words, *labels, "--output", str(output)]) == 0
    return output


def with_report(model: Path, copy: Path, **changes) -> Path:
    """Write a copy with other metadata, and a parity report that fits it."""
    copy.write_bytes(with_metadata(model.read_bytes(), **changes))
    report = json.loads(model.with_suffix(".parity.json").read_text())
    report["artifact_sha256"] = adopt.hashlib.sha256(copy.read_bytes()).hexdigest()
    copy.with_suffix(".parity.json").write_text(json.dumps(report))
    return copy


def contents(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_a_new_model_brings_everything_that_belongs_to_it(checkout, screws, tmp_path):
    example = tmp_path / "my photo.PNG"
    example.write_bytes(encode(photo(40, 30), "PNG"))

    apply(plan(screws, example, checkout))

    assert checkout.model.read_bytes() == screws.read_bytes()
    parity = checkout.model.with_suffix(".parity.json")
    assert parity.read_bytes() == screws.with_suffix(".parity.json").read_bytes()
    assert [path.name for path in checkout.examples.iterdir()] == ["my-photo.png"]
    assert [path.name for path in checkout.golden.iterdir()] == ["examples.json"]
    record = json.loads((checkout.golden / "examples.json").read_text())
    assert set(record["my-photo.png"]) == {"M3", "M4", "wood", "dry wall"}
    assert sum(record["my-photo.png"].values()) == pytest.approx(1, abs=1e-4)
    template = (checkout.root / "template.yaml").read_text()
    assert "@examples/my-photo.png" in template
    assert "examples/pants" not in template
    page = (checkout.root / PAGE).read_text()
    assert "// examples/my-photo.png" in page
    assert page.count("EXAMPLE_WEBP = '") == 1
    assert not list(checkout.root.rglob("unfinished-*"))


def test_an_example_named_in_another_script_gets_a_plain_name(checkout, screws, tmp_path):
    example = tmp_path / "照片.jpg"
    example.write_bytes(encode(photo(40, 30), "JPEG"))

    apply(plan(screws, example, checkout))

    assert [path.name for path in checkout.examples.iterdir()] == ["example.jpg"]


def test_no_figure_and_no_word_of_the_old_model_stays(checkout, screws):
    apply(plan(screws, None, checkout))

    card = (checkout.root / "MODEL_CARD.md").read_text()
    assert card.count("not measured") >= 5
    assert "smoke test" in card
    assert "conversion was not checked" in card
    assert "| Licence | not stated |" in card
    assert not re.search(r"0\.9\d\d|cloth|garment|pants", card)
    readme = (checkout.root / "README.md").read_text()
    start = readme[: readme.index("## How it works")]
    assert "screws" in start
    ours = (
        r"0\.938|99\.18|pants|clothing-xception|ten kinds|USD\*\*|269 ms|calibrated|garment|"
        r"\d of \d|shipped (?!one, screws, knows 4 classes)|the released model"
    )
    assert not re.search(ours, start + (checkout.root / "docs" / "deploy.md").read_text())
    assert readme.rstrip().endswith("The model's licence: not stated.")


def test_no_word_of_an_adopted_model_stays_after_the_next(checkout, screws, tmp_path):
    words = {"name": "bolts", "title": "Which bolt is it?", "licence": "X-1.0"}
    apply(plan(with_report(screws, tmp_path / "old.tflite", **words), None, checkout))
    assert "bolts" in (checkout.root / "README.md").read_text()

    apply(plan(screws, None, checkout))

    for name in ("README.md", "MODEL_CARD.md", "template.yaml", "docs/deploy.md"):
        assert not re.search(r"bolt|X-1\.0", (checkout.root / name).read_text()), name


def test_an_own_example_is_drawn_if_none_is_given(checkout, screws):
    apply(plan(screws, None, checkout))

    assert [path.name for path in checkout.examples.iterdir()] == ["drawing.png"]


def write_photos(folder: Path, per_class: int) -> Path:
    for label in LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(per_class):
            (folder / label / f"{number}.png").write_bytes(encode(photo(30, 40), "PNG"))
    return folder


def test_the_lines_of_the_card_measure_the_model(checkout, screws, tmp_path, monkeypatch):
    apply(plan(screws, None, checkout))
    card = checkout.root / "MODEL_CARD.md"
    lines = re.findall(r"(?m)^\$ (.*)$", card.read_text())
    write_photos(checkout.root / "photos", 2)
    monkeypatch.chdir(checkout.root)

    for line in lines:
        python, *words = line.split()
        assert (python, *words[:2]) == (".venv/test/bin/python", "-m", "training")
        assert training(words[2:]) == 0

    assert "| accuracy | not measured" not in card.read_text()
    assert "on 8 images (photos)" in card.read_text()
    assert (checkout.root / "runs" / "mine-report" / "report.html").is_file()
    page = (checkout.root / "docs" / "own-model.md").read_text()
    assert len(lines) == 2
    assert "\n".join(f"$ {line}" for line in lines) in page


@pytest.fixture
def newer(screws, tmp_path):
    """A second version of the imported model."""
    return with_report(screws, tmp_path / "newer.tflite", version="2")


def test_a_new_version_records_the_named_data_set_again(checkout, screws, newer, tmp_path):
    apply(plan(screws, None, checkout))
    record = checkout.golden / "dataset.json"
    record.write_text("{}")
    write_photos(tmp_path / "data" / "validation", 6)

    with pytest.raises(DatasetError, match=r"no data set at .*nowhere\. Name one with DATASET="):
        plan(newer, None, checkout, tmp_path / "nowhere")
    apply(plan(newer, None, checkout, tmp_path / "data"))

    names = {f"validation/{label}/{n}.png" for label in LABELS for n in range(5)}
    assert set(json.loads(record.read_text())) == names


def test_a_new_version_keeps_examples_and_words(checkout, screws, newer):
    apply(plan(screws, None, checkout))
    (checkout.examples / ".DS_Store").write_bytes(b"of a Mac")
    before = contents(checkout.root)

    apply(plan(newer, None, checkout))

    changed = {name for name, data in contents(checkout.root).items() if before[name] != data}
    assert changed == {
        "MODEL_CARD.md",
        "lambda_function/model.parity.json",
        "lambda_function/model.tflite",
    }
    assert "screws 2" in (checkout.root / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("missing", ["model", "example"])
def test_a_file_that_is_not_there_is_named(checkout, screws, tmp_path, missing):
    nowhere = tmp_path / "nowhere"
    model, example = (nowhere, None) if missing == "model" else (screws, nowhere)

    with pytest.raises(AdoptionError, match=f"there is no file {nowhere}"):
        plan(model, example, checkout)


def without_report(model: Path) -> None:
    model.with_suffix(".parity.json").unlink()


def of_another_file(model: Path) -> None:
    model.write_bytes(with_metadata(model.read_bytes(), version="3"))


def failed_gate(model: Path) -> None:
    file = model.with_suffix(".parity.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "passed": False}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_report, "is missing beside"),
        (of_another_file, "is not the file that passed the gate"),
        (failed_gate, "failed the parity gate"),
    ],
)
def test_only_a_model_that_passed_the_gate_is_adopted(checkout, screws, tmp_path, damage, message):
    model = Path(shutil.copy(screws, tmp_path / "copy.tflite"))
    shutil.copy(screws.with_suffix(".parity.json"), model.with_suffix(".parity.json"))
    damage(model)
    before = contents(checkout.root)

    with pytest.raises(AdoptionError, match=message):
        plan(model, None, checkout)
    assert contents(checkout.root) == before


def test_an_example_that_is_no_image_is_named(checkout, screws):
    with pytest.raises(AdoptionError, match=r"the example .*test_adopt\.py cannot be used"):
        plan(screws, Path(__file__), checkout)


def test_a_file_that_cannot_be_written_leaves_everything_as_it_was(checkout, screws):
    changes = plan(screws, None, checkout)
    blocked = checkout.root / "MODEL_CARD.md"
    blocked.unlink()
    (blocked / "inside").mkdir(parents=True)  # a folder cannot be replaced by a file
    before = contents(checkout.root)

    with pytest.raises(OSError):
        apply(changes)
    assert contents(checkout.root) == before


def git(root: Path, *words: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


def test_uncommitted_files_are_not_replaced_unasked(checkout, screws, monkeypatch):
    changes = plan(screws, None, checkout)
    git(checkout.root, "init", "-q")
    git(checkout.root, "add", ".")
    git(checkout.root, "commit", "-qm", "all")
    assert adopt._may_replace(changes, checkout)
    (checkout.root / "MODEL_CARD.md").write_text("my own words")
    monkeypatch.setattr("sys.stdin", None)

    with pytest.raises(AdoptionError, match=r"no commit holds MODEL_CARD\.md\. Commit .*YES=1"):
        adopt._may_replace(changes, checkout)


@pytest.mark.parametrize("command", ["git", "no-such-program"])
def test_without_a_repository_every_file_is_asked_for(checkout, screws, monkeypatch, command):
    run = subprocess.run
    monkeypatch.setattr(
        adopt.subprocess, "run", lambda words, **how: run([command, *words[1:]], **how)
    )
    monkeypatch.setattr("sys.stdin", None)

    with pytest.raises(AdoptionError, match=r"no commit holds .*README\.md"):
        adopt._may_replace(plan(screws, None, checkout), checkout)


@pytest.mark.parametrize(("typed", "status"), [("n\n", 2), ("\n", 2), ("y\n", 0)])
def test_the_answer_decides_whether_files_are_replaced(
    checkout, screws, monkeypatch, typed, status
):
    terminal = io.StringIO(typed)
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr(adopt, "Checkout", lambda: checkout)
    before = contents(checkout.root)

    assert adopt.main([str(screws)]) == status

    assert (contents(checkout.root) == before) == (status == 2)


def test_the_printed_command_brings_back_what_was_committed(
    checkout, screws, newer, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(adopt, "Checkout", lambda: checkout)
    git(checkout.root, "init", "-q")
    git(checkout.root, "add", ".")
    git(checkout.root, "commit", "-qm", "all")
    example = tmp_path / "a photo.png"
    example.write_bytes(encode(photo(40, 30), "PNG"))
    (checkout.root / "Makefile").write_text("my own work")

    assert adopt.main([str(screws), "--yes"]) == 0
    assert adopt.main([str(newer), "--yes", "--example", str(example)]) == 0

    *_, undo, _, last = capsys.readouterr().out.splitlines()
    assert last == "Next: make test, make run (demo page), make deploy"
    command = undo.removeprefix("To undo: ")
    subprocess.run(["sh", "-c", command], cwd=checkout.root, check=True)
    status = ["git", "-C", str(checkout.root), "status", "--porcelain", "--untracked-files=all"]
    changed = subprocess.run(status, check=True, capture_output=True, text=True).stdout
    assert changed == "?? Makefile\n"


@pytest.mark.release
def test_the_release_has_its_own_name():
    assert read_metadata(SHIPPED_MODEL).name == "clothing-xception"
    assert (EXAMPLES / "pants.jpg").is_file()


def test_a_damaged_model_is_not_adopted(checkout, screws, tmp_path):
    model = tmp_path / "cut.tflite"
    model.write_bytes(screws.read_bytes()[:-50])
    report = json.loads(screws.with_suffix(".parity.json").read_text())
    report["artifact_sha256"] = adopt.hashlib.sha256(model.read_bytes()).hexdigest()
    model.with_suffix(".parity.json").write_text(json.dumps(report))

    with pytest.raises(MetadataError):
        plan(model, None, checkout)
