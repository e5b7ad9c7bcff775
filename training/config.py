"""One frozen configuration per training run, saved beside its result."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

from lambda_function.metadata import InputSpec
from training.errors import ConfigError

DEFAULT_INPUT = InputSpec(224, 224)
LEAST_SIDE = 71  # pixels; Xception's blocks leave nothing of less
SEEDS = 2**32  # what NumPy takes
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
AUGMENTATIONS = ("mild", "jpeg", "randaugment")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run learns.

    Attributes:
        name: of the run; its folder is ``runs/<name>``.
        input: size, resize filter and scaling of the images.
        first_trainable_block: Xception blocks before this one are frozen and their
            activations cached; 15 trains the head alone.
        start_from: name of a run whose weights to start with, instead of ImageNet's.
        views: cached views per training image: the plain one, and ``views - 1`` augmented.
        augmentation: of the random views: ``mild`` (see ``augment``); ``jpeg``, which adds a
            JPEG of random quality to it; or ``randaugment``, which adds Keras's RandAugment.
        inner_units: width of a dense layer before the logits; 0 for none.
        dropout: share of pooled features dropped before the logits.
        epochs, batch_size, learning_rate, warmup_epochs: AdamW, cosine schedule.
        weight_decay: decoupled, on kernels only.
        label_smoothing: share of the target spread over all classes.
        mixup_alpha: of MixUp's Beta distribution, on cached activations; 0 for none.
        cutmix_alpha: of CutMix's, likewise; where both are set, each batch gets one of them.
        ema_momentum: of the weights' moving average that is evaluated; 0 for none.
        batch_norm_momentum: of trained batch norms. Keras's default of 0.99 needs more
            steps than an epoch here has, and ruins the first epochs.
        precision: Keras dtype policy while training; the saved model is always float32.
        seed: of initialisation, views, shuffling and MixUp.
    """

    name: str = "xception"
    input: InputSpec = DEFAULT_INPUT
    first_trainable_block: int = 14
    start_from: str = ""
    views: int = 4
    augmentation: str = "mild"
    inner_units: int = 0
    dropout: float = 0.3
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 3e-4
    warmup_epochs: float = 1.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.2
    cutmix_alpha: float = 0.0
    ema_momentum: float = 0.99
    batch_norm_momentum: float = 0.9
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "input": (
                min(self.input.height, self.input.width) >= LEAST_SIDE,
                f"{LEAST_SIDE} pixels or more on each side, as Xception takes",
            ),
            "first_trainable_block": (2 <= self.first_trainable_block <= 15, "2 to 15"),
            "views": (self.views >= 1, "1 or more"),
            "augmentation": (self.augmentation in AUGMENTATIONS, f"one of {AUGMENTATIONS}"),
            "inner_units": (self.inner_units >= 0, "0 or more"),
            "dropout": (0 <= self.dropout < 1, "0 or more, and below 1"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "batch_size": (self.batch_size >= 1, "1 or more"),
            "learning_rate": (0 < self.learning_rate < math.inf, "above 0, and finite"),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"0 or more, and below the {self.epochs} epochs",
            ),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "0 or more, and below 1"),
            "mixup_alpha": (self.mixup_alpha >= 0, "0 or more"),
            "cutmix_alpha": (self.cutmix_alpha >= 0, "0 or more"),
            "ema_momentum": (0 <= self.ema_momentum < 1, "0 or more, and below 1"),
            "batch_norm_momentum": (0 <= self.batch_norm_momentum < 1, "0 or more, and below 1"),
            "precision": (self.precision in PRECISIONS, f"one of {PRECISIONS}"),
            "seed": (0 <= self.seed < SEEDS, f"0 to {SEEDS - 1}"),
        }
        check_ranges(self, checks)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TrainConfig:
        """Build from ``to_dict``'s form; other keys are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {key: value for key, value in fields.items() if key in known}
        return cls(**{**chosen, "input": InputSpec(**fields["input"])})


def check_ranges(config: Any, checks: dict[str, tuple[bool, str]]) -> None:
    """Refuse the first setting that is out of range.

    Args:
        config: holds the settings.
        checks: setting -> whether it is in range, and what its range is.

    Raises:
        ConfigError: names the setting, what is allowed, and its value.
    """
    for setting, (valid, allowed) in checks.items():
        if not valid:
            received = getattr(config, setting)
            raise ConfigError(f"{setting} must be {allowed}. Received: {received!r}")


def warmup_for(epochs: int) -> float:
    """Return how many epochs of a short run warm up: the default, or half of them."""
    return min(TrainConfig.warmup_epochs, epochs / 2)


def fingerprint(value: Any) -> str:
    """Return a short hash of plain JSON types: the name of a cache entry."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
