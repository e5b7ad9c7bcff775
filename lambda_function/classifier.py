"""The interpreter and the artifact's metadata, checked against each other.

Only this module imports a TFLite runtime: ai-edge-litert by default, tflite-runtime where that is
installed. Both have the same API.
"""

from __future__ import annotations

import dataclasses
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from lambda_function.metadata import (
    DISTANCE_OUTPUT,
    MAP_OUTPUT,
    SECOND_LABEL_OUTPUTS,
    ModelMetadata,
    naming,
    read_metadata,
)

ROUNDING = 1e-6  # that a sigmoid may be above 1

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


class ArtifactError(RuntimeError):
    """The artifact cannot be loaded, or contradicts its metadata."""


@dataclasses.dataclass(frozen=True)
class Outputs:
    """All that a model returns for one image.

    Attributes:
        probabilities: float32, (classes,), in the order of the labels.
        activation_map: float32, (height, width, classes) of ``metadata.activation_map``. Its mean
            over the cells is a class's logit without bias. Temperature is not applied. Values may
            be negative. None if the model has no map.
        feature_distance: how far the image's features lie from the nearest class mean, from 0 on.
            None if the model does not measure it. See ``converter.sources.feature_distance``.
    """

    probabilities: NDArray[np.float32]
    activation_map: NDArray[np.float32] | None = None
    feature_distance: float | None = None


class Classifier:
    """A loaded model that returns class probabilities.

    Several threads may call it. Calls run one after another, since an interpreter owns its tensors.
    """

    def __init__(
        self, artifact: Path | bytes, *, num_threads: int = 1, run_once: bool = True
    ) -> None:
        """Load and check an artifact.

        Args:
            artifact: path of a ``.tflite`` with embedded metadata, or its bytes.
            num_threads: for one inference.
            run_once: classify zeros, because some damage shows only at inference. It takes as
                long as a request.

        Raises:
            MetadataError: no usable metadata in the artifact.
            ArtifactError: not loadable, or tensors and metadata differ.
            OSError: the file cannot be read.
        """
        self.metadata: ModelMetadata = read_metadata(artifact)
        self._lock = threading.Lock()
        with naming(artifact, ArtifactError):
            self._interpreter = _load_interpreter(artifact, num_threads)
            self._input, self._outputs = _checked_tensors(self._interpreter, self.metadata)
            if run_once:
                self._run_once()

    def predict(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Classify one preprocessed image.

        Args:
            tensor: float32, (1, height, width, 3), from ``preprocess``.

        Returns:
            float32, (classes,), probabilities in the order of ``metadata.labels``.
        """
        (values,) = self._run(tensor, self._outputs[self.metadata.output])
        return _to_probabilities(values, self.metadata.output)

    def predict_all(self, tensor: NDArray[np.float32]) -> Outputs:
        """Classify one preprocessed image, and return the other outputs of the model too.

        Args:
            tensor: as for ``predict``.
        """
        found = dict(zip(self._outputs, self._run(tensor, *self._outputs.values()), strict=True))
        distance = found.get(DISTANCE_OUTPUT)
        return Outputs(
            _to_probabilities(found[self.metadata.output], self.metadata.output),
            found.get(MAP_OUTPUT),
            None if distance is None else float(distance[0]),
        )

    def _run(self, tensor: NDArray[np.float32], *outputs: int) -> list[NDArray[np.float32]]:
        """Run the graph on one image and return these output tensors, without the batch."""
        with self._lock:
            self._interpreter.set_tensor(self._input, tensor)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(output)[0] for output in outputs]

    def _run_once(self) -> None:
        """Raise ArtifactError if the model cannot run."""
        size = self.metadata.input
        zeros = np.zeros((1, size.height, size.width, 3), np.float32)
        try:
            outputs = self.predict_all(zeros)
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(f"the artifact's model fails at inference: {error}") from error
        if not are_probabilities(outputs.probabilities):
            raise ArtifactError(
                "the artifact's model does not return probabilities for an input of zeros. "
                f"Received: {outputs.probabilities.tolist()[:10]}"
            )
        others: dict[str, Any] = {
            "activation map": outputs.activation_map,
            "feature distance": outputs.feature_distance,
        }
        for name, values in others.items():
            if values is not None and not np.isfinite(values).all():
                raise ArtifactError(f"the artifact's {name} is not finite for an input of zeros")


def are_probabilities(values: NDArray[np.float32]) -> bool:
    """Return whether values are finite, not negative, and sum to about 1, as far as they can.

    An integer softmax rounds each class to a step of 1/256, so 100 classes of 0.01 sum to 1.17.

    Args:
        values: float32, (classes,).
    """
    total = values.sum(dtype=np.float64)
    tolerance = max(0.1, values.size / 512)
    is_one = total > 0 and abs(total - 1) < tolerance
    return bool(is_one and np.isfinite(values).all() and (values >= -ROUNDING).all())


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


def _checked_tensors(interpreter: Any, metadata: ModelMetadata) -> tuple[int, dict[str, int]]:
    """Return the tensor of the input, and those of the outputs by name."""
    try:
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    except ValueError as error:  # a name that is not UTF-8
        raise ArtifactError(f"the artifact's tensors cannot be read: {error}") from error
    size, shapes = metadata.input, _output_shapes(metadata)
    (image,) = _find("input", inputs, (1, size.height, size.width, 3))
    if len(shapes) > 1:
        named = _named_outputs(interpreter)
        if sorted(named) != sorted(shapes):
            raise ArtifactError(
                f"the artifact's outputs do not fit its metadata: metadata says {sorted(shapes)}, "
                f"the model has {sorted(named)}"
            )
        outputs = [named[name] for name in shapes]
    return image, dict(zip(shapes, _find("output", outputs, *shapes.values()), strict=True))


def _output_shapes(metadata: ModelMetadata) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output by name. The first one gives the probabilities."""
    classes, grid = len(metadata.labels), metadata.activation_map
    shapes: dict[str, tuple[int, ...]] = {
        metadata.output: (1, 1 if metadata.output in SECOND_LABEL_OUTPUTS else classes)
    }
    if grid:
        shapes[MAP_OUTPUT] = (1, grid.height, grid.width, classes)
    if metadata.feature_distance:
        shapes[DISTANCE_OUTPUT] = (1, 1)
    return shapes


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
