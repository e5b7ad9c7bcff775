"""The interpreter and the artifact's metadata, checked against each other.

Only this module imports a TFLite runtime: ai-edge-litert by default, tflite-runtime where that is
installed. Both have the same API.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from lambda_function.metadata import (
    MAP_OUTPUT,
    SECOND_LABEL_OUTPUTS,
    ModelMetadata,
    read_metadata,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lambda_function.metadata import UncertainSpec


LEAST_PROBABILITY = 1e-7  # of a class. A quantised softmax has zeros


class ArtifactError(RuntimeError):
    """The artifact cannot be loaded, or contradicts its metadata."""


class Classifier:
    """A loaded model that returns class probabilities.

    Several threads may call it. Calls run one after another, since an interpreter owns its tensors.
    """

    def __init__(self, artifact: Path | bytes, *, num_threads: int = 1) -> None:
        """Load and check an artifact.

        Args:
            artifact: path of a ``.tflite`` with embedded metadata, or its bytes.
            num_threads: for one inference.

        Raises:
            MetadataError: no usable metadata in the artifact.
            ArtifactError: not loadable, or tensors and metadata differ.
            OSError: the file cannot be read.
        """
        self.metadata: ModelMetadata = read_metadata(artifact)
        self._lock = threading.Lock()
        self._interpreter = _load_interpreter(artifact, num_threads)
        self._input, self._output, self._map = _checked_tensors(self._interpreter, self.metadata)
        self._run_once()

    def predict(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify one preprocessed image.

        Args:
            tensor: float32, (1, height, width, 3), from ``preprocess``.

        Returns:
            float32, (classes,), probabilities in the order of ``metadata.labels``.
        """
        (values,) = self._run(tensor, self._output)
        return _to_probabilities(values, self.metadata.output)

    def predict_with_map(
        self, tensor: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Classify one preprocessed image and show where the model sees each class.

        Args:
            tensor: as for ``predict``.

        Returns:
            The probabilities of ``predict``, and the activation map: float32,
            (height, width, classes) of ``metadata.activation_map``. Its mean over the cells is a
            class's logit without bias. Temperature is not applied. Values may be negative.

        Raises:
            ValueError: this artifact has no activation map.
        """
        if self._map is None:
            raise ValueError(f"the model {self.metadata.name} has no activation map")
        values, activation_map = self._run(tensor, self._output, self._map)
        return _to_probabilities(values, self.metadata.output), activation_map

    def _run(self, tensor: NDArray[np.float32], *outputs: int) -> list[NDArray[np.float32]]:
        """Run the graph on one image and return these output tensors, without the batch."""
        with self._lock:
            self._interpreter.set_tensor(self._input, tensor)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output)[0] for output in outputs]

    def _run_once(self) -> None:
        """Raise ArtifactError if the model cannot run. Some damage shows only at inference."""
        size = self.metadata.input
        zeros = np.zeros((1, size.height, size.width, 3), np.float32)
        activation_map = np.zeros(0, np.float32)
        try:
            if self._map is None:
                probabilities = self.predict(zeros)
            else:
                probabilities, activation_map = self.predict_with_map(zeros)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"the artifact's model fails at inference: {error}") from error
        if not are_probabilities(probabilities):
            raise ArtifactError(
                "the artifact's model does not return probabilities for an input of zeros. "
                f"Received: {probabilities.tolist()[:10]}"
            )
        if not np.isfinite(activation_map).all():
            raise ArtifactError("the artifact's activation map is not finite for an input of zeros")


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Return whether values are finite, not negative, and sum to about 1.

    Args:
        values: float32, (classes,).
    """
    total = values.sum(dtype=np.float64)
    return bool(np.isfinite(values).all() and (values >= 0).all() and 0.9 < total < 1.1)


def is_unlike_known(probabilities: NDArray[np.float32], rule: UncertainSpec) -> bool:
    """Return whether an image is unlike those that the model knows.

    For an image of its own kind the model not only prefers one class. It also rejects the others in
    a way that is typical of that class. So the logarithms of the probabilities lie near those of
    other images of the class. The distance is Mahalanobis's, with one covariance for all classes
    (Lee et al., A simple unified framework for detecting out-of-distribution samples, 2018).
    docs/experiments.md compares it with other scores.

    Args:
        probabilities: float32, (classes,), in the order of the labels.
        rule: from the artifact's metadata.
    """
    point = log_ratios(probabilities[np.newaxis]) @ np.array(rule.factor)
    return bool(square_distances(point, np.array(rule.centres))[0] > rule.farthest)


def log_ratios(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the logarithms of probabilities, less their mean over the classes.

    Args:
        probabilities: float, (images, classes).
    """
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), LEAST_PROBABILITY))
    return np.asarray(logarithms - logarithms.mean(axis=1, keepdims=True))


def square_distances(
    points: NDArray[np.float64], centres: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return each point's squared distance to the nearest centre, float64, (points,).

    Args:
        points: float64, (points, dimensions).
        centres: float64, (centres, dimensions).
    """
    return np.asarray(np.min([((points - one) ** 2).sum(axis=1) for one in centres], axis=0))


def _to_probabilities(values: NDArray[np.float32], output: str) -> NDArray[np.float32]:
    """Complete what a graph left out: the softmax, or the first of two labels.

    Args:
        values: float32, (outputs,), as the graph gives them.
        output: one of ``metadata.OUTPUTS``.

    Returns:
        float32, (classes,), probabilities.
    """
    if output == "probabilities":
        return values
    if output == "probability_of_second":
        return np.array([1 - values[0], values[0]], np.float32)
    # The logit of the second label stands against 0 for the first.
    logits = values if output == "logits" else np.array([0, values[0]], np.float32)
    exponentials = np.exp(logits - logits.max())
    probabilities: NDArray[np.float32] = exponentials / exponentials.sum()
    return probabilities


def _load_interpreter(artifact: Path | bytes, num_threads: int) -> Any:
    interpreter_class = _interpreter_class()
    source = (
        {"model_content": artifact}
        if isinstance(artifact, bytes)
        else {"model_path": str(artifact)}
    )
    try:
        interpreter = interpreter_class(num_threads=num_threads, **source)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"the artifact is not a loadable TFLite model: {error}") from error
    return interpreter


def _interpreter_class() -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        from tflite_runtime.interpreter import Interpreter
    return Interpreter


def _checked_tensors(interpreter: Any, metadata: ModelMetadata) -> tuple[int, int, int | None]:
    """Return the tensors of the input, the output and the activation map, if there is one."""
    try:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except ValueError as error:  # a name that is not UTF-8
        raise ArtifactError(f"the artifact's tensors cannot be read: {error}") from error
    size, grid = metadata.input, metadata.activation_map
    outputs_of_graph = 1 if metadata.output in SECOND_LABEL_OUTPUTS else len(metadata.labels)
    (image,) = _find("input", inputs, (1, size.height, size.width, 3))
    if grid is None:
        (output,) = _find("output", outputs, (1, outputs_of_graph))
        return image, output, None
    named = _named_outputs(interpreter)
    names = (metadata.output, MAP_OUTPUT)
    if sorted(named) != sorted(names):
        raise ArtifactError(
            f"the artifact's outputs do not fit its metadata: metadata says {sorted(names)}, "
            f"the model has {sorted(named)}"
        )
    shapes = ((1, outputs_of_graph), (1, grid.height, grid.width, len(metadata.labels)))
    output, activation_map = _find("output", [named[name] for name in names], *shapes)
    return image, output, activation_map


def _named_outputs(interpreter: Any) -> dict[str, dict[str, Any]]:
    """Return the outputs by name. Converters order them as they like, and name them in a signature.

    A model without a signature has no named outputs.
    """
    try:
        runner = interpreter.get_signature_runner()
    except ValueError:
        return {}
    return dict(runner.get_output_details())


def _find(kind: str, details: list[dict[str, Any]], *expected: tuple[int, ...]) -> list[int]:
    """Return the indices of float32 tensors with these shapes.

    Raises:
        ArtifactError: the model has tensors of other shapes or types.
    """
    found = [tuple(int(n) for n in detail["shape"]) for detail in details]
    if found != list(expected):
        raise ArtifactError(
            f"the artifact's {kind} does not fit its metadata: metadata says "
            f"{', '.join(map(str, expected))}, the model has {found}"
        )
    for detail in details:
        if detail["dtype"] is not np.float32:
            raise ArtifactError(
                f"the artifact's {kind} must be float32. Received: {detail['dtype'].__name__}"
            )
    return [int(detail["index"]) for detail in details]
