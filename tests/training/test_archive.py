"""A release keeps what training changed, and gives the same model again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from tests.support.small_network import build  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.errors import ConfigError, WeightsError  # noqa: E402
from training.fit.backbone import (  # noqa: E402
    build_backbone,
    build_network,
    weights_sha256,
    with_probabilities,
)
from training.release import release  # noqa: E402
from training.restore import restore  # noqa: E402

LABELS = ["a", "b", "c"]
pytestmark = pytest.mark.training


@pytest.fixture(scope="module")
def world(tmp_path_factory, small_network):
    """The small network's weights stand for ImageNet's. A run differs in block 14 and the head."""
    root = tmp_path_factory.mktemp("release")
    weights = small_network
    config = TrainConfig(name="mine", input=InputSpec(71, 71))
    network = build_network(build_backbone(71, 71, weights), config, len(LABELS))
    generator = np.random.default_rng(2)
    for layer in network.trained.layers:
        if layer.name == "block14_sepconv1_bn":
            continue  # as the partial ImageNet file has it; kept all the same
        layer.set_weights(
            [w + generator.normal(0, 0.02, w.shape).astype("float32") for w in layer.get_weights()]
        )
    run = root / "runs" / "mine"
    run.mkdir(parents=True)
    head = network.whole.get_layer("logits")  # so that answers differ from image to class
    head.set_weights([40 * weight for weight in head.get_weights()])
    with_probabilities(network.whole, 1.4).save(run / "model.keras")
    described = {**config.to_dict(), "version": "0.0.0", "labels": LABELS, "dataset": "none"}
    (run / "config.json").write_text(json.dumps(described))
    (run / "report.json").write_text(json.dumps({"temperature": 1.4, "metrics": {}}))
    return {"root": root, "run": run, "weights": weights, "expected": answers(run)}


@pytest.fixture(scope="module")
def released(world):
    folder = world["root"] / "releases"
    release(world["run"], "1.2.0", weights=world["weights"], releases=folder)
    return folder


def answers(run: Path):
    images = np.random.default_rng(5).uniform(-1, 1, (4, 71, 71, 3)).astype("float32")
    model = keras.models.load_model(run / "model.keras", compile=False)
    return model.predict_on_batch(images)


def test_only_changed_tensors_are_kept_kernels_in_half_precision(released):
    with np.load(released / "1.2.0.npz") as arrays:
        names = arrays.files
        assert all(name.startswith(("block14_", "logits/")) for name in names)
        assert arrays["logits/kernel"].dtype == np.float16
        assert arrays["logits/bias"].dtype == np.float32
        assert arrays["block14_sepconv2_bn/gamma"].dtype == np.float32
    # 2 separable convolutions of 2 kernels, 2 batch norms of 4 vectors, a dense layer of 2
    assert len(names) == 4 + 8 + 2
    assert (released / "1.2.0.npz").stat().st_size < 11 * 10**6


def test_a_restored_model_answers_as_the_run_did(world, released):
    folder = restore(
        "1.2.0", weights=world["weights"], releases=released, runs=world["root"] / "again"
    )

    difference = np.abs(answers(folder) - world["expected"])
    assert difference.max() < 2e-3  # float16 kernels
    assert np.ptp(world["expected"]) > 0.05
    config = json.loads((folder / "config.json").read_text())
    assert (config["name"], config["version"]) == ("mine", "1.2.0")  # no name was given
    assert config["run"] == "mine"
    assert json.loads((folder / "report.json").read_text())["temperature"] == 1.4


def test_a_release_of_the_whole_network_needs_no_imagenet_file(world, tmp_path):
    config = TrainConfig(
        name="whole", input=InputSpec(71, 71), first_trainable_block=1, augmentation="strong",
        dropped_blocks="6",
    )  # fmt: skip
    network = build_network(build_backbone(71, 71, world["weights"]), config, len(LABELS))
    run = tmp_path / "whole"
    run.mkdir()
    with_probabilities(network.whole, 1.0).save(run / "model.keras")
    described = {**config.to_dict(), "version": "0.0.0", "labels": LABELS, "dataset": "none"}
    (run / "config.json").write_text(json.dumps(described))
    (run / "report.json").write_text(json.dumps({"temperature": 1.0, "metrics": {}}))
    release(run, "2.0.0", weights=world["weights"], releases=tmp_path)

    folder = restore("2.0.0", weights=tmp_path / "none.h5", releases=tmp_path, runs=tmp_path)

    facts = json.loads((tmp_path / "2.0.0.json").read_text())
    assert facts["config"]["dropped_blocks"] == "6"
    assert facts["tensors"]["changed"] == facts["tensors"]["of"]
    assert np.abs(answers(folder) - answers(run)).max() < 2e-3


def test_releasing_twice_gives_equal_bytes_and_restoring_twice_equal_weights(world, released):
    root = world["root"]
    release(world["run"], "1.2.0", weights=world["weights"], releases=root / "second")
    for name in ("1.2.0.npz", "1.2.0.json"):
        assert (root / "second" / name).read_bytes() == (released / name).read_bytes()

    hashes = set()
    for place in ("one", "two"):
        folder = restore("1.2.0", weights=world["weights"], releases=released, runs=root / place)
        model = keras.models.load_model(folder / "model.keras", compile=False)
        hashes.add(weights_sha256(model))
    assert len(hashes) == 1


def test_other_imagenet_weights_are_refused(world, released, tmp_path):
    keras.utils.set_random_seed(9)
    other = tmp_path / "other.weights.h5"
    build(71, 71).save_weights(other)

    with pytest.raises(WeightsError, match=r"not those that release 1\.2\.0 began with"):
        restore("1.2.0", weights=other, releases=released, runs=tmp_path)
    assert list(tmp_path.iterdir()) == [other]


def test_full_imagenet_weights_do_as_well_as_the_partial_file(world, released, tmp_path):
    # What a user downloads differs from the partial file in block 14, which is always kept.
    backbone = build_backbone(71, 71, world["weights"])
    for name in ("block14_sepconv1", "block14_sepconv1_bn"):
        layer = backbone.get_layer(name)
        layer.set_weights([w + 0.5 for w in layer.get_weights()])
    full = tmp_path / "full.weights.h5"
    backbone.save_weights(full)

    folder = restore("1.2.0", weights=full, releases=released, runs=tmp_path)

    assert np.abs(answers(folder) - world["expected"]).max() < 2e-3


def test_a_taken_version_a_malformed_one_and_an_unfinished_run_are_refused(
    world, released, tmp_path
):
    taken = tmp_path / "taken"
    shutil.copytree(released, taken)
    (taken / "1.2.0.npz").write_bytes(b"another model")
    with pytest.raises(ConfigError, match="holds another model already"):
        release(world["run"], "1.2.0", weights=world["weights"], releases=taken)
    with pytest.raises(ConfigError, match=r"version must read like 1\.2\.0. Received: 'v1'"):
        release(world["run"], "v1", weights=world["weights"], releases=taken)
    with pytest.raises(ConfigError, match=r"model\.keras is missing"):
        release(tmp_path, "1.3.0", weights=world["weights"], releases=taken)
    assert (taken / "1.2.0.npz").read_bytes() == b"another model"


def test_a_taken_version_keeps_its_name_and_report(world, released):
    before = (released / "1.2.0.json").read_bytes()
    again = {"weights": world["weights"], "releases": released}
    release(world["run"], "1.2.0", **again)
    with pytest.raises(ConfigError, match=r"another run or name already \(its config differ"):
        release(world["run"], "1.2.0", name="another", **again)
    assert (released / "1.2.0.json").read_bytes() == before


def test_a_training_of_the_name_of_a_release_is_not_replaced(world, released, tmp_path):
    (tmp_path / "release-1.2.0").mkdir()
    (tmp_path / "release-1.2.0" / "started.json").write_text("{}")

    with pytest.raises(ConfigError, match=r"release-1\.2\.0 holds a training of this name"):
        restore("1.2.0", weights=world["weights"], releases=released, runs=tmp_path)

    assert len(list((tmp_path / "release-1.2.0").iterdir())) == 1


def test_an_unknown_release_and_a_changed_file_are_refused(world, released, tmp_path):
    with pytest.raises(ConfigError, match=r"no release '9\.9\.9'. There are: 1\.2\.0"):
        restore("9.9.9", weights=world["weights"], releases=released, runs=tmp_path)
    changed = tmp_path / "releases"
    shutil.copytree(released, changed)
    content = bytearray((changed / "1.2.0.npz").read_bytes())
    content[-5000] ^= 1
    (changed / "1.2.0.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"not the file that 1\.2\.0\.json describes"):
        restore("1.2.0", weights=world["weights"], releases=changed, runs=tmp_path)
