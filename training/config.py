"""The settings of one training run, and the range of every setting.

``RANGES`` is the one place where ranges stand. Configurations, options and ``--help`` read it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from lambda_function.metadata import InputSpec
from training.errors import ConfigError

DEFAULT_INPUT = InputSpec(224, 224)
MIN_SIDE = 71  # pixels, the smallest image that Xception's blocks can reduce
SEEDS = 2**32  # NumPy accepts seeds below this
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
AUGMENTATIONS = ("mild", "jpeg", "strong")
MIDDLE_BLOCKS = range(5, 13)  # of Xception: equal residual blocks. One can be left out
CLASS_WEIGHTS = ("none", "sqrt", "balanced")


class Range(NamedTuple):
    """What values a setting may have, in words and as a function."""

    text: str
    contains: Callable[[Any], bool]


def _at_least(low: float) -> Range:
    return Range(f"{low:g} or more", lambda value: low <= value < math.inf)


def _between(low: float, high: float) -> Range:
    return Range(f"{low:.0f} to {high:.0f}", lambda value: low <= value <= high)


def _one_of(names: tuple[str, ...]) -> Range:
    return Range(f"one of {', '.join(names)}", lambda value: value in names)


def _are_middle_blocks(text: str) -> bool:
    names = text.split(",") if text else []
    allowed = {str(block) for block in MIDDLE_BLOCKS}
    return len(set(names)) == len(names) and set(names) <= allowed


_SHARE = Range("0 or more, and below 1", lambda value: 0 <= value < 1)

RANGES = {
    "size": _at_least(MIN_SIDE),
    "limit": _at_least(0),
    "first_trainable_block": _between(1, 15),
    "dropped_blocks": Range(
        f"different numbers of {MIDDLE_BLOCKS[0]} to {MIDDLE_BLOCKS[-1]}, separated by commas",
        _are_middle_blocks,
    ),
    "fresh_from_block": _between(1, 15),
    "train_size": Range(f"0, or {MIN_SIDE} or more", lambda value: value == 0 or value >= MIN_SIDE),
    "crop_area": Range("above 0, 1 at most", lambda value: 0 < value <= 1),
    "layer_decay": Range("above 0, 1 at most", lambda value: 0 < value <= 1),
    "views": _at_least(1),
    "augmentation": _one_of(AUGMENTATIONS),
    "inner_units": _at_least(0),
    "dropout": _SHARE,
    "epochs": _at_least(1),
    "batch_size": _at_least(1),
    "learning_rate": Range("above 0", lambda value: 0 < value < math.inf),
    "warmup_epochs": _at_least(0),
    "weight_decay": _at_least(0),
    "label_smoothing": _SHARE,
    "mixup_alpha": _at_least(0),
    "cutmix_alpha": _at_least(0),
    "class_weights": _one_of(CLASS_WEIGHTS),
    "teacher_share": _SHARE,
    "ema_momentum": _SHARE,
    "batch_norm_momentum": _SHARE,
    "precision": _one_of(PRECISIONS),
    "seed": _between(0, SEEDS - 1),
}


def check_range(setting: str, value: Any) -> None:
    """Check one setting.

    Raises:
        ConfigError: names the setting, what is allowed, and the value.
    """
    if not RANGES[setting].contains(value):
        raise ConfigError(f"{setting} must be {RANGES[setting].text}. Received: {value!r}")


def check_ranges(config: Any) -> None:
    """Check every field of a dataclass that has a range, as ``check_range`` does."""
    for field in dataclasses.fields(config):
        if field.name in RANGES:
            check_range(field.name, getattr(config, field.name))


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run learns. It is saved beside the result.

    Attributes:
        name: name of the run. Its folder is ``runs/<name>``.
        input: size, resize filter and scaling of the images.
        first_trainable_block: the first Xception block that is trained. 1 trains the whole network,
            with ``strong`` augmentation. 15 trains the head alone. The blocks before it are frozen.
            Their activations are cached, except with ``strong`` augmentation.
        dropped_blocks: blocks of the middle flow that the network does without, such as 6,8. Each
            is a residual block and costs 7 % of the multiply-adds.
        fresh_from_block: the first block that starts from initial values, not from ImageNet's
            weights. 15 for none: the head alone.
        start_from: name of a run whose weights to start with, instead of ImageNet's.
        views: cached views per training image: the image, its mirror image, then random ones.
        augmentation: of the random views. ``mild`` crops, rotates and changes colours. ``jpeg``
            also compresses the image as JPEG. ``strong`` varies the images anew in every epoch, and
            nothing is cached.
        train_size: height and width of ``strong`` images while training, in pixels. Random crops
            show things larger than they are served, which a smaller size makes up for. 0 for the
            served size.
        crop_area: smallest share of the image's area that a ``strong`` crop keeps.
        inner_units: width of a dense layer before the logits. 0 for no such layer.
        dropout: share of the pooled features that is dropped before the logits.
        epochs: passes over the training images.
        batch_size: images per step.
        learning_rate: of AdamW, after the warm-up. A cosine schedule lowers it to 0.
        layer_decay: factor of the learning rate from each block to the one before it.
        warmup_epochs: epochs in which the learning rate rises from 0. Below ``epochs``.
        weight_decay: of AdamW, decoupled, on kernels only.
        label_smoothing: share of the target that is spread over all classes.
        mixup_alpha: of MixUp's Beta distribution, on cached activations. 0 for no MixUp.
        cutmix_alpha: of CutMix's Beta distribution. If both are set, each batch gets one of them.
        class_weights: how much rare classes count. ``none``, ``sqrt`` (the square root of the
            inverse frequency) or ``balanced`` (the inverse frequency).
        teacher: names of finished runs, separated by commas. The mean of their probabilities on the
            same varied image is a part of the target. Empty for no teacher.
        teacher_share: share of the target that the teacher gives. The label gives the rest.
        unlabelled: folder of further images, which the teacher alone gives a target. They may lie
            in sub-folders. Needs a teacher and ``strong`` augmentation. Empty for none.
        ema_momentum: of the moving average of the weights, which is evaluated. The average warms
            up, so that a short run does not keep its first weights. 0 for no average.
        batch_norm_momentum: of trained batch norms. Keras's default of 0.99 needs more steps than
            an epoch here has, and ruins the first epochs.
        precision: Keras dtype policy while training. The saved model is always float32.
        seed: of initialisation, views, shuffling and MixUp.
    """

    name: str = "xception"
    input: InputSpec = DEFAULT_INPUT
    first_trainable_block: int = 14
    dropped_blocks: str = ""
    fresh_from_block: int = 15
    start_from: str = ""
    views: int = 4
    augmentation: str = "mild"
    train_size: int = 0
    crop_area: float = 0.5
    inner_units: int = 0
    dropout: float = 0.3
    epochs: int = 12
    batch_size: int = 32
    learning_rate: float = 3e-4
    layer_decay: float = 1.0
    warmup_epochs: float = 1.0
    weight_decay: float = 0.02
    label_smoothing: float = 0.1
    mixup_alpha: float = 0.2
    cutmix_alpha: float = 0.0
    class_weights: str = "none"
    teacher: str = ""
    teacher_share: float = 0.7
    unlabelled: str = ""
    ema_momentum: float = 0.99
    batch_norm_momentum: float = 0.9
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self)
        check_range("size", min(self.input.height, self.input.width))
        if self.first_trainable_block == 1 and self.is_cached:
            raise ConfigError(
                "the whole network (first_trainable_block 1) has nothing to cache: set "
                f"augmentation to strong. Received: {self.augmentation!r}"
            )
        if self.unlabelled and not (self.teacher and not self.is_cached):
            raise ConfigError(
                "unlabelled images learn from a teacher, on images varied anew: set teacher to a "
                "finished run, and augmentation to strong. Received: "
                f"unlabelled {self.unlabelled!r}, teacher {self.teacher!r}, "
                f"augmentation {self.augmentation!r}"
            )
        if self.warmup_epochs >= self.epochs:
            raise ConfigError(
                f"warmup_epochs must be below the {self.epochs} epochs. "
                f"Received: {self.warmup_epochs!r}"
            )

    @property
    def is_cached(self) -> bool:
        """Whether frozen blocks run once per image, and not once per step."""
        return self.augmentation != "strong"

    @property
    def training_input(self) -> InputSpec:
        """The input while training."""
        size = self.train_size
        return dataclasses.replace(self.input, height=size, width=size) if size else self.input

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> TrainConfig:
        """Build from ``to_dict``'s form. Other keys are ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        chosen = {key: value for key, value in fields.items() if key in known}
        return cls(**{**chosen, "input": InputSpec(**fields["input"])})


def describe_settings(config: type[Any]) -> dict[str, str]:
    """Return what each setting means, from the ``Attributes`` of a dataclass's docstring."""
    _, _, section = inspect.cleandoc(config.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", section, flags=re.MULTILINE)
    return {name: " ".join(text.replace("``", "").split()) for name, text in entries}


def warmup_for(epochs: int) -> float:
    """Return how many epochs of a short run warm up: the default, or half of them."""
    return min(TrainConfig.warmup_epochs, epochs / 2)


def fingerprint(value: Any) -> str:
    """Return a short hash of plain JSON types: the name of a cache entry."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
