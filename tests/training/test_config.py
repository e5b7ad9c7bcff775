"""Every setting has one range and one description. A value out of range is named."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from lambda_function.metadata import InputSpec
from training.config import RANGES, TrainConfig, describe_settings
from training.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [("first_trainable_block", 0), ("views", 0), ("dropout", 1.0), ("learning_rate", 0.0),
     ("warmup_epochs", 12.0), ("precision", "float64"), ("ema_momentum", 1.0), ("seed", -1),
     ("learning_rate", float("inf")), ("weight_decay", float("nan")), ("class_weights", "some")],
)  # fmt: skip
def test_a_setting_out_of_range_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(
        ConfigError, match=f"{field} must be .+. Received: {re.escape(repr(value))}"
    ):
        TrainConfig(**{field: value})


def test_an_image_too_small_for_xception_is_named() -> None:
    with pytest.raises(ConfigError, match=r"size must be 71 or more. Received: 70"):
        TrainConfig(input=InputSpec(70, 224))


def test_every_setting_has_a_description_and_every_number_a_range() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(TrainConfig)}

    assert describe_settings(TrainConfig).keys() == fields.keys()
    assert fields.keys() - RANGES.keys() == {
        "name", "input", "start_from", "teacher", "unlabelled",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("teacher", "augmentation"), [("", "strong"), ("large", "mild"), ("", "mild")]
)
def test_unlabelled_images_need_a_teacher_and_images_varied_anew(
    teacher: str, augmentation: str
) -> None:
    allowed = {"unlabelled": "other", "teacher": "large", "augmentation": "strong"}
    assert TrainConfig(**allowed).unlabelled == "other"
    with pytest.raises(
        ConfigError, match=f"set teacher to .* augmentation to strong.*'{teacher}.*'{augmentation}'"
    ):
        TrainConfig(**{**allowed, "teacher": teacher, "augmentation": augmentation})


def test_a_configuration_survives_json() -> None:
    config = TrainConfig(name="mine", input=InputSpec(96, 128), epochs=3)

    assert TrainConfig.from_dict({**config.to_dict(), "labels": ["a"]}) == config
