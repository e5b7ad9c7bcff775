"""The gate: it passes what is right, and each fault that it is there for makes it fail."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageCms

from converter import parity
from converter.errors import SourceError
from converter.reference import _batch, keras_probabilities, reference_tensor
from converter.source import open_source
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec, embed_metadata, read_metadata
from tests.support import converter as support
from tests.support import images
from training.data.dataset import Split, load_split

SPEC = InputSpec(30, 40)


def png(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


# --- the Keras side's own preprocessing -----------------------------------------


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
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    assert reference_tensor(buffer.getvalue(), InputSpec(4, 4)).min() == 1.0

    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, :10] = 255  # left half white; orientation 6 turns it clockwise: upper half
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    upright = reference_tensor(buffer.getvalue(), InputSpec(20, 10))
    assert upright[2].min() == 1.0
    assert upright[-3].max() == -1.0


@pytest.mark.parametrize("resize_filter", ["bilinear", "bicubic", "lanczos"])
def test_reference_and_serving_preprocessing_agree(resize_filter):
    pixels = np.random.default_rng(1).integers(0, 256, (97, 61, 3))
    spec = InputSpec(30, 40, resize_filter)

    served = preprocess(decode_image(png(pixels), target=spec), spec)[0]

    np.testing.assert_allclose(served, reference_tensor(png(pixels), spec), atol=1e-6)


def odd_pictures() -> dict[str, bytes]:
    """Pictures that serving reads, and that a plain reader trips over."""
    picture, lab = images.photo(60, 50), ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    alpha = Image.merge("RGBA", (*picture.split(), picture.convert("L")))
    deep = np.asarray(picture.convert("L"), dtype=np.uint16) * 257
    return {
        "16-bit grey": images.png(deep),
        "a palette": images.encode(picture.quantize(16)),
        "a wide profile": images.encode(
            picture, "JPEG", icc_profile=images.rgb_profile("blue", "green", "red")
        ),
        "a grey profile": images.encode(
            picture.convert("L"), "JPEG", icc_profile=images.grey_profile(1.8)
        ),
        "CMYK and its profile": images.encode(
            picture.convert("CMYK"), "JPEG", icc_profile=images.cmyk_profile()
        ),
        "a damaged profile": images.encode(picture, "JPEG", icc_profile=b"damaged" * 30),
        "a profile of another kind": images.encode(picture, "JPEG", icc_profile=lab.tobytes()),
        "alpha and a profile": images.encode(
            alpha, "PNG", icc_profile=images.rgb_profile("blue", "green", "red")
        ),
    }


@pytest.mark.parametrize("kind", odd_pictures())
def test_reference_reads_what_serving_reads(kind):
    data = odd_pictures()[kind]
    served = preprocess(decode_image(data, target=SPEC), SPEC)[0]
    # the gate's own limit for the difference of inputs
    assert np.abs(served - reference_tensor(data, SPEC)).mean() < 1 / 255


def test_an_image_that_the_reference_cannot_read_is_named(tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"words")
    with pytest.raises(SourceError, match=r"the image .*broken\.jpg cannot be read"):
        _batch([broken], SPEC)


# --- the verdict, from numbers written by hand ----------------------------------


def figures(**changes):
    accuracy = {"accuracy": 0.9, "interval_95": [0.8, 0.95], "correct": 90}
    return {
        "agreement": 1.0,
        "mean_difference": 0.0,
        "largest_difference": 0.0,
        "largest_sum_error": 0.0,
        "input_difference": 0.0,
        "accuracy_keras": accuracy,
        "accuracy_served": accuracy,
        "accuracy_loss": 0.0,
        **changes,
    }


def failed(recipe: str, **changes) -> list[str]:
    checks = parity._checks(figures(**changes), parity.THRESHOLDS[recipe])
    return [check.name for check in checks if not check.passed]


def test_the_issues_limits_are_the_limits():
    assert failed("int8", agreement=0.98, mean_difference=0.02, accuracy_loss=0.01) == []
    assert failed("int8", agreement=0.9799) == ["same most probable label"]
    assert failed("int8", mean_difference=0.0201) == ["mean probability difference"]
    assert failed("int8", accuracy_loss=0.0101) == ["accuracy loss, not trained on"]
    assert failed("float32", largest_difference=0.001) == []
    assert failed("float32", largest_difference=0.0011) == ["largest probability difference"]
    assert failed("float32", agreement=0.9999) == ["same most probable label"]
    assert failed("int8", largest_sum_error=0.02) == []
    assert failed("int8", largest_sum_error=0.021) == ["probabilities' sum, error"]


@pytest.mark.parametrize(
    "key",
    [
        "agreement",
        "mean_difference",
        "largest_difference",
        "accuracy_loss",
        "input_difference",
        "largest_sum_error",
    ],
)
def test_what_is_not_a_number_fails(key):
    assert len(failed("int8", **{key: float("nan")})) == 1


def test_every_recipe_has_its_limits():
    from converter.recipes import RECIPES

    assert set(parity.THRESHOLDS) == set(RECIPES)


def test_figures_of_two_images_worked_out_by_hand(tmp_path):
    keras = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]], np.float32)
    served = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)
    split = Split(tuple(tmp_path / n for n in "abc"), np.array([0, 1, 2]), ("x", "y", "z"))

    found = parity._figures(keras, served, parity.ParityImages(split, 2, "three"), 0.0)

    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["largest_difference"] == pytest.approx(0.1, abs=1e-6)
    assert found["mean_difference"] == pytest.approx(0.4 / 9, abs=1e-6)
    assert found["accuracy_keras"]["correct"] == 2
    assert found["accuracy_served"]["correct"] == 1
    assert found["accuracy_loss"] == pytest.approx(0.5)


def test_fixed_images_are_validation_first_and_always_the_same(tmp_path):
    root = support.write_dataset(tmp_path)
    images = parity.fixed_images(root, support.LABELS)

    assert images.held_out == 9
    assert len(images.split) == 9 + 12  # 1,000 of train where there are so many
    assert all(path.parts[-3] == "validation" for path in images.split.paths[:9])
    assert parity.fixed_images(root, support.LABELS).split.paths == images.split.paths


# --- faults, against a real model -----------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A run, its float32 and int8 artifacts, and the Keras side of 21 pictures."""
    from converter.calibration import Ranges, choose_images
    from converter.recipes import RECIPES
    from converter.tflite import quantise, to_float32

    root = tmp_path_factory.mktemp("parity")
    dataset = support.write_dataset(root / "dataset")
    source = open_source(support.write_run(root / "run", support.colour_model()))
    float_model = to_float32(source)
    ranges = Ranges(float_model, choose_images(dataset, source.labels, source.spec, count=12))
    artifacts = {
        name: quantise(source, float_model, RECIPES[name], ranges) for name in ("float32", "int8")
    }
    images = parity.fixed_images(dataset, source.labels)
    probabilities = keras_probabilities(source, images.split.paths, cache=root / "cache")
    truth = parity.Truth(source.labels, source.spec, probabilities, reference_tensor)
    return {"artifacts": artifacts, "truth": truth, "images": images, "root": root}


