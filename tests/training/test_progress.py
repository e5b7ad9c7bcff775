"""The line of an epoch says how long the training waited for images."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from training.config import TrainConfig  # noqa: E402
from training.data.dataset import load_split  # noqa: E402
from training.data.training_batches import AugmentedImages, Batch  # noqa: E402
from training.fit.progress import EpochProgress  # noqa: E402

pytestmark = pytest.mark.training

CONFIG = TrainConfig(augmentation="strong", train_size=80, batch_size=20, epochs=2)
DELAY_S = 0.5


class SlowImages(AugmentedImages):
    delay_s = 0.0

    def _make_batch(self, epoch: int, index: int) -> Batch:
        time.sleep(self.delay_s)
        return super()._make_batch(epoch, index)


class SlowSteps(keras.callbacks.Callback):
    delay_s = 0.0

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        time.sleep(self.delay_s)


@pytest.mark.parametrize("slow", ["images", "steps"])
def test_only_slow_images_are_waited_for(
    drawings: Path, slow: str, capsys: pytest.CaptureFixture[str]
) -> None:
    images, steps = SlowImages(load_split(drawings, "train"), CONFIG, cores=1), SlowSteps()
    layers = [
        keras.Input((80, 80, 3)),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(3),
    ]
    model = keras.Sequential(layers)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss, weighted_metrics=["accuracy"])
    progress = EpochProgress(images, CONFIG, 0)
    starter = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, _: images.start_epoch(e))
    images.delay_s, steps.delay_s = (DELAY_S, 0.0) if slow == "images" else (0.0, DELAY_S)

    model.fit(
        images, validation_data=images[0], epochs=2, verbose=0, shuffle=False,
        callbacks=[starter, steps, progress],
    )  # fmt: skip
    progress.close()
    images.close()

    # The second epoch has no start-up. Its batches are 3, and cannot lie ready at its beginning.
    waited = re.findall(r"waited (\d+)% of the time for images", capsys.readouterr().out)
    assert (int(waited[1]) > 50) == (slow == "images")
    assert (int(waited[1]) < 25) == (slow == "steps")
