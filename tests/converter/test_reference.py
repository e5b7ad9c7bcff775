"""The reference side reads images by itself, and sees what serving sees."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageCms

from converter.errors import SourceError
from converter.reference import complete, keras_predictions, read_tensor, reference_tensor
from converter.sources.pooled_head import with_activation_map
from converter.sources.run_folder import open_source
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import NORMALISATIONS, RESIZE_FILTERS, InputSpec
from tests.support import converter as support
from tests.support import images
from tests.support.images import encode
from training.data.dataset import load_split

SPEC = InputSpec(30, 40)


def png(pixels) -> bytes:
    return encode(Image.fromarray(np.asarray(pixels, np.uint8)))


def test_reference_scales_to_minus_one_and_one_in_rgb_order():
    pixels = np.zeros((30, 40, 3))
    pixels[..., 0], pixels[..., 1], pixels[..., 2] = 255, 51, 0

    tensor = reference_tensor(png(pixels), SPEC)

    assert tensor.shape == (30, 40, 3)
    assert tensor.dtype == np.float32
    # 51 / 127.5 - 1 = -0.6
    np.testing.assert_allclose(tensor[7, 9], [1.0, -0.6, -1.0], atol=1e-6)


def test_reference_takes_height_and_width_in_the_right_order():
    pixels = np.zeros((60, 20, 3))
    pixels[:30] = 255  # upper half white

    tensor = reference_tensor(png(pixels), InputSpec(40, 10))

    assert tensor.shape == (40, 10, 3)
    assert tensor[2].min() == 1.0
    assert tensor[-3].max() == -1.0


def test_reference_flattens_alpha_on_white_and_turns_upright():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert reference_tensor(encode(clear), InputSpec(4, 4)).min() == 1.0

    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255  # left half white. Orientation 6 turns it clockwise: upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = reference_tensor(encode(Image.fromarray(pixels), exif=exif), InputSpec(20, 10))
    assert upright[2].min() == 1.0
    assert upright[-3].max() == -1.0


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("resize_filter", RESIZE_FILTERS)
def test_reference_and_serving_preprocessing_agree(resize_filter, normalisation):
    pixels = np.random.default_rng(1).integers(0, 256, (97, 61, 3))
    spec = InputSpec(30, 40, resize_filter, normalisation)

    served = preprocess(decode_image(png(pixels), target=spec), spec)[0]

    np.testing.assert_allclose(served, reference_tensor(png(pixels), spec), atol=1e-4)


def odd_images() -> dict[str, bytes]:
    """Images that serving reads, and that a plain reader trips over."""
    image, lab = images.photo(60, 50), ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    alpha = Image.merge("RGBA", (*image.split(), image.convert("L")))
    deep = np.asarray(image.convert("L"), dtype=np.uint16) * 257
    return {
        "16-bit grey": images.png(deep),
        "a palette": images.encode(image.quantize(16)),
        "a wide profile": images.encode(
            image, "JPEG", icc_profile=images.rgb_profile("blue", "green", "red")
        ),
        "a grey profile": images.encode(
            image.convert("L"), "JPEG", icc_profile=images.grey_profile(1.8)
        ),
        "CMYK and its profile": images.encode(
            image.convert("CMYK"), "JPEG", icc_profile=images.cmyk_profile()
        ),
        "a damaged profile": images.encode(image, "JPEG", icc_profile=b"damaged" * 30),
        "a profile of another kind": images.encode(image, "JPEG", icc_profile=lab.tobytes()),
        "alpha and a profile": images.encode(
            alpha, "PNG", icc_profile=images.rgb_profile("blue", "green", "red")
        ),
    }


@pytest.mark.parametrize("kind", odd_images())
def test_reference_reads_what_serving_reads(kind):
    data = odd_images()[kind]
    served = preprocess(decode_image(data, target=SPEC), SPEC)[0]
    # the gate's own limit for the difference of inputs
    assert np.abs(served - reference_tensor(data, SPEC)).mean() < 1 / 255


def test_an_image_that_the_reference_cannot_read_is_named(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"words")
    with pytest.raises(SourceError, match=r"the image .*broken\.jpg cannot be read"):
        read_tensor(broken, SPEC)


@pytest.mark.parametrize(
    ("output", "values", "expected"),
    [
        ("probabilities", [0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ("logits", [0.0, 1.0986123], [0.25, 0.75]),
        ("probability_of_second", [0.9], [0.1, 0.9]),
        ("logit_of_second", [1.0986123], [0.25, 0.75]),
    ],
)
def test_outputs_become_probabilities(output, values, expected):
    np.testing.assert_allclose(complete(np.array([values]), output), [expected], atol=1e-6)


@pytest.mark.training
def test_keras_predictions_are_kept_under_the_content_of_model_and_images(tmp_path):
    dataset = support.write_dataset(tmp_path / "dataset")
    source = open_source(support.write_run(tmp_path / "run", support.colour_model()))
    paths = load_split(dataset, "validation", source.labels).paths
    cache = tmp_path / "cache"

    first = keras_predictions(source, paths, cache=cache)
    again = keras_predictions(source, paths, cache=cache)
    assert (again.maps, again.pooled) == (None, None)
    assert len(list(cache.iterdir())) == 1
    np.testing.assert_array_equal(first.probabilities, again.probabilities)

    Image.new("RGB", (70, 90), "red").save(paths[0])
    changed = keras_predictions(source, paths, cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert np.abs(changed.probabilities[0] - first.probabilities[0]).max() > 0.1


@pytest.mark.training
def test_keras_maps_and_pooled_features_are_kept_beside_the_predictions(tmp_path):
    dataset = support.write_dataset(tmp_path / "dataset")
    source = open_source(support.write_run(tmp_path / "run", support.colour_model()))
    paths = load_split(dataset, "validation", source.labels).paths
    described = with_activation_map(source)

    first = keras_predictions(described, paths, cache=tmp_path / "cache")
    again = keras_predictions(described, paths, pooled=True, cache=tmp_path / "cache")

    assert first.pooled is None
    probabilities, maps = again.probabilities, again.maps
    assert len(list((tmp_path / "cache").iterdir())) == 1
    np.testing.assert_array_equal(first.probabilities, probabilities)
    np.testing.assert_array_equal(first.maps.maps, maps.maps)
    by_pooled = again.pooled @ np.asarray(source.load().get_layer("logits").kernel)
    np.testing.assert_allclose(by_pooled, maps.maps.mean(axis=(1, 2)), atol=1e-4)
    assert maps.maps.shape == (9, support.HEIGHT, support.WIDTH, 3)
    assert maps.maps.dtype == np.float32
    np.testing.assert_allclose(maps.bias, [0.1, 0.1, 0.1], atol=1e-7)
    # The temperature of the model is 1.5. See colour_model.
    logits = (maps.maps.mean(axis=(1, 2)) + maps.bias) / 1.5
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
