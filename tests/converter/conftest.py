"""One small model in every recipe, without and with a map and a distance, converted once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from converter.calibration import CalibrationRanges, choose_images
from converter.recipes import RECIPES
from converter.sources.feature_distance import FeatureDistance
from converter.sources.pooled_head import with_activation_map
from converter.sources.run_folder import open_source
from converter.sources.source import Source
from converter.tflite import quantise, to_float32
from lambda_function.metadata import DistanceSpec
from tests.support import converter as support
from training.data.dataset import Split, load_split


@dataclasses.dataclass(frozen=True)
class Converted:
    """A source and its artifacts, by recipe."""

    source: Source
    artifacts: dict[str, bytes]


def convert(source: Source, train: Split) -> dict[str, bytes]:
    """Return the source's artifacts, by recipe, calibrated on 8 images."""
    float_model = to_float32(source)
    ranges = CalibrationRanges(float_model, choose_images(train, source.spec, count=8, seed=5))
    return {name: quantise(source, float_model, RECIPES[name], ranges) for name in RECIPES}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return support.write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def train(dataset: Path) -> Split:
    return load_split(dataset, "train", support.LABELS)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return open_source(support.write_run(tmp_path_factory.mktemp("run"), support.colour_model()))


@pytest.fixture(scope="session")
def plain(source: Source, train: Split) -> Converted:
    return Converted(source, convert(source, train))


@pytest.fixture(scope="session")
def mapped(source: Source, train: Split) -> Converted:
    described = with_distance(with_activation_map(source))
    return Converted(described, convert(described, train))


def with_distance(source: Source) -> Source:
    """Return the same model with a feature distance that was not fitted. None is uncertain."""
    distance = FeatureDistance(
        means=np.random.default_rng(5).uniform(size=(3, 8)),
        components=np.eye(8)[:, :2],
        variances=np.array([0.2, 0.3]),
        rest=0.1,
    )
    spec = DistanceSpec(farthest=1e6, images=9, share=0.0)
    metadata = dataclasses.replace(source.metadata, feature_distance=spec)
    return dataclasses.replace(source, metadata=metadata, distance=distance)
