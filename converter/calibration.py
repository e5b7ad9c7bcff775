"""The calibration images from which integer quantisation learns the ranges of activations."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function.metadata import InputSpec
from training.data.dataset import Split
from training.data.images import load_image

DEFAULT_IMAGES = 256
DEFAULT_SEED = 0
QUANTILE = 0.7  # of the images' extremes
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
        return {
            "images": len(self.images),
            "split": "train",
            "seed": self.seed,
            "quantile": QUANTILE,
        }


class CalibrationRanges:
    """The range of every tensor over the calibration images.

    Of each image the smallest and the largest value count, and of these a quantile over the
    images. The extremes of all images are wider than most images need, so the steps of the
    integers are coarser (docs/experiments.md, "Which ranges should int8 cover?").
    """

    def __init__(self, float_model: bytes, calibration: Calibration) -> None:
        self.calibration = calibration
        self._float_model = float_model

    @functools.cached_property
    def by_tensor(self) -> dict[str, Any]:
        """Return ai-edge-quantizer's form: tensor name -> {"min": ..., "max": ...}."""
        from ai_edge_quantizer import calibrator, recipe, recipe_manager

        everything = recipe_manager.RecipeManager()
        everything.load_quantization_recipe(recipe.static_wi8_ai8())
        with quiet():
            meter = calibrator.Calibrator(
                self._float_model, num_threads=2, qsv_update_func=lambda _, latest: latest
            )
        progress = tqdm(
            self.calibration.tensors(),
            total=len(self.calibration.images),
            desc="calibrating",
            unit="image",
            disable=None,
        )
        of_images = []
        for tensor in progress:
            with quiet():
                meter.calibrate({SIGNATURE: [{INPUT_NAME: tensor}]}, everything)
            of_images.append(dict(meter.get_model_qsvs()))
        return join_ranges(of_images)


def join_ranges(
    of_images: Sequence[Mapping[str, Any]], quantile: float = QUANTILE
) -> dict[str, Any]:
    """Return one range for every tensor from those of all images.

    Args:
        of_images: of each image, tensor name -> {"min": ..., "max": ...}.
        quantile: share of the images whose largest value is at most the joined one, 0.5 to 1. The
            same holds for the smallest. 1 takes the extremes.
    """
    return {
        name: {
            **latest,
            "min": _quantile([image[name]["min"] for image in of_images], 1 - quantile),
            "max": _quantile([image[name]["max"] for image in of_images], quantile),
        }
        for name, latest in of_images[-1].items()
    }


def _quantile(values: Sequence[Any], share: float) -> NDArray[np.float32]:
    return np.asarray(np.quantile(np.stack(values), share, axis=0), dtype=np.float32)


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