def refailed(world, artifact: bytes, **seams) -> set[str]:
    report = parity.compare(artifact, world["truth"], world["images"], **seams)
    assert report.passed is (not any(not check.passed for check in report.checks))
    return {check.name for check in report.checks if not check.passed}


def described_otherwise(artifact: bytes, **changes) -> bytes:
    """The same flatbuffer with other metadata."""
    end = artifact.rindex(b"PK\x03\x04", 0, artifact.rindex(b"PK\x03\x04"))
    metadata = dataclasses.replace(read_metadata(artifact), **changes)
    return embed_metadata(artifact[:end], metadata)


def faulty_artifact(world, fault) -> bytes:
    """The model converted with a layer in front that it should not have."""
    from converter.recipes import RECIPES
    from converter.tflite import quantise, to_float32

    folder = world["root"] / fault.__name__
    source = open_source(support.write_run(folder, support.colour_model(before=fault)))
    return quantise(source, to_float32(source), RECIPES["float32"], None)


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_a_true_artifact_passes(world, recipe):
    report = parity.compare(world["artifacts"][recipe], world["truth"], world["images"])

    assert report.passed, report.table()
    assert report.figures["agreement"] == 1.0
    assert report.figures["accuracy_keras"]["accuracy"] == 1.0
    assert report.figures["input_difference"] < 1e-6
    assert json.loads(json.dumps(report.to_dict()))["recipe"] == recipe


