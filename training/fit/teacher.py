"""A teacher: finished runs whose probabilities become a part of what another run learns.

Knowledge distillation (Hinton et al., arXiv:1503.02531). The teacher sees the same varied image as
the network that learns (Beyer et al., CVPR 2022, arXiv:2106.05237).
"""

from __future__ import annotations

from pathlib import Path

import keras

from training.config import TrainConfig, fingerprint
from training.data.folds import Fold
from training.errors import ConfigError
from training.files import sha256_of
from training.fit import run_folder


def load_teacher(
    config: TrainConfig, class_names: tuple[str, ...], runs: Path, fold: Fold | None
) -> keras.Model | None:
    """Return training images -> probabilities, the mean of all members. None without a teacher.

    Args:
        config: of the run that learns. Each member gets its images resized to its own input.
        class_names: of the run that learns, in model order.
        runs: folder of all runs.
        fold: of the run that learns. A member must not have seen the images that judge it.

    Raises:
        ConfigError: a member is not finished, has other classes, or has seen the judging images.
    """
    if not config.teacher:
        return None
    spec = config.training_input
    images = keras.Input((spec.height, spec.width, 3))
    outputs, hashes = [], []
    for name in config.teacher.split(","):
        folder, member, described = run_folder.read_finished_run(
            runs, name.strip(), fold, "teacher"
        )
        if tuple(described["labels"]) != class_names:
            raise ConfigError(
                f"the teacher {folder} has other classes: {', '.join(described['labels'])}. "
                f"This run has: {', '.join(class_names)}"
            )
        hashes.append(sha256_of(folder / run_folder.MODEL))
        model = keras.models.load_model(folder / run_folder.MODEL, compile=False)
        size = (member.input.height, member.input.width)
        resized = images
        if size != (spec.height, spec.width):
            resized = keras.layers.Resizing(*size, interpolation="bilinear")(images)
        outputs.append(model(resized, training=False))
    mean = keras.layers.Average()(outputs) if len(outputs) > 1 else outputs[0]
    # The name identifies the members' weights, as a cache of what the teacher says needs.
    teacher = keras.Model(images, mean, name=f"teacher-{fingerprint(hashes)}")
    teacher.trainable = False
    return teacher
