"""A trained model of either kind, seen as one thing: images in, class probabilities out.

A ``.tflite`` answers through ``lambda_function.classifier``, as it does when it is served,
and needs no Keras; a ``.keras`` file is read with the ``config.json`` beside it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.data.dataset import Split
from training.data.images import batches
from training.errors import TrainingError
from training.files import sha256_of


class ModelFileError(TrainingError):
    """The named model cannot be scored; the message says why."""


@dataclasses.dataclass(frozen=True)
class Scorer:
    """A loaded model.

    Attributes:
        name: of the model, from the model itself.
        version: likewise.
        kind: ``"tflite"`` or ``"keras"``.
        sha256: of the file.
        size_bytes: of the file.
        labels: in the order of the output.
        input: how images become tensors.
        temperature: that the graph divides the logits by; 1.0 where unknown.
        answer: float32, (N, height, width, 3), -1..1 -> float, (N, classes), probabilities.
    """

    name: str
    version: str
    kind: str
    sha256: str
    size_bytes: int
    labels: tuple[str, ...]
    input: InputSpec
    temperature: float
    answer: Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]

    def describe(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "input": [self.input.height, self.input.width],
            "temperature": self.temperature,
        }


def load_scorer(path: Path) -> Scorer:
    """Load a ``.tflite``, a ``.keras`` file or a run folder.

    Raises:
        ModelFileError: nothing there, or not a model of ours.
        MetadataError, ArtifactError: the ``.tflite`` cannot be used.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise ModelFileError(f"no model at {file}: name a .tflite, a .keras or a run's folder")
    if file.suffix == ".tflite":
        return _tflite_scorer(file)
    if file.suffix == ".keras":
        return _keras_scorer(file)
    raise ModelFileError(f"a model is a .tflite or a .keras file. Received: {file}")


def score(scorer: Scorer, split: Split, *, quiet: bool = False) -> NDArray[np.float64]:
    """Return the probabilities of every image, float64, (images, classes), in ``split``'s order.

    Columns are in the order of ``split.class_names``, whatever the model's own is.
    ``quiet`` shows no progress bar.

    Raises:
        ModelFileError: the model's labels are not the split's, or its answers are no
            probabilities.
        DatasetError: an image cannot be read; it is named.
    """
    if set(scorer.labels) != set(split.class_names):
        raise ModelFileError(
            f"the model's labels {sorted(scorer.labels)} are not the images' classes "
            f"{sorted(split.class_names)}"
        )
    answers = []
    with tqdm(
        total=len(split), desc=f"{scorer.kind} {scorer.name}", unit="image", disable=quiet
    ) as bar:
        for batch in batches(split, scorer.input):
            answers.append(np.asarray(scorer.answer(batch), dtype=np.float64))
            bar.update(len(batch))
    probabilities = np.concatenate(answers)
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1.0, atol=0.02):  # integer softmax is only that exact
        raise ModelFileError(
            f"the model's answers are no probabilities: they sum to {sums.min()} .. {sums.max()}"
        )
    order = [scorer.labels.index(name) for name in split.class_names]
    return np.ascontiguousarray(probabilities[:, order])


def _tflite_scorer(file: Path) -> Scorer:
    from lambda_function.classifier import Classifier

    # Threads split the output between them and change none of its sums.
    classifier = Classifier(file.read_bytes(), num_threads=os.cpu_count() or 1)
    metadata = classifier.metadata

    def answer(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return np.stack([classifier.predict(image[np.newaxis]) for image in images])

    return Scorer(
        name=metadata.name,
        version=metadata.version,
        kind="tflite",
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        labels=metadata.labels,
        input=metadata.input,
        temperature=metadata.temperature,
        answer=answer,
    )


def _keras_scorer(file: Path) -> Scorer:
    config, report = _json_beside(file, "config.json"), file.with_name("report.json")
    try:
        import keras
    except ImportError as error:
        raise ModelFileError(
            f"{file} needs Keras: run this in the training environment (make .venv/training/.ok)"
        ) from error
    try:
        model = keras.models.load_model(file, compile=False)
    except (ValueError, OSError) as error:
        raise ModelFileError(f"{file} is not a Keras model: {error}") from error

    def answer(images: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return np.asarray(keras.ops.convert_to_numpy(model.predict_on_batch(images)))

    try:
        return Scorer(
            name=config["name"],
            version=config["version"],
            kind="keras",
            sha256=sha256_of(file),
            size_bytes=file.stat().st_size,
            labels=tuple(config["labels"]),
            input=InputSpec(**config["input"]),
            temperature=_json_beside(file, report.name)["temperature"] if report.is_file() else 1.0,
            answer=answer,
        )
    except (KeyError, TypeError) as error:
        raise ModelFileError(f"{file} is no run of this project: {error!r} beside it") from error


def _json_beside(file: Path, name: str) -> dict[str, Any]:
    beside = file.with_name(name)
    if not beside.is_file():
        raise ModelFileError(f"{file} says nothing about its labels and size: no {name} beside it")
    try:
        fields: dict[str, Any] = json.loads(beside.read_text())
    except ValueError as error:
        raise ModelFileError(f"{beside} is not JSON: {error}") from error
    return fields
