"""A trained model of either kind behind one interface: images in, class probabilities out.

A ``.tflite`` runs through ``lambda_function.classifier``, exactly as it is served, and needs no
Keras. A ``.keras`` file is read with the ``config.json`` beside it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.classifier import Classifier
from lambda_function.metadata import InputSpec
from training.data.dataset import Split
from training.data.images import batches
from training.errors import ModelFileError
from training.files import read_json, sha256_of

SUM_TOLERANCE = 0.02  # of a row of probabilities; the softmax of integer models is that exact

PredictProba = Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model that can be scored.

    Attributes:
        name: from the model itself.
        version: likewise.
        kind: ``"tflite"`` or ``"keras"``.
        sha256: of the file.
        size_bytes: of the file.
        labels: in the order of the output.
        input: how images become tensors.
        temperature: the graph divides the logits by it. 1.0 if unknown.
        predict_proba: float32, (N, height, width, 3), as ``input`` says -> float, (N, classes),
            probabilities.
        activation_maps: the same images -> float, (N, rows, columns, classes). None if the model
            has no activation map.
        is_of_fold: whether it is of a cross-validation, so it has learned from validation images.
    """

    name: str
    version: str
    kind: str
    sha256: str
    size_bytes: int
    labels: tuple[str, ...]
    input: InputSpec
    temperature: float
    predict_proba: PredictProba
    activation_maps: PredictProba | None = None
    is_of_fold: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what a report says about the model, as plain JSON types."""
        fields = ("name", "version", "kind", "sha256", "size_bytes", "temperature")
        size = [self.input.height, self.input.width]
        return {**{field: getattr(self, field) for field in fields}, "input": size}


def load_model(path: Path) -> LoadedModel:
    """Load a ``.tflite`` file, a ``.keras`` file or a run folder.

    Raises:
        ModelFileError: there is no model, or it is not a model of this project.
        MetadataError, ArtifactError: the ``.tflite`` cannot be used.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ModelFileError(f"no model at {file}: name a .tflite, a .keras or a run's folder")
    if file.suffix == ".tflite":
        return _load_tflite(file)
    if file.suffix == ".keras":
        return _load_keras(file)
    raise ModelFileError(f"a model is a .tflite or a .keras file. Received: {file}")


def refuse_fold_on(split: str, model: LoadedModel) -> None:
    """Keep a model of a fold from validation images, which it has learned from.

    Args:
        split: of the data set that is about to be scored.
        model: to score.

    Raises:
        ModelFileError: the figures would flatter.
    """
    if model.is_of_fold and split == "validation":
        raise ModelFileError(
            f"the run {model.name} is of a cross-validation and has learned from validation "
            "images. `python -m training folds` judges it, or score it on --split test"
        )


def predict_split(model: LoadedModel, split: Split, *, quiet: bool = False) -> NDArray[np.float64]:
    """Return the probabilities of every image of a split.

    Args:
        model: any order of labels.
        split: the images.
        quiet: show no progress bar.

    Returns:
        float64, (images, classes). Rows in the order of the split, columns in the order of
        ``split.class_names``.

    Raises:
        ModelFileError: the model's labels differ from the split's classes, or its output is not
            probabilities.
        DatasetError: an image cannot be read.
    """
    if set(model.labels) != set(split.class_names):
        raise ModelFileError(
            f"the model's labels {sorted(model.labels)} are not the images' classes "
            f"{sorted(split.class_names)}"
        )
    parts = []
    title = f"{model.kind} {model.name}"
    with tqdm(total=len(split), desc=title, unit="image", disable=quiet or None) as bar:
        for batch in batches(split, model.input):
            parts.append(np.asarray(model.predict_proba(batch), dtype=np.float64))
            bar.update(len(batch))
    probabilities = np.concatenate(parts)
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1.0, atol=SUM_TOLERANCE):
        raise ModelFileError(
            f"the model's output is not probabilities: they sum to {sums.min()} .. {sums.max()}"
        )
    order = [model.labels.index(name) for name in split.class_names]
    return np.ascontiguousarray(probabilities[:, order])


def _load_tflite(file: Path) -> LoadedModel:
    # Threads share the output between them and change no sum.
    classifier = Classifier(file, num_threads=os.cpu_count() or 1)
    metadata = classifier.metadata

    def predict_proba(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return np.stack([classifier.predict(image[np.newaxis]) for image in images])

    def activation_maps(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        found = [classifier.predict_all(image[np.newaxis]).activation_map for image in images]
        return np.stack([each for each in found if each is not None])

    return LoadedModel(
        name=metadata.name,
        version=metadata.version,
        kind="tflite",
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        labels=metadata.labels,
        input=metadata.input,
        temperature=metadata.temperature,
        predict_proba=predict_proba,
        activation_maps=activation_maps if metadata.activation_map else None,
    )


def _load_keras(file: Path) -> LoadedModel:
    config, report = _read_beside(file, "config.json"), file.with_name("report.json")
    predict_proba, activation_maps = _keras_functions(file)
    try:
        return LoadedModel(
            name=config["name"],
            version=config["version"],
            kind="keras",
            sha256=sha256_of(file),
            size_bytes=file.stat().st_size,
            labels=tuple(config["labels"]),
            input=InputSpec(**config["input"]),
            temperature=_read_beside(file, report.name)["temperature"] if report.is_file() else 1.0,
            predict_proba=predict_proba,
            activation_maps=activation_maps,
            is_of_fold=bool(config.get("fold")),
        )
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"{file} is no run of this project: {error!r} beside it") from error


def _keras_functions(file: Path) -> tuple[PredictProba, PredictProba | None]:
    """Return images -> probabilities, and images -> activation maps if the head allows them."""
    try:
        import keras  # a .tflite is scored without it
    except ImportError as error:
        raise ModelFileError(
            f"{file} needs Keras: run this in the training environment (make .venv/training/.ok)"
        ) from error
    try:
        model = keras.models.load_model(file, compile=False)
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{file} is not a Keras model: {error}") from error

    def predict_proba(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images)))

    names = {layer.name for layer in model.layers}
    if not {"pool", "logits"} <= names or "inner" in names:
        return predict_proba, None
    features = keras.Model(model.input, model.get_layer("pool").input)
    kernel = np.asarray(keras.ops.convert_to_numpy(model.get_layer("logits").kernel))

    def activation_maps(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        found = np.asarray(keras.ops.convert_to_numpy(features.predict_on_batch(images)))
        return np.asarray(found @ kernel)

    return predict_proba, activation_maps


def _read_beside(file: Path, name: str) -> dict[str, Any]:
    beside = file.with_name(name)
    if not beside.is_file():
        raise ModelFileError(f"{file} says nothing about its labels and size: no {name} beside it")
    try:
        fields: dict[str, Any] = read_json(beside)
    except ValueError as error:
        raise ModelFileError(f"{beside} is not JSON: {error}") from error
    return fields
