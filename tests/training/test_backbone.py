"""The network is split where training begins, and its weights have stable names."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.errors import WeightsError  # noqa: E402
from training.fit.backbone import (  # noqa: E402
    assign_weights,
    build_network,
    named_weights,
    weights_sha256,
    with_probabilities,
)

pytestmark = pytest.mark.training

SIZE = 71
CONFIG = TrainConfig(input=InputSpec(SIZE, SIZE))


def test_frozen_and_trained_parts_are_the_whole() -> None:
    keras.utils.set_random_seed(1)
    backbone = keras.applications.Xception(
        weights=None, include_top=False, input_shape=(SIZE, SIZE, 3)
    )
    image = np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    for block in (2, 5, 13, 14, 15):
        config = dataclasses.replace(CONFIG, first_trainable_block=block, inner_units=7)
        network = build_network(backbone, config, 3)
        parts = network.trained(network.frozen(image))  # called and not compiled: 15 models
        whole = network.whole(image)
        assert np.asarray(parts) == pytest.approx(np.asarray(whole), abs=1e-4), block
        trainable = {
            layer.name.split("_")[0]
            for layer in network.trained.layers
            if layer.name.startswith("block") and layer.trainable_weights
        }
        assert trainable == {f"block{n}" for n in range(block, 15)}
        assert not network.frozen.trainable_weights


def test_weights_of_another_shape_or_name_are_refused() -> None:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(inputs))
    with pytest.raises(WeightsError, match="has no weight 'inner/kernel'"):
        assign_weights(model, {"inner/kernel": np.zeros((4, 2))})
    with pytest.raises(WeightsError, match=r"has shape \(3, 2\)"):
        assign_weights(model, {"logits/kernel": np.zeros((3, 2))})
    assign_weights(model, {"logits/kernel": np.full((4, 2), 0.5)})
    assert named_weights(model)["logits/kernel"].tolist() == [[0.5, 0.5]] * 4


def test_probabilities_are_the_softmax_of_divided_logits() -> None:
    inputs = keras.Input((2,))
    model = with_probabilities(keras.Model(inputs, inputs), temperature=2.0)
    found = np.asarray(model.predict_on_batch(np.array([[np.log(9.0), 0.0]], dtype=np.float32)))
    # the square root of 9 to 1
    assert found == pytest.approx(np.array([[0.75, 0.25]]), abs=1e-6)


def test_the_hash_of_the_weights_depends_on_every_value_and_on_nothing_else() -> None:
    def model(bias: float) -> keras.Model:
        inputs = keras.Input((4,))
        built = keras.Model(inputs, keras.layers.Dense(2, name="logits")(inputs))
        assign_weights(built, {"logits/kernel": np.ones((4, 2)), "logits/bias": np.full(2, bias)})
        return built

    assert weights_sha256(model(0.5)) == weights_sha256(model(0.5))
    assert weights_sha256(model(0.5)) != weights_sha256(model(0.25))
