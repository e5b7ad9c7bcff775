"""Batches of cached activations repeat by seed and epoch, blend as told and weigh classes."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import signal
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.data import augment  # noqa: E402
from training.data.dataset import Split, load_split  # noqa: E402
from training.data.images import load_image  # noqa: E402
from training.data.training_batches import (  # noqa: E402
    AugmentedImages,
    Batch,
    CachedFeatures,
    PlainImages,
    class_weights,
    cut_mix,
)
from training.data.workers import MAX_THREADED_CORES  # noqa: E402
from training.errors import ConfigError, DatasetError  # noqa: E402

pytestmark = pytest.mark.training

CONFIG = TrainConfig(views=2, batch_size=8, mixup_alpha=0.0)


def views(config: TrainConfig, images: int = 20) -> CachedFeatures:
    """Views whose activations tell image and view: 10 * image + view."""
    rows = np.arange(images, dtype=np.float16)[:, None] * 10
    return CachedFeatures([rows, rows + 1], np.arange(images) % 3, 3, config)


def test_an_epoch_shows_every_image_once_but_the_incomplete_batch() -> None:
    config = dataclasses.replace(CONFIG, batch_size=6)
    dataset = views(config)
    dataset.start_epoch(0)
    assert len(dataset) == 3
    shown = np.concatenate([dataset[i][0] for i in range(3)])[:, 0]
    images = (shown // 10).astype(int)
    assert len(set(images)) == 18
    assert set((shown % 10).astype(int)) == {0, 1}
    targets = np.concatenate([dataset[i][1] for i in range(3)])
    assert targets.argmax(axis=1).tolist() == (images % 3).tolist()


def test_epochs_repeat_for_a_resumed_run_and_differ_from_each_other() -> None:
    first, again = views(CONFIG), views(CONFIG)
    first.start_epoch(0)
    start_of_epoch_0 = first[0][0]
    first.start_epoch(1)
    again.start_epoch(1)
    assert np.array_equal(first[0][0], again[0][0])
    assert not np.array_equal(first[0][0], start_of_epoch_0)


def test_mixup_blends_activations_and_targets_by_the_same_share() -> None:
    dataset = views(dataclasses.replace(CONFIG, mixup_alpha=1.0, batch_size=20), images=20)
    dataset.start_epoch(0)
    _, targets, _ = dataset[0]
    assert targets.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-6)
    shares = np.unique(np.round(targets[(targets > 0) & (targets < 1)], 5))
    assert len(shares) == 2
    assert shares.sum() == pytest.approx(1.0, abs=1e-4)


def test_cutmix_pastes_a_rectangle_and_blends_targets_by_its_area() -> None:
    images = np.arange(6, dtype=np.float32)[:, None, None, None] * np.ones(
        (1, 8, 10, 1), np.float32
    )
    targets = np.eye(6, dtype=np.float32)
    mixed, blended = cut_mix(images, targets, np.random.default_rng(3), 1.0)
    foreign = mixed[..., 0] != np.arange(6)[:, None, None]
    partners = blended * (1 - targets)
    assert foreign.any()
    for number in range(6):
        rows, columns = np.nonzero(foreign[number])
        if not len(rows):
            continue  # its own partner
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height * width == len(rows)  # a full rectangle
        partner = int(mixed[number, rows[0], columns[0], 0])
        assert partners[number].argmax() == partner
        assert blended[number, partner] == pytest.approx(height * width / 80)
        assert blended[number].sum() == pytest.approx(1.0)


def test_where_mixup_and_cutmix_are_set_batches_get_one_of_them() -> None:
    config = dataclasses.replace(CONFIG, mixup_alpha=1.0, cutmix_alpha=1.0, batch_size=4)
    spatial = np.arange(40, dtype=np.float16)[:, None, None, None] * np.ones((1, 6, 6, 1))
    dataset = CachedFeatures([spatial.astype(np.float16)], np.arange(40) % 3, 3, config)
    whole = [np.ptp(dataset[i][0], axis=(1, 2, 3)).max() < 1e-4 for i in range(len(dataset))]
    assert 0 < sum(whole) < len(whole)  # MixUp leaves every image even, CutMix does not


@pytest.mark.parametrize(
    ("kind", "expected"),
    # 6 images of one class and 2 of another: balanced is 1/6 to 1/2, scaled to a mean of 1.
    [("none", (1.0, 1.0)), ("balanced", (2 / 3, 2.0)), ("sqrt", (0.8453, 1.4641))],
)
def test_rare_classes_count_more(kind: str, expected: tuple[float, float]) -> None:
    labels = np.array([0] * 6 + [1] * 2)

    weights = class_weights(labels, 2, kind)

    assert weights == pytest.approx(np.array(expected), abs=1e-4)
    assert weights[labels].mean() == pytest.approx(1.0)


def test_a_blended_image_has_the_blended_weight() -> None:
    config = dataclasses.replace(CONFIG, class_weights="balanced", mixup_alpha=1.0)
    labels = np.array([0] * 6 + [1] * 2)
    dataset = CachedFeatures([np.zeros((8, 1), np.float16)], labels, 2, config)

    _, targets, weights = dataset[0]

    assert weights == pytest.approx(targets[:, 0] * 2 / 3 + targets[:, 1] * 2.0)


def test_a_teacher_gives_its_share_of_the_target() -> None:
    views = [np.zeros((8, 1), np.float16)] * 2
    said = [np.full((8, 2), (0.25, 0.75), np.float16)] * 2
    config = dataclasses.replace(CONFIG, teacher="any", teacher_share=0.5)
    dataset = CachedFeatures(views, np.zeros(8, int), 2, config, taught=said)

    _, targets, weights = dataset[0]

    assert targets == pytest.approx(np.tile([0.625, 0.375], (8, 1)))  # half of (1, 0), half of said
    assert weights == pytest.approx(np.ones(8))


# --- images, varied anew -----------------------------------------------------

STRONG = TrainConfig(
    input=InputSpec(90, 100), train_size=80, augmentation="strong", batch_size=8, mixup_alpha=0.0
)


def test_images_are_varied_anew_in_every_epoch_and_repeat_for_a_resumed_run(
    drawings: Path,
) -> None:
    split = load_split(drawings, "train")
    first, again = AugmentedImages(split, STRONG), AugmentedImages(split, STRONG)
    first.start_epoch(0)
    images, targets, weights = first[0]
    assert images.shape == (8, 80, 80, 3)
    assert images.min() >= -1
    assert images.max() <= 1
    assert targets.sum(axis=1).tolist() == weights.tolist() == [1.0] * 8
    first.start_epoch(1)
    again.start_epoch(1)
    repeated = again[0]
    assert np.array_equal(first[0][0], repeated[0])
    assert not np.array_equal(images, repeated[0])
    assert list(first.served_s) == [0]  # of this epoch


class DarkOrLight:
    """A teacher: dark images are of class 1, light ones of class 0."""

    def predict_on_batch(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.eye(3, dtype=np.float32)[(images.mean(axis=(1, 2, 3)) < 0).astype(int)]


def with_unlabelled(folder: Path, config: TrainConfig, cores: int | None = None) -> AugmentedImages:
    """Four light images, of class 0, 2, 2 and 2, and two dark ones without a label."""
    paths = tuple(folder / f"{number}.png" for number in range(6))
    for number, path in enumerate(paths):
        Image.new("RGB", (90, 90), "white" if number < 4 else "black").save(path)
    split = Split(paths[:4], np.array([0, 2, 2, 2]), ("a", "b", "c"))
    return AugmentedImages(split, config, DarkOrLight(), paths[4:], cores)


TAUGHT = dataclasses.replace(
    STRONG, teacher="any", teacher_share=0.5, class_weights="balanced", unlabelled="any"
)


def test_an_unlabelled_image_learns_from_the_teacher_alone(tmp_path: Path) -> None:
    batches = with_unlabelled(tmp_path, dataclasses.replace(TAUGHT, batch_size=3))
    orders = set()
    for epoch in range(8):
        batches.start_epoch(epoch)
        assert len(batches) == 2  # 6 images in batches of 3
        images, targets, weights = (
            np.concatenate(parts) for parts in zip(batches[0], batches[1], strict=True)
        )
        dark = images.mean(axis=(1, 2, 3)) < 0
        assert dark.sum() == 2
        assert targets[dark].tolist() == [[0, 1, 0]] * 2
        # Half of what the teacher says, (1, 0, 0), and half of the label.
        assert sorted(targets[~dark].tolist()) == [[0.5, 0, 0.5]] * 3 + [[1, 0, 0]]
        # Balanced: 1 / (1, 1, 3) images, over the mean of the labelled ones, is (2, 2, 2/3).
        assert weights == pytest.approx(targets @ np.array([2, 2, 2 / 3]))
        orders.add(tuple(dark))
    assert len(orders) > 1  # shuffled among the labelled ones


@pytest.mark.parametrize("blend", ["mixup_alpha", "cutmix_alpha"])
def test_unlabelled_images_blend_as_labelled_ones_do(tmp_path: Path, blend: str) -> None:
    config = dataclasses.replace(TAUGHT, batch_size=6, **{blend: 1.0})
    _, targets, weights = with_unlabelled(tmp_path, config)[0]
    # Each image gives what it keeps to itself and the rest to one other: the sums stay.
    assert targets.sum(axis=0) == pytest.approx(np.array([2.5, 2.0, 1.5]), abs=1e-5)
    assert targets.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-5)
    assert ((targets > 0) & (targets < 1)).sum() > 8  # 6 without a blend
    assert weights == pytest.approx(targets @ np.array([2, 2, 2 / 3]), abs=1e-5)


def all_batches(batches: AugmentedImages, epochs: int) -> list[Batch]:
    made = []
    for epoch in range(epochs):
        batches.start_epoch(epoch)
        made += [batches[index] for index in range(len(batches))]
    return made


@pytest.mark.parametrize("is_taught", [False, True])
def test_processes_make_the_batches_of_threads_and_end_with_them(
    tmp_path: Path, drawings: Path, is_taught: bool
) -> None:
    def build(cores: int) -> AugmentedImages:
        if is_taught:
            config = dataclasses.replace(TAUGHT, batch_size=3, mixup_alpha=0.2, cutmix_alpha=1.0)
            return with_unlabelled(tmp_path, config, cores)
        config = dataclasses.replace(STRONG, cutmix_alpha=1.0)
        return AugmentedImages(load_split(drawings, "train"), config, cores=cores)

    with closing(build(2)) as threads:
        expected = all_batches(threads, epochs=2)
        assert multiprocessing.active_children() == []
    with closing(build(MAX_THREADED_CORES + 1)) as processes:
        made = all_batches(processes, epochs=2)
        started = multiprocessing.active_children()
        assert len(started) > 1
        for process in started:  # as a terminal does
            os.kill(process.pid or 0, signal.SIGINT)
        made += all_batches(processes, epochs=1)
    assert multiprocessing.active_children() == []
    expected += expected[: len(expected) // 2]
    for one, other in zip(made, expected, strict=True):
        for values, wanted in zip(one, other, strict=True):
            assert values.dtype == wanted.dtype
            assert np.array_equal(values, wanted)


def test_keras_gets_the_batches_of_each_epoch_and_no_others(drawings: Path) -> None:
    layers = [
        keras.Input((80, 80, 3)),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(0.0), loss=loss)  # learns nothing
    with closing(AugmentedImages(load_split(drawings, "train"), STRONG)) as batches:
        starter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: batches.start_epoch(e))
        history = model.fit(
            batches, initial_epoch=1, epochs=3, callbacks=[starter], verbose=0, shuffle=False
        )
        made = all_batches(batches, epochs=3)[len(batches) :]
        losses = [float(model.test_on_batch(*batch)) for batch in made]
    expected = np.reshape(losses, (2, len(batches))).mean(axis=1)
    assert history.history["loss"] == pytest.approx(expected, rel=1e-5)
    assert abs(expected[0] - expected[1]) > 1e-3


@pytest.mark.parametrize("cores", [2, MAX_THREADED_CORES + 1])
def test_a_damaged_image_is_one_sentence_from_a_thread_and_from_a_process(
    tmp_path: Path, cores: int
) -> None:
    config = dataclasses.replace(TAUGHT, batch_size=6)
    with closing(with_unlabelled(tmp_path, config, cores)) as batches:
        (tmp_path / "5.png").write_bytes(b"")
        with pytest.raises(DatasetError, match=r"5\.png cannot be used: The image is empty"):
            batches[0]
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_one_sentence_that_says_to_resume(drawings: Path) -> None:
    split, cores = load_split(drawings, "train"), MAX_THREADED_CORES + 1
    with closing(AugmentedImages(split, STRONG, cores=cores)) as batches:
        batches[0]
        for process in multiprocessing.active_children():  # as a system without memory does
            process.kill()
        batches.start_epoch(7)
        with pytest.raises(ConfigError, match=r"memory ran out.*resumes"):
            batches[0]
    assert multiprocessing.active_children() == []


def test_a_strong_crop_keeps_the_smallest_share_and_gives_the_size_of_the_input() -> None:
    image = Image.new("RGB", (300, 400))
    for area in (1.0, 0.25):
        for seed in range(100):
            box = augment._crop_box(image, np.random.default_rng(seed), (area, 1.0))
            left, top, right, bottom = box
            # An edge of the image may cut a stretched crop, by a factor of 1.25 ** 0.5 at most.
            assert (right - left) * (bottom - top) >= area * 300 * 400 / 1.25**0.5 * 0.99
    spec = InputSpec(64, 48)
    varied = augment.augment_strongly(image, spec, np.random.default_rng(0), min_area=0.5)
    assert varied.size == (48, 64)


def test_judging_images_are_plain_and_in_order(drawings: Path) -> None:
    split = load_split(drawings, "validation")
    batches = PlainImages(split, STRONG)
    assert len(batches) == 4  # 27 images in batches of 8
    images = np.concatenate([batches[i][0] for i in range(4)])
    weights = np.concatenate([batches[i][2] for i in range(4)])
    assert images.shape == (27, 90, 100, 3)
    assert np.array_equal(images[20], load_image(split.paths[20], STRONG.input))
    assert weights.tolist() == [1.0] * 27
