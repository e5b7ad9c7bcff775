"""Both interpreters give the same predictions for the same tensors.

tflite-runtime and ai-edge-litert need different NumPys and cannot share an environment. The one
with tflite-runtime is made here from its lock, if there is a Python 3.11.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from converter.recipes import RECIPES
from converter.sources.run_folder import open_source
from converter.tflite import quantise, to_float32
from lambda_function import REPOSITORY
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess

LOCK = REPOSITORY / "requirements" / "tflite-runtime.txt"
CLASSES = 10
EXAMPLES = sorted((REPOSITORY / "examples").iterdir())
# The other side: tensors in, predictions out, through the deployed Classifier.
PREDICT = """
import sys, numpy
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from lambda_function.classifier import Classifier
classifier = Classifier(Path(sys.argv[2]))
tensors = numpy.load(sys.argv[3])
numpy.save(sys.argv[4], numpy.stack([classifier.predict(t[None]) for t in tensors]))
assert "tflite_runtime.interpreter" in sys.modules
"""
pytestmark = [pytest.mark.training, pytest.mark.slow]


@pytest.fixture(scope="module")
def other_python():
    """The Python of an environment with tflite-runtime, made once and kept."""
    for existing in (REPOSITORY / ".venv" / "tflite-runtime", REPOSITORY / ".venv" / "peer-course"):
        python = existing / "bin" / "python"
        if python.is_file() and _has_runtime(python):
            return python
    found = shutil.which("python3.11")
    if found is None:
        pytest.skip("no python3.11 here, and tflite-runtime has no wheel for a newer one")
    folder = REPOSITORY / ".venv" / "runtime-lane"
    python = folder / "bin" / "python"
    if not (python.is_file() and _has_runtime(python)):
        subprocess.run([found, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
        subprocess.run([*install, "--require-hashes", "-r", str(LOCK)], check=True)
    return python


def _has_runtime(python: Path) -> bool:
    probe = [str(python), "-c", "import tflite_runtime.interpreter, keras_image_helper"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def predictions_of_both(
    artifact: bytes, tensors: np.ndarray, python: Path, folder: Path
) -> tuple[np.ndarray, np.ndarray]:
    model, given, taken = folder / "m.tflite", folder / "tensors.npy", folder / "predicted.npy"
    model.write_bytes(artifact)
    np.save(given, tensors)
    words = [str(python), "-c", PREDICT, str(REPOSITORY), str(model), str(given), str(taken)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    classifier = Classifier(artifact)
    return np.stack([classifier.predict(t[None]) for t in tensors]), np.load(taken)


def real_tensors(spec) -> np.ndarray:
    """The project's own images, as the handler sees them."""
    return np.concatenate(
        [preprocess(decode_image(p.read_bytes(), target=spec), spec) for p in EXAMPLES]
    )


@pytest.mark.parametrize(
    ("recipe", "tolerance"),
    [
        ("float32", 1e-4),
        ("float16", 1e-4),
        ("dynamic", 0.02),
        ("int8", 0.02),
        ("int8_float_head", 0.02),
    ],
)
def test_both_interpreters_agree(plain, other_python, tmp_path, recipe, tolerance):
    tensors = real_tensors(plain.source.spec)

    ours, theirs = predictions_of_both(plain.artifacts[recipe], tensors, other_python, tmp_path)

    assert len(ours) >= 3
    assert np.abs(ours - theirs).max() <= tolerance


@pytest.fixture(scope="module")
def xception(tmp_path_factory):
    """Xception with ImageNet weights at 150 px under a head that tells images apart."""
    import json

    import keras

    from lambda_function.metadata import InputSpec
    from training.config import TrainConfig
    from training.data.imagenet import find_weights
    from training.fit.backbone import build_backbone, build_network, with_probabilities

    weights = find_weights()
    if weights is None:
        pytest.skip("no ImageNet weights here (BACKBONE_WEIGHTS, or ../shared/weights)")
    config = TrainConfig(name="whole", input=InputSpec(150, 150), first_trainable_block=14)
    keras.utils.set_random_seed(0)
    network = build_network(build_backbone(150, 150, weights), config, CLASSES)
    head = network.whole.get_layer("logits")
    kernel, bias = head.get_weights()
    pooled = keras.Model(network.whole.input, network.whole.get_layer("pool").output)
    features = np.asarray(pooled.predict_on_batch(real_tensors(config.input)))
    head.set_weights([kernel * (0.5 / features.std()), bias])
    run = tmp_path_factory.mktemp("xception")
    labels = [f"class-{number}" for number in range(CLASSES)]
    described = {**config.to_dict(), "version": "0", "labels": labels}
    described |= {"dataset": "none", "licence": "MIT"}
    (run / "config.json").write_text(json.dumps(described))
    (run / "report.json").write_text(json.dumps({"temperature": 1.0}))
    with_probabilities(network.whole, 1.0).save(run / "model.keras")
    source = open_source(run / "model.keras")
    return source, to_float32(source)


@pytest.mark.weights
@pytest.mark.parametrize("recipe", ["float32", "float16"])
def test_both_interpreters_agree_on_the_whole_network(xception, other_python, tmp_path, recipe):
    source, float_model = xception
    artifact = quantise(source, float_model, RECIPES[recipe], None)
    tensors = real_tensors(source.spec)[:8]

    ours, theirs = predictions_of_both(artifact, tensors, other_python, tmp_path)

    assert np.abs(ours - theirs).max() <= 1e-4
    assert np.ptp(ours) > 0.05  # else agreement would mean little
