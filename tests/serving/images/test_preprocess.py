"""Resizing and scaling give what keras-image-helper and Keras give for the same image."""

from __future__ import annotations

import numpy as np
import pytest
from keras_image_helper import create_preprocessor
from PIL import Image

from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec
from tests.support.images import encode, photo

# One pixel of 255, 51, 0: worked out by hand from the published constants.
BY_HAND = {
    "xception": [1.0, -0.6, -1.0],
    "tf": [1.0, -0.6, -1.0],
    "torch": [(1 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, -0.406 / 0.225],
    "caffe": [0 - 103.939, 51 - 116.779, 255 - 123.68],
    "0..1": [1.0, 0.2, 0.0],
    "0..255": [255.0, 51.0, 0.0],
}
KERAS_MODES = {"xception": "tf", "tf": "tf", "torch": "torch", "caffe": "caffe"}


@pytest.mark.parametrize(("normalisation", "expected"), BY_HAND.items())
def test_a_pixel_is_scaled_as_worked_out_by_hand(normalisation, expected):
    spec = InputSpec(2, 3, "nearest", normalisation)

    tensor = preprocess(Image.new("RGB", (3, 2), (255, 51, 0)), spec)

    assert (tensor.shape, tensor.dtype) == ((1, 2, 3, 3), np.float32)
    np.testing.assert_allclose(tensor[0, 1, 2], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("network", "normalisation"),
    [("xception", "xception"), ("inception_v3", "tf"), ("resnet50", "caffe"), ("vgg16", "caffe")],
)
def test_nearest_equals_keras_image_helper_from_the_same_file(tmp_path, network, normalisation):
    file = tmp_path / "large.bmp"
    file.write_bytes(encode(photo(3000, 2100), "BMP"))  # large enough to be reduced early
    spec = InputSpec(150, 120, "nearest", normalisation)

    served = preprocess(decode_image(file.read_bytes(), target=spec), spec)

    expected = create_preprocessor(network, target_size=(120, 150)).from_path(str(file))
    np.testing.assert_allclose(served, expected, atol=1e-4)


@pytest.mark.training
@pytest.mark.parametrize(("normalisation", "mode"), KERAS_MODES.items())
def test_scaling_equals_keras_preprocess_input(normalisation, mode):
    from keras.applications.imagenet_utils import preprocess_input

    image = photo(60, 50)
    spec = InputSpec(60, 50, "nearest", normalisation)

    expected = preprocess_input(np.asarray(image, np.float32).copy(), mode=mode)

    np.testing.assert_allclose(preprocess(image, spec)[0], expected, atol=1e-4)
