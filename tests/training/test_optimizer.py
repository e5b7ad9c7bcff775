"""Early blocks learn more slowly, and the estimate of a run's time follows its blocks."""

from __future__ import annotations

import numpy as np
import pytest

keras = pytest.importorskip("keras", reason="needs Keras: make test-training")

from lambda_function.metadata import InputSpec  # noqa: E402
from training.config import TrainConfig  # noqa: E402
from training.fit.backbone import block_of, build_network, named_weights  # noqa: E402
from training.fit.estimate import SHARE_BEFORE, cached_time_s, uncached_time_s  # noqa: E402
from training.fit.optimizer import build_optimizer, learning_rate_factors  # noqa: E402

pytestmark = pytest.mark.training


def test_shortcut_layers_belong_to_the_block_before_them() -> None:
    names = [
        *("input", "block1_conv1", "conv2d_3", "block2_sepconv1", "add", "block14_x", "pool", "z"),
    ]
    assert block_of(names) == [1, 1, 1, 2, 2, 14, 15, 15]


def test_the_first_step_of_each_block_shrinks_with_its_depth() -> None:
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(3, name="block12_dense")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(hidden))
    config = TrainConfig(
        epochs=2, learning_rate=0.01, warmup_epochs=0.0, weight_decay=0.0, layer_decay=0.5,
        ema_momentum=0.0,
    )  # fmt: skip
    assert set(learning_rate_factors(model, 0.5).values()) == {0.5**3, 1.0}
    model.compile(optimizer=build_optimizer(config, 100, model), loss="mse")
    before = named_weights(model)

    model.train_on_batch(np.ones((4, 3), np.float32), np.full((4, 2), 9, np.float32))

    moved = {name: np.abs(value - before[name]) for name, value in named_weights(model).items()}
    # Adam's first step is the learning rate, whatever the gradient.
    assert moved["logits/kernel"] == pytest.approx(np.full((3, 2), 0.01), rel=0.01)
    block = moved["block12_dense/kernel"]
    assert block[block > 0] == pytest.approx(0.01 / 8, rel=0.01)


def test_the_share_of_each_block_is_that_of_the_network() -> None:
    backbone = keras.applications.Xception(
        weights=None, include_top=False, input_shape=(224, 224, 3)
    )
    blocks = block_of([layer.name for layer in backbone.layers])
    costs = dict.fromkeys(range(1, 15), 0)
    for layer, block in zip(backbone.layers, blocks, strict=True):
        if isinstance(layer, keras.layers.SeparableConv2D | keras.layers.Conv2D):
            places = int(np.prod(layer.output.shape[1:-1]))
            costs[block] += places * sum(int(np.prod(w.shape)) for w in layer.weights[:2])
    total = sum(costs.values())
    for block in range(1, 16):
        before = sum(costs[b] for b in range(1, block)) / total
        assert SHARE_BEFORE[block] == pytest.approx(before, abs=0.001)


def test_times_are_forward_passes_counted_by_hand() -> None:
    config = TrainConfig(epochs=10, views=4)
    # 100 images, 0.1 s each: 4 views of the frozen 94.9 %, and 10 epochs of 3 times the rest
    assert cached_time_s(0.1, 100, config, 14) == pytest.approx(10 * (4 * 0.949 + 30 * 0.051))
    assert uncached_time_s(0.1, 100, config, 1) == pytest.approx(10 * 30)
    # Frozen blocks have no gradients: one pass, not three
    assert uncached_time_s(0.1, 100, config, 14) == pytest.approx(100 * (0.949 * 1 + 0.051 * 3))


def test_a_dropped_block_is_a_block_that_adds_nothing() -> None:
    keras.utils.set_random_seed(2)
    size = 71
    backbone = keras.applications.Xception(
        weights=None, include_top=False, input_shape=(size, size, 3)
    )
    for block in (6, 12):  # their last batch norm gives 0, so the sum is the shortcut
        backbone.get_layer(f"block{block}_sepconv3_bn").gamma.assign(np.zeros(728))
    config = TrainConfig(input=InputSpec(size, size), dropped_blocks="6,12")
    image = np.random.default_rng(0).uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    network = build_network(backbone, config, 3)

    features = keras.Model(network.whole.input, network.whole.get_layer("pool").input)

    expected = np.asarray(backbone(image))
    assert np.asarray(features(image)) == pytest.approx(expected, abs=1e-4)
    names = {layer.name.split("_")[0] for layer in network.whole.layers}
    assert not {"block6", "block12"} & names
    assert {f"block{n}" for n in range(1, 15) if n not in (6, 12)} <= names


def test_fresh_blocks_forget_imagenet_and_the_blocks_before_do_not() -> None:
    keras.utils.set_random_seed(3)
    backbone = keras.applications.Xception(weights=None, include_top=False, input_shape=(71, 71, 3))
    config = TrainConfig(input=InputSpec(71, 71), fresh_from_block=14)

    found, start = (
        named_weights(build_network(backbone, config, 3).whole),
        named_weights(backbone),
    )

    kernels = [name for name in start if name.endswith("_kernel")]
    changed = {name for name in kernels if not np.array_equal(found[name], start[name])}
    assert changed == {name for name in kernels if name.startswith("block14_")}