@pytest.mark.training
def test_swapped_channels_in_the_graph_are_caught(world):
    def swapped(images):
        return images[..., ::-1]

    assert "same most probable label" in refailed(world, faulty_artifact(world, swapped))


@pytest.mark.training
def test_a_wrong_scale_in_the_graph_is_caught(world):
    def half_scale(images):
        return images * 0.5

    assert "largest probability difference" in refailed(world, faulty_artifact(world, half_scale))


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_swapped_channels_in_the_shared_path_are_caught(world, recipe):
    def bgr(image, spec):
        return np.ascontiguousarray(preprocess(image, spec)[..., ::-1])

    found = refailed(world, world["artifacts"][recipe], preprocess=bgr)
    assert {"input difference, worst image", "same most probable label"} <= found


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_a_wrong_scale_in_the_shared_path_is_caught(world, recipe):
    def unit_scale(image, spec):
        return preprocess(image, spec) / 2 + 0.5

    assert "input difference, worst image" in refailed(
        world, world["artifacts"][recipe], preprocess=unit_scale
    )


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_another_resize_filter_in_the_shared_path_is_caught(world, recipe):
    def bilinear(image, spec):
        return preprocess(image, dataclasses.replace(spec, resize_filter="bilinear"))

    assert "input difference, worst image" in refailed(
        world, world["artifacts"][recipe], preprocess=bilinear
    )


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_another_resize_filter_in_the_metadata_is_caught(world, recipe):
    spec = dataclasses.replace(world["truth"].spec, resize_filter="bilinear")
    artifact = described_otherwise(world["artifacts"][recipe], input=spec)

    assert {"input", "input difference, worst image"} <= refailed(world, artifact)


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_shifted_labels_are_caught_by_their_answers(world, recipe):
    shifted = support.LABELS[1:] + support.LABELS[:1]
    artifact = described_otherwise(world["artifacts"][recipe], labels=shifted)

    assert {"label order", "same most probable label"} <= refailed(world, artifact)


@pytest.mark.training
def test_other_label_names_are_refused_with_both_sides(world):
    artifact = described_otherwise(world["artifacts"]["int8"], labels=("blue", "green", "black"))
    report = parity.compare(artifact, world["truth"], world["images"])

    assert not report.passed
    assert "blu,gre,bla" in report.table()
    assert "blu,gre,red" in report.table()


@pytest.mark.training
def test_the_table_of_a_failure_names_the_worst_images_first(world):
    shifted = support.LABELS[1:] + support.LABELS[:1]
    artifact = described_otherwise(world["artifacts"]["int8"], labels=shifted)
    report = parity.compare(artifact, world["truth"], world["images"])

    differences = [image["difference"] for image in report.worst]
    assert differences == sorted(differences, reverse=True)
    assert len(differences) == parity.WORST_IMAGES
    assert report.worst[0]["image"] in report.table()


@pytest.mark.training
def test_keras_answers_are_kept_under_the_models_and_the_images_content(world, tmp_path):
    dataset = support.write_dataset(tmp_path / "dataset")
    source = open_source(support.write_run(tmp_path / "run", support.colour_model()))
    paths = load_split(dataset, "validation", source.labels).paths
    cache = tmp_path / "cache"

    first = keras_probabilities(source, paths, cache=cache)
    again = keras_probabilities(source, paths, cache=cache)
    assert len(list(cache.iterdir())) == 1
    np.testing.assert_array_equal(first, again)

    Image.new("RGB", (70, 90), "red").save(paths[0])
    changed = keras_probabilities(source, paths, cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert np.abs(changed[0] - first[0]).max() > 0.1
