"""A Keras model with everything that its artifact will say about it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from converter.errors import SourceError
from converter.sources.feature_distance import FeatureDistance
from lambda_function.metadata import SECOND_LABEL_OUTPUTS, InputSpec, ModelMetadata


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to convert and its description.

    Attributes:
        path: the file that the model comes from.
        metadata: of the artifact to be. The converter fills in recipe and conversion, and the
            hash of the weights for the hash of the file.
        read: reads the file and returns the Keras model.
        distance: what the artifact's output ``feature_distance`` measures, if it will have one.
    """

    path: Path
    metadata: ModelMetadata
    read: Callable[[], Any]
    distance: FeatureDistance | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names in the order of the output."""
        return self.metadata.labels

    @property
    def spec(self) -> InputSpec:
        """How an image becomes the model's input."""
        return self.metadata.input

    @functools.cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the model's weights, hexadecimal. A ``.keras`` file itself holds a date."""
        from training.fit.backbone import weights_sha256

        return weights_sha256(self.load())

    def load(self) -> Any:
        """Return the Keras model, float32 images -> ``metadata.output``.

        Raises:
            SourceError: the file is not a Keras model, or its shapes do not fit the description.
        """
        model = self.read()
        height, width = self.spec.height, self.spec.width
        outputs = 1 if self.metadata.output in SECOND_LABEL_OUTPUTS else len(self.labels)
        self._check("input", [tuple(i.shape) for i in model.inputs], (height, width, 3))
        self._check("output", [tuple(o.shape) for o in model.outputs], (outputs,))
        return model

    def _check(
        self, kind: str, shapes: list[tuple[int | None, ...]], expected: tuple[int, ...]
    ) -> None:
        """Compare the shapes without the batch. A size that the model leaves open fits any."""
        fits = len(shapes) == 1 and len(shapes[0]) == 1 + len(expected)
        if not fits or any(
            size not in (None, wanted) for size, wanted in zip(shapes[0][1:], expected, strict=True)
        ):
            raise SourceError(
                f"the {kind} of {self.path} does not fit its description: the description says "
                f"{show_shape((None, *expected))}, the model has "
                f"{', '.join(map(show_shape, shapes))}"
            )


def show_shape(shape: tuple[int | None, ...]) -> str:
    """Return a shape as text, such as ``(N, 224, 224, 3)``."""
    return "(" + ", ".join("N" if size is None else str(size) for size in shape) + ")"
