"""Folds of cross-validation: groups stay together, and models of folds are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.commands import main
from training.config import TrainConfig
from training.data.dataset import Split
from training.data.folds import (
    Fold,
    Part,
    assign_folds,
    groups_of,
    load_unlabelled,
    refuse_fold,
)
from training.errors import ConfigError, DatasetError


def test_folds_share_every_class_equally() -> None:
    labels = np.array([0] * 50 + [1] * 23 + [2] * 7)

    assigned = assign_folds(labels, 5, seed=0)

    for label in range(3):
        counts = np.bincount(assigned[labels == label], minlength=5)
        assert counts.sum() == (labels == label).sum()
        assert counts.max() - counts.min() <= 1
    assert not np.array_equal(assigned, assign_folds(labels, 5, seed=1))


def test_more_folds_than_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 folds of 4 images leave some empty"):
        assign_folds(np.zeros(4, dtype=np.int64), 5, seed=0)


@pytest.mark.parametrize(("index", "count"), [(0, 1), (5, 5), (-1, 5)])
def test_a_wrong_fold_is_named(index: int, count: int) -> None:
    with pytest.raises(ConfigError, match=f"2 or more.*Received: fold {index} of {count}"):
        Fold(index, count)


@pytest.mark.training
def test_a_model_of_a_fold_becomes_no_release_nor_its_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from converter.errors import SourceError
    from converter.sources.run_folder import open_source

    run = tmp_path / "fold"
    run.mkdir()
    described = {**TrainConfig(name="fold").to_dict(), "fold": {"index": 1, "count": 5}}
    (run / "config.json").write_text(json.dumps({**described, "labels": ["a", "b"]}))
    (run / "report.json").write_text(json.dumps({"temperature": 1.0}))
    (run / "model.keras").write_bytes(b"")
    assert main(["release", str(run), "--version", "9.9.9"]) == 2
    assert "is fold 1 of 5: it has learned from validation" in capsys.readouterr().err
    with pytest.raises(SourceError, match="is of a cross-validation"):
        open_source(run / "model.keras")


def test_a_group_stays_in_one_fold_and_classes_are_shared_as_groups_allow() -> None:
    labels = np.tile([0, 0, 0, 1], 50)
    groups = [f"person {i // 4}" for i in range(200)]  # 50 people, 3 + 1 images each

    assigned = assign_folds(labels, 5, seed=0, groups=groups)

    for group in set(groups):
        assert len({assigned[i] for i in range(200) if groups[i] == group}) == 1
    for fold in range(5):
        assert np.bincount(labels[assigned == fold]).tolist() == [30, 10]


def test_more_folds_than_groups_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 folds of 2 groups leave some empty"):
        assign_folds(np.zeros(9, dtype=np.int64), 3, seed=0, groups=["a"] * 5 + ["b"] * 4)


@pytest.mark.parametrize(
    ("fold", "message"),
    [(None, "fold 1 of 5"), (Fold(2, 5, "s.csv"), "judge in Fold"), (Fold(1, 5), "judge in Fold")],
)
def test_a_model_is_not_used_where_it_has_seen_the_judges(fold: Fold | None, message: str) -> None:
    described = {"fold": {"index": 1, "count": 5, "groups": "s.csv"}}
    with pytest.raises(ConfigError, match=message):
        refuse_fold(described, Path("runs/x"), fold)
    refuse_fold(described, Path("runs/x"), Fold(1, 5, "s.csv"))
    refuse_fold({}, Path("runs/x"), None)
    if fold:
        with pytest.raises(ConfigError, match="judge in Fold"):
            refuse_fold({}, Path("runs/x"), fold)  # trained on the whole of train


def test_groups_of_a_folder_fit_its_split_and_may_name_files_alone(tmp_path: Path) -> None:
    split = Split(
        (tmp_path / "validation" / "hat" / "1.png", tmp_path / "validation" / "skirt" / "2.png"),
        np.array([0, 1]),
        ("hat", "skirt"),
    )
    (tmp_path / "people.csv").write_text("image,group\nhat/1.png,ann\n2.png,bob\n")

    assert groups_of(split, tmp_path, tmp_path / "people.csv") == ["ann", "bob"]


def test_unlabelled_images_of_people_who_judge_are_left_out_of_their_fold(tmp_path: Path) -> None:
    folder, senders = tmp_path / "other", tmp_path / "senders.csv"
    folder.mkdir()
    for name in "abc":
        Image.new("RGB", (9, 9)).save(folder / f"{name}.png")
    senders.write_text("image,sender\ntrain/hat/1.png,ann\nvalidation/hat/2.png,bob\n")
    split = Split((tmp_path / "train/hat/1.png",), np.array([0]), ("hat", "skirt"))

    def load(fold: Fold | None) -> str:
        paths = load_unlabelled(folder, Part.all_of(split), tmp_path, fold)
        return "".join(path.stem for path in paths)

    by_sender = Fold(0, 2, str(senders))
    with pytest.raises(ConfigError, match=r"name the group of each in .*labels\.csv"):
        load(by_sender)
    (folder / "labels.csv").write_text("image,label,sender\na.png,polo,bob\nb.png,body,ann\n")
    with pytest.raises(DatasetError, match=r"misses 1 of 3 images, the first is 'c\.png'"):
        load(by_sender)
    with (folder / "labels.csv").open("a") as file:
        file.write("c.png,polo,eve\n")
    assert load(by_sender) == "ac"  # Ann judges
    assert load(None) == load(Fold(0, 2)) == "abc"
