"""The head that an activation map needs is found, and every other one is refused by name."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from converter.sources.pooled_head import (
    NoActivationMapError,
    describe_map,
    find_pooled_head,
    has_pooled_features,
    with_activation_map,
)
from converter.sources.run_folder import open_source
from lambda_function.metadata import MapSpec
from tests.support import converter as support

pytestmark = pytest.mark.training
SIZE = (8, 12)  # (height, width)


def features_of(images):
    """Return images -> features, (N, 4, 6, 5)."""
    from keras import layers

    return layers.Conv2D(5, 2, strides=2, name="features")(images)


def build(*head):
    """Return a model of features and these layers."""
    import keras

    images = keras.Input((*SIZE, 3))
    tensor = features_of(images)
    for layer in head:
        tensor = layer(tensor)
    return keras.Model(images, tensor)


def plain(layers):
    return [layers.GlobalAveragePooling2D(), layers.Dense(3)]


def of_this_project(layers):
    return [
        layers.GlobalAveragePooling2D(),
        layers.Dropout(0.2),
        layers.Dense(3),
        layers.Rescaling(0.8),
        layers.Softmax(),
    ]


def with_activation(layers):
    return [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]


def without_bias(layers):
    return [
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, use_bias=False),
        layers.Activation("softmax"),
    ]


@pytest.mark.parametrize("head", [plain, of_this_project, with_activation, without_bias])
def test_features_times_kernel_average_to_the_logits(head):
    import keras

    model = build(*head(keras.layers))
    dense = next(layer for layer in model.layers if isinstance(layer, keras.layers.Dense))
    images = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype(np.float32)
    pooled = np.asarray(keras.Model(model.inputs, dense.input).predict_on_batch(images))

    found = find_pooled_head(model)
    output, features, means = map(np.asarray, found.with_features.predict_on_batch(images))

    np.testing.assert_allclose(means, pooled, atol=1e-6)
    assert features.shape == (2, 4, 6, 5)
    np.testing.assert_allclose(output, model.predict_on_batch(images), atol=1e-6)
    logits = pooled @ np.asarray(dense.kernel) + (np.asarray(dense.bias) if dense.use_bias else 0)
    by_map = (features @ found.kernel).mean(axis=(1, 2)) + found.bias
    np.testing.assert_allclose(by_map, logits, atol=1e-5)


def test_a_base_that_is_a_model_itself_has_its_features_found():
    import keras

    inner = keras.Input((*SIZE, 3))
    base = keras.Model(inner, features_of(inner), name="base")
    images = keras.Input((*SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(images, training=False))
    model = keras.Model(images, keras.layers.Dense(3)(pooled))
    sequential = keras.Sequential([keras.Input((*SIZE, 3)), base, *plain(keras.layers)])

    for found in (find_pooled_head(model), find_pooled_head(sequential)):
        assert tuple(found.with_features.outputs[1].shape) == (None, 4, 6, 5)


def inner_layer(layers):
    return [
        layers.GlobalAveragePooling2D(),
        layers.Dense(100, activation="relu", name="inner"),
        layers.Dropout(0.2),
        layers.Dense(3, name="logits"),
    ]


def flat(layers):
    return [layers.Flatten(name="flat"), layers.Dense(3, name="logits")]


def largest(layers):
    return [layers.GlobalMaxPooling2D(name="largest"), layers.Dense(3, name="logits")]


def sigmoids(layers):
    return [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="sigmoid", name="several")]


def no_dense_layer(layers):
    return [layers.Conv2D(3, 1), layers.GlobalAveragePooling2D(name="pool")]


def channels_first(layers):
    pool = layers.GlobalAveragePooling2D(data_format="channels_first", name="rows")
    return [pool, layers.Dense(3, name="logits")]


def shifted(layers):
    return [layers.GlobalAveragePooling2D(), layers.Dense(3), layers.Rescaling(1, 2, name="shift")]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (inner_layer, "global average pooling before 'logits', found Dense 'inner'"),
        (flat, "global average pooling before 'logits', found Flatten 'flat'"),
        (largest, "before 'logits', found GlobalMaxPooling2D 'largest'"),
        (sigmoids, "a dense layer of logits, found Dense 'several'"),
        (no_dense_layer, "a dense layer of logits, found GlobalAveragePooling2D 'pool'"),
        (channels_first, "channels last, found GlobalAveragePooling2D 'rows'"),
        (shifted, "a dense layer of logits, found Rescaling 'shift'"),
    ],
)
def test_another_head_is_refused_by_its_layer(head, message):
    import keras

    with pytest.raises(NoActivationMapError, match=message):
        find_pooled_head(build(*head(keras.layers)))


def test_a_source_is_described_with_the_grid_of_its_features(source, mapped):
    described = mapped.source

    assert described.metadata.activation_map == MapSpec(support.HEIGHT, support.WIDTH)
    assert described.metadata.format_version == 3
    assert source.metadata.activation_map is None


def test_a_source_without_such_a_head_stays_and_one_sentence_says_so(tmp_path, capsys):
    import keras

    images = keras.Input((support.HEIGHT, support.WIDTH, 3))
    tensor = keras.layers.Dense(3, name="logits")(keras.layers.Flatten(name="flat")(images))
    source = open_source(support.write_run(tmp_path, keras.Model(images, tensor)))

    assert describe_map(source) is source
    assert capsys.readouterr().out == (
        f"note: {source.path} has no activation map: expected global average pooling before "
        "'logits', found Flatten 'flat'. Its predictions cannot be explained.\n"
    )
    assert not has_pooled_features(source)
    assert capsys.readouterr().out == (
        f"note: {source.path} has no feature distance: expected global average pooling before "
        "'logits', found Flatten 'flat'. Only MIN_SCORE can mark its predictions as uncertain.\n"
    )


def test_a_map_of_more_cells_than_a_response_holds_is_left_out(source):
    import keras

    spec = dataclasses.replace(source.spec, height=400, width=300)
    pooled = keras.layers.GlobalAveragePooling2D()(images := keras.Input((400, 300, 3)))
    model = keras.Model(images, keras.layers.Dense(3)(pooled))
    metadata = dataclasses.replace(source.metadata, input=spec)
    large = dataclasses.replace(source, read=lambda: model, metadata=metadata)

    with pytest.raises(NoActivationMapError, match="it would have 120,000 cells, and 100,000"):
        with_activation_map(large)


def test_one_sigmoid_and_one_cell_have_no_map(source):
    import keras

    size = (support.HEIGHT, support.WIDTH)
    images = keras.Input((*size, 3))
    cell = keras.layers.AveragePooling2D(size)(images)
    pooled = keras.layers.GlobalAveragePooling2D()(cell)
    model = keras.Model(images, keras.layers.Dense(3)(pooled))
    one_cell = dataclasses.replace(source, read=lambda: model)
    metadata = dataclasses.replace(
        source.metadata, output="logit_of_second", labels=source.labels[:2]
    )

    with pytest.raises(NoActivationMapError, match="it would have one cell"):
        with_activation_map(one_cell)
    with pytest.raises(NoActivationMapError, match="one output only"):
        with_activation_map(dataclasses.replace(source, metadata=metadata))
