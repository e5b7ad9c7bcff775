"""`data-check` counts what a data set holds and names every problem at once."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from tests.training.test_split import write_noise
from training.commands import main
from training.data.check import list_splits
from training.errors import DatasetError


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    """A split data set of two classes, whose problems each test adds."""
    root = tmp_path / "mine"
    for number, (split, count) in enumerate((("train", 6), ("validation", 3))):
        for label, offset in (("hat", 0), ("skirt", 50)):
            for index in range(count):
                write_noise(root / split / label / f"{index}.png", 1000 * number + offset + index)
    return root


def check(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[str, list[dict[str, str]]]:
    assert main(["data-check", f"--dataset={root}", f"--out={tmp_path / 'report'}"]) == 0
    with (tmp_path / "report" / "mine.csv").open(newline="", encoding="utf-8") as file:
        return capsys.readouterr().out, list(csv.DictReader(file))


def test_a_clean_data_set_is_a_table_and_an_empty_report(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown, rows = check(split_folder, tmp_path, capsys)

    assert rows == []
    lines = shown.splitlines()
    assert lines[0].split() == ["class", "train", "validation"]
    assert lines[1].split() == ["hat", "6", "3"]
    assert lines[3].split() == ["12", "6"]
    assert "small classes, below 20 images: hat, skirt" in shown
    assert lines[-1] == f"Next: make model DATASET={split_folder}"


def test_all_problems_are_named_at_once_across_splits_first(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, validation = split_folder / "train", split_folder / "validation"
    original = (train / "hat" / "0.png").read_bytes()
    (validation / "hat" / "copy.png").write_bytes(original)
    (train / "skirt" / "mistake.png").write_bytes((train / "hat" / "1.png").read_bytes())
    with Image.open(train / "skirt" / "2.png") as image:
        image.resize((45, 45)).convert("RGB").save(validation / "skirt" / "again.jpg", quality=85)
    (train / "hat" / "cut.png").write_bytes(original[:80])
    (train / "hat" / "scan.tif").write_bytes(b"II*\0" + b"\0" * 20)
    (train / "hat" / "empty.jpg").touch()
    (train / "readme.md").write_text("# mine")
    (train / "hat" / "._0.png").write_bytes(b"\0\5\x16\7")
    (train / "hat" / ".DS_Store").write_bytes(b"\0")

    shown, rows = check(split_folder, tmp_path, capsys)

    found = [(row["problem"], row["file"], row["detail"].partition(":")[0]) for row in rows]
    assert found[:4] == [
        ("duplicate across splits", "validation/hat/copy.png", "train/hat/0.png"),
        ("near-duplicate across splits", "validation/skirt/again.jpg", "train/skirt/2.png"),
        ("duplicate in two classes", "train/skirt/mistake.png", "train/hat/1.png"),
        ("unreadable", "train/hat/cut.png", found[3][2]),
    ]
    assert found[4:] == [
        ("unreadable", "train/hat/empty.jpg", "The image is empty"),
        ("left out", "train/hat/scan.tif", "TIFF is not supported"),
        ("left out", "train/readme.md", "lies beside the class folders, not in one"),
    ]
    assert (rows[0]["split"], rows[0]["class"]) == ("validation", "hat")
    assert shown.index("duplicate across splits: 1") < shown.index("unreadable: 2")


def test_folders_and_classes_of_one_split_only_are_named(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_noise(split_folder / "train" / "sock" / "1.png", 500)
    write_noise(split_folder / "val" / "hat" / "1.png", 501)

    shown, rows = check(split_folder, tmp_path, capsys)

    assert "classes of only one of train and validation: sock" in shown
    assert [(row["file"], row["detail"]) for row in rows] == [("val", "a folder that is no split")]


def test_many_problems_of_a_kind_are_counted_and_hidden_folders_are_none(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(12):
        (split_folder / "train" / "hat" / f"{index}.txt").write_text("notes")
    write_noise(split_folder / ".cache" / "hat" / "1.png", 1)

    shown, rows = check(split_folder, tmp_path, capsys)

    assert len(rows) == 12
    assert shown.count(".txt: not an image") == 10
    assert "  and 2 more\n" in shown


def test_an_unsplit_folder_is_one_column(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(30):
        write_noise(tmp_path / "mine" / "many" / f"{index}.png", index)
    write_noise(tmp_path / "mine" / "few" / "1.png", 99)

    shown, rows = check(tmp_path / "mine", tmp_path, capsys)

    assert rows == []
    assert shown.splitlines()[0].split() == ["class", "all"]
    assert "uneven classes: many has 30 images, few 1" in shown


def test_images_are_recognised_by_content_in_sub_folders_too(tmp_path: Path) -> None:
    images = tmp_path / "mine" / "hat"
    jpeg = write_noise(images / "a.jpg", 1)
    jpeg.rename(images / "a.jfif")
    write_noise(images / "b.png", 2).rename(images / "no ending")
    write_noise(images / "2024" / "c.webp", 3)
    write_noise(images / "d.png", 4).rename(images / "d.txt")
    write_noise(images / ".thumbnails" / "a.png", 5)
    write_noise(tmp_path / "mine" / ".cache" / "a.png", 6)
    write_noise(tmp_path / "mine" / "__MACOSX" / "a.png", 7)  # of a Mac's ZIP

    listing = list_splits(tmp_path / "mine")["all"]

    (images / "gone.png").symlink_to("/nowhere.png")
    left_out = list_splits(tmp_path / "mine")["all"].left_out
    assert list(listing.images) == ["hat"]
    assert [p.name for p in listing.images["hat"]] == ["c.webp", "a.jfif", "d.txt", "no ending"]
    assert listing.left_out == []
    reasons = [(entry.path.name, entry.reason) for entry in left_out]
    assert reasons == [("gone.png", "cannot be read: No such file or directory")]


def test_a_class_may_be_named_train(tmp_path: Path) -> None:
    write_noise(tmp_path / "mine" / "train" / "1.png", 1)
    write_noise(tmp_path / "mine" / "bus" / "1.png", 2)

    assert list(list_splits(tmp_path / "mine")["all"].images) == ["bus", "train"]


def test_composed_and_decomposed_names_of_a_class_are_one_class(tmp_path: Path) -> None:
    for form, seed in (("NFC", 1), ("NFD", 2)):
        name = unicodedata.normalize(form, "Dübel")  # type: ignore[arg-type]
        write_noise(tmp_path / "mine" / name / f"{seed}.png", seed)

    listing = list_splits(tmp_path / "mine")["all"]

    assert [(name, len(paths)) for name, paths in listing.images.items()] == [("Dübel", 2)]


def test_a_link_to_a_folder_above_itself_ends(tmp_path: Path) -> None:
    write_noise(tmp_path / "mine" / "hat" / "1.png", 1)
    (tmp_path / "mine" / "hat" / "loop").symlink_to(tmp_path / "mine" / "hat")

    assert len(list_splits(tmp_path / "mine")["all"].images["hat"]) == 1


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine" / "hat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="no class folder with an image"):
        list_splits(tmp_path / "mine")
