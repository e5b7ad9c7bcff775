"""A data set on disk is read as it is, or refused with a sentence that names what is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lambda_function.metadata import InputSpec
from training.data.augment import augment
from training.data.dataset import (
    find_dataset,
    list_images,
    list_unlabelled,
    load_folder,
    load_split,
)
from training.data.images import batches, load_image
from training.errors import ConfigError, DatasetError

SPEC = InputSpec(8, 6)


def write_image(path: Path, colour: tuple[int, int, int] = (200, 30, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 16), colour).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("train/skirt/b.jpg", "train/skirt/a.PNG", "train/hat/c.webp", "train/hat/d.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "train" / "hat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".cache").mkdir()
    return tmp_path


def test_images_come_sorted_by_class_and_name(root: Path) -> None:
    split = load_split(root, "train")
    assert split.class_names == ("hat", "skirt")
    assert [path.name for path in split.paths] == ["c.webp", "d.jpg", "a.PNG", "b.jpg"]
    assert split.labels.tolist() == [0, 0, 1, 1]
    assert split.labels.dtype == np.int64
    assert len(split) == 4


def test_the_given_order_of_classes_is_kept(root: Path) -> None:
    split = load_split(root, "train", ("skirt", "hat"))
    assert [path.name for path in split.paths] == ["a.PNG", "b.jpg", "c.webp", "d.jpg"]
    assert split.labels.tolist() == [0, 0, 1, 1]


def test_a_subset_keeps_paths_and_labels_together(root: Path) -> None:
    subset = load_split(root, "train").subset(np.array([3, 0]))
    assert [path.name for path in subset.paths] == ["b.jpg", "c.webp"]
    assert subset.labels.tolist() == [1, 0]


def test_a_negative_limit_is_refused(root: Path) -> None:
    assert len(load_split(root, "train").subsample(2)) == 2
    with pytest.raises(ConfigError, match=r"limit must be 0 or more\. Received: -3"):
        load_split(root, "train").subsample(-3)


def test_missing_and_unknown_class_folders_are_both_named(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"Missing: \['shoes'\]. Unknown: \['skirt'\]"):
        load_split(root, "train", ("hat", "shoes"))


def test_an_empty_class_folder_is_named(root: Path) -> None:
    (root / "train" / "dress").mkdir()
    with pytest.raises(
        DatasetError, match=r"hold no image: dress\. Left out: 1 x .*Remove them, or"
    ):
        load_split(root, "train")


def test_one_class_is_not_a_classification(tmp_path: Path) -> None:
    write_image(tmp_path / "hat" / "a.jpg")
    with pytest.raises(DatasetError, match=r"2 class folders are needed, .* hat is the only one$"):
        load_folder(tmp_path)


@pytest.mark.parametrize("name", [" hat", "hat ", "two\nlines"])
def test_a_class_folder_that_no_label_can_name_is_refused_before_training(
    root: Path, name: str
) -> None:
    (root / "train" / "hat").rename(root / "train" / name)
    with pytest.raises(DatasetError, match=re.escape(f"control characters: {name!r}. Rename")):
        load_split(root, "train")


@pytest.mark.parametrize("place", ["{}", "hat/{}.jpg", "{}.txt"])
def test_a_name_that_is_no_unicode_is_refused_before_a_report_holds_it(
    root: Path, place: str
) -> None:
    bad = root / "train" / place.format("gr\udcfcn")  # a byte of Latin-1
    if bad.suffix:
        write_image(root / "ok.jpg").rename(bad)
    else:
        (root / "train" / "skirt").rename(bad)
    with pytest.raises(DatasetError, match=r"gr\\udcfcn.*' is not UTF-8, .* Rename it"):
        list_images(root / "train")


def test_images_in_sub_folders_have_names_of_their_own(tmp_path: Path) -> None:
    for name in ("hat/day/1.jpg", "skirt/day/1.jpg", "skirt/2.jpg"):
        write_image(tmp_path / name)
    assert load_folder(tmp_path).names == ("hat/day/1.jpg", "skirt/2.jpg", "skirt/day/1.jpg")


def test_a_missing_split_and_an_unknown_one_are_told_apart(root: Path) -> None:
    with pytest.raises(DatasetError, match=r"no split 'test'\. Put images .* into .*/test, one"):
        load_split(root, "test")
    command = f"make split DATASET={root / 'train'} TO=new-folder"
    with pytest.raises(DatasetError, match=f"no split 'validation'. Next: {command}$"):
        load_split(root, "validation")
    with pytest.raises(DatasetError, match=f"{command} ARGS='--test 0.2', then train on the new"):
        load_split(root / "train", "test")
    with pytest.raises(DatasetError, match="must be one of"):
        load_split(root, "dev")


def test_the_data_set_is_found_by_argument_then_environment(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOTHING_DATASET", str(root / "train"))
    assert find_dataset(root) == root
    assert find_dataset() == root / "train"


def test_images_that_a_run_split_are_its_data_set_unless_another_split_one_is_named(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOTHING_DATASET", raising=False)
    run = tmp_path_factory.mktemp("run")
    images = run / "images"
    for split in ("train", "validation"):
        write_image(images / split / "hat" / "a.jpg")
    for model in (run, run / "model.keras"):
        assert find_dataset(model=model) == images
        assert find_dataset(root, model=model) == images  # not split
        (root / "validation").mkdir()
        assert find_dataset(root, model=model) == root
        (root / "validation").rmdir()


def test_a_data_set_that_is_not_there_says_how_to_name_one(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"at .*absent\. Name one with DATASET=.*CLOTHING_"):
        find_dataset(tmp_path / "absent")


def test_unlabelled_images_lie_flat_or_in_sub_folders(tmp_path: Path) -> None:
    for name in ("b.jpg", "hat/a.png", "hat/old/c.webp", ".hidden/d.jpg"):
        write_image(tmp_path / name)
    (tmp_path / "labels.csv").write_text("image,label\n")
    listed = [path.relative_to(tmp_path).as_posix() for path in list_unlabelled(tmp_path)]
    assert listed == ["b.jpg", "hat/a.png", "hat/old/c.webp"]


def test_a_folder_without_unlabelled_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere is no folder: name another one"):
        list_unlabelled(tmp_path / "nowhere")
    (tmp_path / "labels.csv").write_text("image,label\n")
    with pytest.raises(ConfigError, match=f"{tmp_path} holds no image: name another one"):
        list_unlabelled(tmp_path)


def test_an_unreadable_image_is_named(root: Path) -> None:
    broken = root / "train" / "hat" / "c.webp"
    broken.write_bytes(broken.read_bytes()[:30])
    with pytest.raises(DatasetError, match=r"c\.webp cannot be used"):
        list(batches(load_split(root, "train"), SPEC))


def test_images_are_scaled_to_minus_one_to_one_in_rgb_order(tmp_path: Path) -> None:
    path = write_image(tmp_path / "red.png", (255, 0, 51))
    found = load_image(path, SPEC)
    assert found.shape == (8, 6, 3)
    assert found.dtype == np.float32
    # 255 -> 1, 0 -> -1, 51 -> 51 / 127.5 - 1
    assert found[4, 3].tolist() == pytest.approx([1.0, -1.0, -0.6], abs=1e-6)


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_batches_are_in_order_whatever_their_size(tmp_path: Path, size: int) -> None:
    for index in range(7):
        write_image(tmp_path / ("hat" if index < 3 else "skirt") / f"{index}.png", (index, 0, 0))
    split = load_folder(tmp_path)
    found = list(batches(split, SPEC, size=size))
    assert [len(batch) for batch in found[:-1]] == [size] * (len(found) - 1)
    red = np.concatenate(found)[:, 0, 0, 0]
    assert np.round((red + 1) * 127.5).tolist() == [0, 1, 2, 3, 4, 5, 6]
    later = np.concatenate(list(batches(split, SPEC, size=size, start=5)))[:, 0, 0, 0]
    assert np.round((later + 1) * 127.5).tolist() == [5, 6]


def drawing() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_view_0_is_the_image_and_view_1_its_mirror_image() -> None:
    image = drawing()
    assert augment(image, view=0, index=5, seed=1) is image
    mirrored = np.asarray(augment(image, view=1, index=5, seed=1))
    assert np.array_equal(mirrored, np.asarray(image)[:, ::-1])


def test_random_views_repeat_for_equal_arguments_and_differ_otherwise() -> None:
    image = drawing()
    first = augment(image, view=2, index=0, seed=0).tobytes()
    assert augment(image, view=2, index=0, seed=0).tobytes() == first
    for other in ({"view": 3}, {"index": 1}, {"seed": 1}):
        arguments = {"view": 2, "index": 0, "seed": 0, **other}
        assert augment(image, **arguments).tobytes() != first, other


def test_recompression_is_the_last_step_of_random_views_and_no_others() -> None:
    image = drawing()
    for view in (0, 1):
        again = augment(image, view=view, index=0, seed=0, recompress=True)
        assert again.tobytes() == augment(image, view=view, index=0, seed=0).tobytes()
    plain = augment(image, view=2, index=0, seed=0)
    resaved = augment(image, view=2, index=0, seed=0, recompress=True)
    assert resaved.tobytes() == augment(image, view=2, index=0, seed=0, recompress=True).tobytes()
    assert (resaved.mode, resaved.size) == (plain.mode, plain.size)
    assert resaved.tobytes() != plain.tobytes()


def test_random_views_keep_at_least_the_stated_share_of_the_area() -> None:
    image = Image.new("RGB", (300, 400))
    for index in range(50):
        view = augment(image, view=2, index=index, seed=0)
        assert view.mode == "RGB"
        # Half the area, less what clipping a stretched side to the image can take.
        assert view.width * view.height >= 0.5 * 0.85 * 300 * 400
        assert view.width <= 300
        assert view.height <= 400
