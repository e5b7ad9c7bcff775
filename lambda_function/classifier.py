"""The interpreter and the artifact's metadata, checked against each other.

Only this module imports a TFLite runtime: ai-edge-litert by default, tflite-runtime where that is
installed. Both have the same API.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from lambda_function.metadata import SECOND_LABEL_OUTPUTS, ModelMetadata, read_metadata

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


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
        self._input, self._output = _checked_tensors(self._interpreter, self.metadata)
        self._run_once()

    def predict(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify one preprocessed image.

        Args:
            tensor: float32, (1, height, width, 3), from ``preprocess``.

        Returns:
            float32, (classes,), probabilities in the order of ``metadata.labels``.
        """
        with self._lock:
            self._interpreter.set_tensor(self._input, tensor)
            self._interpreter.invoke()
            values: NDArray[np.float32] = self._interpreter.get_tensor(self._output)[0]
        return _to_probabilities(values, self.metadata.output)

    def _run_once(self) -> None:
        """Raise ArtifactError if the model cannot run. Some damage shows only at inference."""
        size = self.metadata.input
        try:
            probabilities = self.predict(np.zeros((1, size.height, size.width, 3), np.float32))
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"the artifact's model fails at inference: {error}") from error
        if not are_probabilities(probabilities):
            raise ArtifactError(
                "the artifact's model does not return probabilities for an input of zeros. "
                f"Received: {probabilities.tolist()[:10]}"
            )


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Return whether values are finite, not negative, and sum to about 1.

    Args:
        values: float32, (classes,).
    """
    total = values.sum(dtype=np.float64)
    return bool(np.isfinite(values).all() and (values >= 0).all() and 0.9 < total < 1.1)


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


def _checked_tensors(interpreter: Any, metadata: ModelMetadata) -> tuple[int, int]:
    try:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except ValueError as error:  # a name that is not UTF-8
        raise ArtifactError(f"the artifact's tensors cannot be read: {error}") from error
    expected_input = (1, metadata.input.height, metadata.input.width, 3)
    outputs_of_graph = 1 if metadata.output in SECOND_LABEL_OUTPUTS else len(metadata.labels)
    expected_output = (1, outputs_of_graph)
    for kind, details, expected in (
        ("input", inputs, expected_input),
        ("output", outputs, expected_output),
    ):
        found = [tuple(int(n) for n in detail["shape"]) for detail in details]
        if found != [expected]:
            raise ArtifactError(
                f"the artifact's {kind} does not fit its metadata: metadata says "
                f"{expected}, the model has {found}"
            )
        if details[0]["dtype"] is not np.float32:
            raise ArtifactError(
                f"the artifact's {kind} must be float32. Received: {details[0]['dtype'].__name__}"
            )
    return int(inputs[0]["index"]), int(outputs[0]["index"])
