"""A folder of class folders is split by seed and class, and related images stay on one side."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.colours import printed_error
from training.commands import main
from training.data.dataset import find_dataset, is_split, load_split
from training.data.split import (
    RUN_SPLIT,
    assign_bundles,
    plan_split,
    read_groups,
    remove_split,
    split_for_run,
    write_split,
)
from training.errors import ConfigError, DatasetError


def write_noise(path: Path, seed: int) -> Path:
    """Write an image that resembles no other one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((60, 60), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes, of 20 and 10 images."""
    root = tmp_path / "screws"
    for index in range(20):
        write_noise(root / "wood screw" / f"{index}.png", index)
    for index in range(10):
        write_noise(root / "Dübel 钉" / f"{index}.png", 100 + index)
    return root


def names_of(root: Path, split: str) -> set[str]:
    return {f"{p.parent.name}/{p.name}" for p in load_split(root, split).paths}


def test_every_class_has_its_share_and_every_image_one_side(folder: Path, tmp_path: Path) -> None:
    assert main(["split", f"--dataset={folder}", f"--to={tmp_path / 'out'}"]) == 0

    train, validation = (load_split(tmp_path / "out", s) for s in ("train", "validation"))
    assert train.class_names == ("Dübel 钉", "wood screw")
    assert np.bincount(train.labels).tolist() == [8, 16]
    assert np.bincount(validation.labels).tolist() == [2, 4]
    assert names_of(tmp_path / "out", "train") & names_of(tmp_path / "out", "validation") == set()
    assert len(list(folder.rglob("*.png"))) == 30  # nothing was moved
    assert not list(tmp_path.glob("unfinished*"))


def test_a_test_split_is_made_if_it_has_a_share(folder: Path) -> None:
    plan = plan_split(folder, validation=0.2, test=0.2)

    assert [len(plan.splits[s]["wood screw"]) for s in plan.splits] == [12, 4, 4]


def test_the_seed_decides(folder: Path) -> None:
    first, again, other = (plan_split(folder, seed=seed).splits for seed in (1, 1, 2))

    assert first == again
    assert first != other


def test_equal_and_nearly_equal_images_stay_on_one_side(folder: Path) -> None:
    original = folder / "wood screw" / "0.png"
    (folder / "wood screw" / "copy.png").write_bytes(original.read_bytes())
    with Image.open(original) as image:
        image.convert("RGB").resize((90, 90)).save(folder / "wood screw" / "small.jpg", quality=80)

    for seed in range(5):
        plan = plan_split(folder, seed=seed)
        assert plan.grouped == 3
        sides = [
            split
            for split, classes in plan.splits.items()
            for path in classes["wood screw"]
            if path.name in ("0.png", "copy.png", "small.jpg")
        ]
        assert len(sides) == 3
        assert len(set(sides)) == 1


@pytest.mark.parametrize("form", ["{name}", "wood screw/{name}"])
def test_images_of_one_group_stay_on_one_side(folder: Path, tmp_path: Path, form: str) -> None:
    groups = tmp_path / "groups.csv"
    # Files of the other class have the same names, so a bare name is given to unique ones only.
    for index in range(20):
        (folder / "wood screw" / f"{index}.png").rename(folder / "wood screw" / f"w{index}.png")
    rows = [[form.format(name=f"w{index}.png"), f"lot {index % 4}"] for index in range(20)]
    with groups.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "group"], *rows])
    arguments = [f"--dataset={folder}", f"--to={tmp_path / 'out'}", f"--groups={groups}"]

    assert main(["split", *arguments]) == 0

    lots = {
        split: {int(Path(n).stem[1:]) % 4 for n in names_of(tmp_path / "out", split) if "/w" in n}
        for split in ("train", "validation")
    }
    assert lots["train"] | lots["validation"] == {0, 1, 2, 3}
    assert not lots["train"] & lots["validation"]
    assert len(lots["validation"]) == 1


def test_groups_name_images_in_any_form_and_unknown_images_are_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "wood screw" / "0.png").rename(folder / "wood screw" / "u\u0308.png")
    (folder / "wood screw" / "1.png").rename(folder / "wood screw" / "v.png")
    file = folder.parent / "groups.csv"
    file.write_text("image,group\n\u00fc.png,a\nv.png,a\nnobody.png,a\n", encoding="utf-8")

    plan = plan_split(folder, groups=read_groups(file))

    assert plan.grouped == 2
    assert "1 images of the groups are not in" in capsys.readouterr().out


def test_a_path_says_more_than_a_file_name(folder: Path) -> None:
    # 0.png is in both classes. The row of the name is for the image without a row of its own.
    plan = plan_split(folder, groups={"wood screw/0.png": "one", "0.png": "two"})

    assert plan.grouped == 0


def test_a_file_of_groups_may_come_from_excel_and_leave_groups_empty(tmp_path: Path) -> None:
    file = tmp_path / "groups.csv"
    file.write_text("image,group\n1.png,a\n2.png,\n", encoding="utf-8-sig")

    assert read_groups(file) == {"1.png": "a"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("image,group\nhat/ü.png,a\n".encode("latin-1"), r"is no CSV in UTF-8: .*Save it as CSV"),
        (b"image,group\n1.png,ann\n1.png,ben\n", "gives '1.png' two groups, 'ann' and 'ben'"),
        (b"image,sender\n1.png,\n2.png, \n", "names no group: the column sender is empty"),
    ],
)
def test_a_file_of_groups_that_would_keep_nobody_on_one_side_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "groups.csv").write_bytes(content)

    with pytest.raises(DatasetError, match=message):
        read_groups(tmp_path / "groups.csv")


def test_short_rows_and_blanks_around_a_group_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "groups.csv").write_text("group,image\nann,1.png\n ann ,2.png\nben\n")

    groups = read_groups(tmp_path / "groups.csv")

    assert groups["1.png"] == groups["2.png"] == "ann"


def test_a_large_group_leaves_the_shares_of_the_rest() -> None:
    # A group of 50 and 50 single images: 20 % of 100 are 20 of the single ones.
    counts = np.array([[50]] + [[1]] * 50)

    assigned = assign_bundles(counts, [0.8, 0.2], seed=0)

    assert assigned[0] == 0
    assert assigned[1:].sum() == 20


def test_every_class_is_in_every_split_even_with_two_images() -> None:
    assigned = assign_bundles(np.array([[1, 0], [1, 0], [0, 1], [0, 1]]), [0.8, 0.2], seed=0)

    assert sorted(assigned[:2]) == [0, 1]
    assert sorted(assigned[2:]) == [0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_the_largest_group_is_placed_first_so_that_small_ones_can_fill(seed: int) -> None:
    counts = np.array([[1]] * 20 + [[10]])

    assigned = assign_bundles(counts, [0.5, 0.5], seed=seed)

    assert counts[assigned == 0].sum() == 15


@pytest.mark.parametrize(
    ("counts", "shares"),
    [
        ([[0, 3], [2, 1], [1, 0]], [0.8, 0.2]),
        ([[4, 1], [1, 4], [2, 2]], [0.6, 0.2, 0.2]),
    ],
)
def test_no_split_loses_a_class_to_another_split(
    counts: list[list[int]], shares: list[float]
) -> None:
    # Nothing but one bundle for each split, or both small ones against the large one, is possible.
    bundles = np.array(counts)

    assigned = assign_bundles(bundles, shares, seed=0)

    for split in range(len(shares)):
        assert bundles[assigned == split].sum(axis=0).all(), assigned


def test_groups_that_leave_a_split_without_a_class_are_refused(tmp_path: Path) -> None:
    # Of three groups, each of two classes, one is alone on its side.
    groups = {}
    for number, names in enumerate(("ab", "bc", "ca")):
        for name in names:
            write_noise(tmp_path / "in" / name / f"{number}.png", 10 * number + ord(name))
            groups[f"{name}/{number}.png"] = names

    with pytest.raises(DatasetError, match=r"class '[abc]' of .* got no image in .*--seed"):
        plan_split(tmp_path / "in", groups=groups)


def test_files_that_are_no_image_are_left_out_and_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = folder / "wood screw" / "0.png"
    cut.write_bytes(cut.read_bytes()[:60])
    (folder / "wood screw" / "notes.txt").write_text("buy more")
    for number in range(7):
        (folder / f"{number}.csv").touch()
    (folder / "wood screw" / "._1.png").write_bytes(b"\x00\x05\x16\x07")

    assert main(["split", f"--dataset={folder}", f"--to={tmp_path / 'out'}"]) == 0

    shown, bars = capsys.readouterr()
    assert "left out: 1 x not an image: wood screw/notes.txt\n" in shown
    assert re.search(r"left out: 1 x .*: wood screw/0.png\n", shown)
    beside = ", ".join(f"{folder.name}/{number}.csv" for number in range(5))
    assert f"left out: 7 x lies beside the class folders, not in one: {beside} and 2 more" in shown
    assert bars == ""  # the output is no terminal
    assert not list((tmp_path / "out").rglob("0.png")) or all(
        path.parent.name != "wood screw" for path in (tmp_path / "out").rglob("0.png")
    )


def test_images_of_sub_folders_keep_their_class_and_get_names_of_their_own(tmp_path: Path) -> None:
    for index in range(4):
        write_noise(tmp_path / "in" / "a" / f"day {index}" / "1.png", index)
        write_noise(tmp_path / "in" / "b" / f"{index}.png", 50 + index)

    write_split(plan_split(tmp_path / "in", validation=0.5), tmp_path / "out")

    assert names_of(tmp_path / "out", "train") >= {"a/1.png", "a/1-2.png"}
    assert sum(1 for _ in (tmp_path / "out").rglob("*.png")) == 8


def test_images_are_copied_where_links_are_impossible(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr("os.link", link)

    write_split(plan_split(folder), tmp_path / "out")

    assert {path.stat().st_nlink for path in (tmp_path / "out").rglob("*.png")} == {1}
    assert len(list((tmp_path / "out").rglob("*.png"))) == 30


def test_a_split_that_fails_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    plan = plan_split(folder)
    plan.splits["validation"]["wood screw"][-1].unlink()

    with pytest.raises(FileNotFoundError):
        write_split(plan, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["screws"]


def test_links_are_hard_and_copies_are_copies(folder: Path, tmp_path: Path) -> None:
    plan = plan_split(folder)
    write_split(plan, tmp_path / "linked")
    write_split(plan, tmp_path / "copied", copy=True)

    counts = {
        place: {path.stat().st_nlink for path in (tmp_path / place).rglob("*.png")}
        for place in ("linked", "copied")
    }
    assert counts == {"linked": {2}, "copied": {1}}


def test_the_split_of_a_run_is_made_once_and_belongs_to_its_images(
    folder: Path, tmp_path: Path
) -> None:
    run = tmp_path / "runs" / "mine"
    images = split_for_run(folder, run)
    written = {path: path.stat().st_ino for path in images.rglob("*.png")}
    assert is_split(images)

    assert split_for_run(folder, run) == images
    assert {path: path.stat().st_ino for path in images.rglob("*.png")} == written
    with pytest.raises(ConfigError, match="or by other groups"):
        split_for_run(folder, run, {"0.png": "lot 1"})
    write_noise(folder / "wood screw" / "new.png", 999)
    with pytest.raises(ConfigError, match="was split from other images"):
        split_for_run(folder, run)


def test_the_split_of_a_run_without_its_record_is_not_trusted(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    split_for_run(folder, run)
    (run / RUN_SPLIT).unlink()

    with pytest.raises(ConfigError, match="was split from other images"):
        split_for_run(folder, run)


def test_a_run_that_fails_takes_back_its_own_split_and_nothing_else(
    folder: Path, tmp_path: Path
) -> None:
    alone, kept, foreign = (tmp_path / "runs" / name for name in ("alone", "kept", "foreign"))
    for run in (alone, kept):
        split_for_run(folder, run)
    (kept / "history.csv").write_text("epoch\n")
    (foreign / "images" / "hat").mkdir(parents=True)

    for run in (alone, kept, foreign):
        remove_split(run)

    assert not alone.exists()
    assert [path.name for path in kept.iterdir()] == ["history.csv"]
    assert (foreign / "images" / "hat").is_dir()


def test_the_split_of_a_run_keeps_groups_on_one_side(folder: Path, tmp_path: Path) -> None:
    halves = {f"wood screw/{index}.png": f"lot {index % 2}" for index in range(20)}

    images = split_for_run(folder, tmp_path / "runs" / "mine", halves)

    screws = {Path(name).stem for name in names_of(images, "validation") if "screw" in name}
    assert screws in ({str(i) for i in range(0, 20, 2)}, {str(i) for i in range(1, 20, 2)})


def test_bad_input_is_one_sentence_and_nothing_is_written(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    arguments = ["split", f"--dataset={folder}", f"--to={out}"]

    assert main([*arguments, "--validation=0"]) == 2
    assert "Received: validation 0.0, test 0.0" in printed_error(capsys)
    assert main([*arguments, "--validation=0.6", "--test=0.4"]) == 2
    assert "below 1 together. Received: validation 0.6, test 0.4" in printed_error(capsys)
    assert main([*arguments, "--seed=-1"]) == 2
    assert "seed" in printed_error(capsys)
    assert main([*arguments, f"--groups={tmp_path / 'absent.csv'}"]) == 2
    assert "no file of groups at" in printed_error(capsys)
    (tmp_path / "groups.csv").write_text("file,person\n1.png,ada\n")
    assert main([*arguments, f"--groups={tmp_path / 'groups.csv'}"]) == 2
    assert "must have the columns image and group. Received: file, person" in printed_error(capsys)
    (tmp_path / "groups.csv").write_text("image,group\nnobody.png,ada\n")
    assert main([*arguments, f"--groups={tmp_path / 'groups.csv'}"]) == 2
    assert "no image of the groups is in" in printed_error(capsys)
    assert main(["split", f"--dataset={folder.parent}", f"--to={tmp_path.parent / 'out'}"]) == 2
    assert "2 class folders are needed, and in" in printed_error(capsys)
    write_noise(folder / "rare" / "1.png", 500)
    assert main(arguments) == 2
    assert "too few images for 2 splits" in printed_error(capsys)
    assert not out.exists()
    out.mkdir()
    assert main(arguments) == 2
    assert "exists already" in printed_error(capsys)
    assert list(out.iterdir()) == []
    inside = folder / "rare" / "split"
    assert main(["split", f"--dataset={folder}", f"--to={inside}"]) == 2
    assert "is inside the data set" in printed_error(capsys)
    assert not inside.exists()


def test_a_split_data_set_is_not_split_again(folder: Path, tmp_path: Path) -> None:
    write_split(plan_split(folder), tmp_path / "out")

    with pytest.raises(DatasetError, match=r"is split already: .* make model DATASET=.*out$"):
        plan_split(tmp_path / "out")


def test_train_without_validation_is_split_and_test_stays_out(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "theirs"
    folder.rename(tmp_path / "train")
    root.mkdir()
    (tmp_path / "train").rename(root / "train")
    write_noise(root / "test" / "wood screw" / "unseen.png", 900)
    groups = {f"train/wood screw/{index}.png": f"lot {index % 2}" for index in range(20)}

    images = split_for_run(root, tmp_path / "run", groups)

    found = names_of(images, "train") | names_of(images, "validation")
    assert len(found) == 30
    assert "wood screw/unseen.png" not in found
    screws = {Path(name).stem for name in names_of(images, "validation") if "screw" in name}
    assert screws in ({str(i) for i in range(0, 20, 2)}, {str(i) for i in range(1, 20, 2)})
    assert split_for_run(root, tmp_path / "run", groups) == images
    assert find_dataset(root, model=tmp_path / "run") == images
