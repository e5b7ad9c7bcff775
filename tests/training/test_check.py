"""`data-check` counts what a data set holds and names every problem at once."""

from __future__ import annotations

import csv
import re
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from tests.training.test_split import write_noise
from training.commands import main
from training.data.check import list_splits
from training.data.dataset import is_split
from training.data.folds import load_parts
from training.data.split import split_for_run
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
    assert lines[3].split() == ["all", "12", "6"]
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


def layout(root: Path, *folders: str, images: int = 3) -> Path:
    """Write images into each folder. A name that ends in a slash gets none."""
    for number, name in enumerate(folders):
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(images if not name.endswith("/") else 0):
            write_noise(root / name / f"{index}.png", 100 * number + index)
    return root


@pytest.mark.parametrize(
    ("folders", "obstacle"),
    [
        (("hat",), "2 class folders are needed, and in {root} hat is the only one"),
        (
            ("photos/hat", "photos/skirt"),
            "2 class folders are needed, and in {root} photos is the only one. If the classes are "
            "inside it: make data-check DATASET={root}/photos",
        ),
        (("hat", "skirt", "sock/"), "class folders of {root} hold no image: sock. Remove them, or"),
        (("train/hat", "train/skirt", "train/sock/"), "class folders of {root}/train hold no"),
        (
            ("train/hat", "train/skirt", "val/hat", "val/skirt"),
            "{root}/val is not read under this name. Rename it to {root}/validation",
        ),
        (
            ("Training/hat", "Training/skirt", "Testing/hat", "Testing/skirt"),
            "{root}/Testing is not read under this name. Rename it to {root}/test",
        ),
        (
            ("validation/hat", "validation/skirt", "test/hat"),
            "{root} holds validation and no",
        ),
        (
            ("train/hat", "train/skirt", "validation/hat"),
            "the class folders of {root}/validation are not the expected ones. Missing: ['skirt']",
        ),
        (
            ("train/hat", "train/sock", "validation/hat", "validation/sock/"),
            "class folders of {root}/validation hold no image: sock.",
        ),
    ],
)
def test_what_training_refuses_is_named_and_training_refuses_it(
    folders: tuple[str, ...], obstacle: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path / "mine", *folders)
    obstacle = obstacle.format(root=root)

    shown, _ = check(root, tmp_path, capsys)

    assert shown.splitlines()[-1].startswith(f"Training would stop: {obstacle}")
    with pytest.raises(DatasetError, match=re.escape(obstacle)):
        load_parts(root if is_split(root) else split_for_run(root, tmp_path / "run"))


@pytest.mark.parametrize(
    "folders",
    [
        ("hat", "skirt"),
        ("train/hat", "train/skirt"),
        ("train/hat", "train/skirt", "test/hat", "test/skirt"),
        ("train/hat", "train/skirt", "validation/hat", "validation/skirt", "test/hat"),
    ],
)
def test_what_training_takes_is_named_with_the_command(
    folders: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = layout(tmp_path / "mine", *folders)

    shown, _ = check(root, tmp_path, capsys)

    assert shown.splitlines()[-1] == f"Next: make model DATASET={root}"
    training, validation = load_parts(
        root if is_split(root) else split_for_run(root, tmp_path / "run")
    )
    assert training.split.class_names == validation.split.class_names == ("hat", "skirt")


def test_a_class_too_small_to_split_and_an_unreadable_image_stop_training(
    split_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = split_folder / "train" / "hat" / "0.png"
    cut.write_bytes(cut.read_bytes()[:80])
    (split_folder / "test" / "hat").mkdir(parents=True)
    shutil.copy(cut, split_folder / "test" / "hat")  # training does not read it
    shown, _ = check(split_folder, tmp_path, capsys)
    assert shown.endswith("Training would stop: 1 images cannot be read. Remove them\n")

    cut.unlink()
    shutil.rmtree(split_folder / "validation")
    for path in list((split_folder / "train" / "hat").iterdir())[1:]:
        path.unlink()
    shown, _ = check(split_folder, tmp_path, capsys)
    assert "Training would stop: classes of " in shown
    assert "have too few images for 2 splits" in shown


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
