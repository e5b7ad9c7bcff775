"""The model of a training run: ``model.keras`` and the JSON files beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.errors import SourceError
from converter.sources.source import Source
from converter.sources.tflite_file import starts_as_tflite
from lambda_function.metadata import InputSpec, MetadataError, ModelMetadata
from training.files import read_json, sha256_of

# What the metadata says in a field of its own.
_OWN_FIELDS = frozenset(
    {"name", "version", "labels", "input", "dataset", "licence", "title", "subject"}
)


def open_source(path: Path) -> Source:
    """Read the description beside a ``.keras`` file, without loading the model.

    Args:
        path: the ``.keras`` file of a run folder.

    Raises:
        SourceError: a file is missing or lacks a field, or the model is a TFLite file.
    """
    if not path.is_file():
        raise SourceError(f"no model at {path}. Train one with `python -m training train`.")
    if starts_as_tflite(path):
        raise SourceError(
            f"{path} is a TFLite file, which is not converted again. Name the model.keras of a "
            "run folder. `python -m converter import` takes a TFLite file from elsewhere."
        )
    config, report = (_read_json(path.with_name(n)) for n in ("config.json", "report.json"))
    if config.get("fold"):
        raise SourceError(
            f"{path} is of a cross-validation. It has learned from validation images, and the "
            "gate needs them unseen. Convert a model of `python -m training train`."
        )
    try:
        metadata = _describe(path, config, report)
    except (KeyError, TypeError, ValueError, MetadataError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SourceError(f"config.json or report.json beside {path} is unusable: {why}") from error
    return Source(path, metadata, lambda: _load(path))


def _describe(path: Path, config: dict[str, Any], report: dict[str, Any]) -> ModelMetadata:
    size = config["input"]
    words: dict[str, Any] = {
        name: str(config[name]) for name in ("title", "subject") if config.get(name)
    }
    return ModelMetadata(
        name=str(config["name"]),
        version=str(config["version"]),
        labels=tuple(str(label) for label in config["labels"]),
        input=InputSpec(
            size["height"], size["width"], size["resize_filter"], size["normalisation"]
        ),
        recipe="keras",
        temperature=float(report["temperature"]),
        source_sha256=sha256_of(path),
        dataset=str(config["dataset"]),
        licence=str(config["licence"]),
        metrics=report.get("metrics", {}),
        training={key: value for key, value in config.items() if key not in _OWN_FIELDS},
        **words,
    )


def _load(path: Path) -> Any:
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras, zipfile and h5py raise many kinds
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise SourceError(f"{path} is not a Keras model: {first_line}") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = read_json(path)
    except FileNotFoundError as error:
        raise SourceError(
            f"{path} is missing: a run folder describes its model in config.json and report.json. "
            "`python -m converter import` takes a model without them."
        ) from error
    except ValueError as error:
        raise SourceError(f"{path} is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise SourceError(f"{path} must hold a JSON object. Received: {type(fields).__name__}")
    return fields
