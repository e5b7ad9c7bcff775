"""The model to convert: a run folder's ``model.keras`` and what its neighbours say about it."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

from converter.errors import SourceError
from lambda_function.metadata import InputSpec, MetadataError
from training.files import sha256_of


@dataclasses.dataclass(frozen=True)
class Source:
    """A trained model and its description, checked against each other when loaded.

    Attributes:
        path: the ``.keras`` file.
        config: ``config.json`` beside it.
        report: ``report.json`` beside it.
        spec: how its images become tensors: the truth that an artifact is held against.
        labels: in the order of its output.
    """

    path: Path
    config: dict[str, Any]
    report: dict[str, Any]
    spec: InputSpec
    labels: tuple[str, ...]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the ``.keras`` file, hexadecimal."""
        return sha256_of(self.path)

    @functools.cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the model's weights, hexadecimal. A ``.keras`` file itself holds a date."""
        from training.fit.backbone import weights_sha256

        return weights_sha256(self.load())

    def load(self) -> Any:
        """Return the Keras model, images -> probabilities.

        Raises:
            SourceError: not a Keras model, or not one that ``config.json`` describes.
        """
        import keras

        try:
            model = keras.models.load_model(self.path, compile=False)
        except Exception as error:  # Keras, zipfile and h5py raise many kinds
            first_line = str(error).strip().partition("\n")[0] or type(error).__name__
            raise SourceError(f"{self.path} is not a Keras model: {first_line}") from error
        self._check("input", [tuple(i.shape) for i in model.inputs], self._input_shape())
        self._check("output", [tuple(o.shape) for o in model.outputs], (None, len(self.labels)))
        return model

    def _input_shape(self) -> tuple[int | None, ...]:
        return (None, self.spec.height, self.spec.width, 3)

    def _check(self, kind: str, found: list[Any], expected: tuple[int | None, ...]) -> None:
        if found != [expected]:
            raise SourceError(
                f"the {kind} of {self.path} does not fit its config.json: config.json says "
                f"{_shape(expected)}, the model has {', '.join(map(_shape, found))}"
            )


def open_source(path: Path) -> Source:
    """Read what stands beside a ``.keras`` file, without loading the model.

    Args:
        path: the ``.keras`` file of a run folder.

    Raises:
        SourceError: a file is missing or does not hold what it must.
    """
    if not path.is_file():
        raise SourceError(f"no model at {path}. Train one with `python -m training train`.")
    config, report = (_read_json(path.with_name(n)) for n in ("config.json", "report.json"))
    try:
        size = config["input"]
        spec = InputSpec(
            size["height"], size["width"], size["resize_filter"], size["normalisation"]
        )
        labels = tuple(str(label) for label in config["labels"])
        report["temperature"] = float(report["temperature"])
    except (KeyError, TypeError, ValueError, MetadataError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SourceError(f"config.json or report.json beside {path} is unusable: {why}") from error
    if config.get("fold"):
        raise SourceError(
            f"{path} is of a cross-validation and has learned from validation images, which the "
            "gate holds an artifact against. Convert a model of `python -m training train`."
        )
    return Source(path, config, report, spec, labels)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is missing: a model is converted from its run folder, which says what its "
            "labels and input are"
        ) from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise SourceError(f"{path} must hold a JSON object. Received: {type(fields).__name__}")
    return fields


def _shape(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if size is None else str(size) for size in shape) + ")"
