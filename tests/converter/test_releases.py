"""The releases in ``training/releases`` can be restored, and are what was served."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lambda_function import EXAMPLES, SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import embed_metadata, read_metadata
from tests.support.paths import TESTS

pytestmark = [pytest.mark.training, pytest.mark.release]
TOLERANCE = 0.02  # between float32 and the artifact that was released, which has integers inside


def restore(version: str, runs: Path, weights: Path) -> Path:
    from training.restore import restore

    return restore(version, weights=weights, runs=runs) / "model.keras"


def test_release_1_0_0_predicts_as_its_artifact_did(tmp_path):
    from converter.sources.run_folder import open_source
    from converter.tflite import to_float32
    from training.data.imagenet import find_weights

    weights = find_weights()
    if weights is None:
        pytest.skip("no ImageNet weights here: `make fetch`, or name them in BACKBONE_WEIGHTS")
    source = open_source(restore("1.0.0", tmp_path, weights))
    classifier = Classifier(embed_metadata(to_float32(source), source.metadata))

    spec = classifier.metadata.input
    recorded = json.loads((TESTS / "data" / "release-1.0.0.json").read_text())
    for file, expected in recorded.items():
        tensor = preprocess(decode_image((EXAMPLES / file).read_bytes(), target=spec), spec)
        found = dict(zip(classifier.metadata.labels, classifier.predict(tensor), strict=True))
        assert found == pytest.approx(expected, abs=TOLERANCE), file


def test_the_served_artifact_was_made_of_the_release_without_imagenet_weights(tmp_path):
    from converter.sources.run_folder import open_source

    metadata = read_metadata(SHIPPED_MODEL)

    source = open_source(restore(metadata.version, tmp_path, tmp_path / "no weights"))

    assert metadata.source_sha256 == source.weights_sha256
