"""The calibration images from which integer quantisation learns the ranges of activations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.data.dataset import Split
from training.data.images import load_image

DEFAULT_IMAGES = 128
DEFAULT_SEED = 0
INPUT_NAME = "image"
SIGNATURE = "serving_default"


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A repeatable choice of training images.

    Attributes:
        images: the chosen images.
        seed: of the choice.
        spec: how an image becomes a tensor.
    """

    images: Split
    seed: int
    spec: InputSpec

    def tensors(self) -> Iterator[NDArray[np.float32]]:
        """Yield each image as the model's input, float32, (1, height, width, 3).

        Raises:
            DatasetError: an image cannot be read. The message names it.
        """
        for path in self.images.paths:
            yield load_image(path, self.spec)[np.newaxis]

    def describe(self) -> dict[str, Any]:
        """Return what an artifact records about the choice."""
        return {"images": len(self.images), "split": "train", "seed": self.seed}


class CalibrationRanges:
    """The smallest and largest value of every tensor over the calibration images.

    They are measured on first use and shared by every recipe that needs them. They are extremes,
    not ai-edge-quantizer's moving averages: agreement with the float model was 0.988 instead of
    0.965 (86 images, Xception at 224 px, November 2026).
    """

    def __init__(self, float_model: bytes, calibration: Calibration) -> None:
        self.calibration = calibration
        self._float_model = float_model

    @functools.cached_property
    def by_tensor(self) -> dict[str, Any]:
        """Return ai-edge-quantizer's form: tensor name -> {"min": ..., "max": ...}."""
        from ai_edge_quantizer import calibrator, recipe, recipe_manager
        from ai_edge_quantizer.utils.qsv_utils import min_max_update

        everything = recipe_manager.RecipeManager()
        everything.load_quantization_recipe(recipe.static_wi8_ai8())
        with quiet():
            meter = calibrator.Calibrator(
                self._float_model, num_threads=2, qsv_update_func=min_max_update
            )
        progress = tqdm(
            self.calibration.tensors(),
            total=len(self.calibration.images),
            desc="calibrating",
            unit="image",
        )
        for tensor in progress:
            with quiet():
                meter.calibrate({SIGNATURE: [{INPUT_NAME: tensor}]}, everything)
        ranges: dict[str, Any] = meter.get_model_qsvs()
        return ranges


def choose_images(
    train: Split, spec: InputSpec, *, count: int = DEFAULT_IMAGES, seed: int = DEFAULT_SEED
) -> Calibration:
    """Choose training images by the seed alone. Smaller splits are taken whole."""
    order = np.random.default_rng(seed).permutation(len(train))
    return Calibration(train.subset(np.sort(order[:count])), seed, spec)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence ai-edge-quantizer's progress bars and its warning about memory.

    Its bars count tensors, ours counts images. Calibration needs the memory.
    """
    nowhere = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        yield
