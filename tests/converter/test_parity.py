"""The gate passes a right artifact, and each fault that it is there for makes it fail."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from converter import parity
from converter.recipes import RECIPES
from converter.reference import keras_predictions
from converter.sources.run_folder import open_source
from converter.tflite import quantise, to_float32
from lambda_function.images.decode import preprocess
from lambda_function.metadata import read_metadata
from tests.support import converter as support
from training.data.dataset import Split

# --- the verdict, from numbers written by hand ----------------------------------


def figures(**changes):
    accuracy = {"accuracy": 0.9, "interval_95": [0.8, 0.95], "correct": 90}
    return {
        "images": 1000,
        "agreement": 1.0,
        "mean_difference": 0.0,
        "largest_difference": 0.0,
        "largest_sum_error": 0.0,
        "input_difference": 0.0,
        "held_out_images": 1000,
        "accuracy_reference": accuracy,
        "accuracy_served": accuracy,
        "accuracy_loss": 0.0,
        "accuracy_loss_interval_95": [-0.01, 0.01],
        **changes,
    }


def failed(recipe: str, **changes) -> list[str]:
    checks = parity._checks(figures(**changes), parity.THRESHOLDS[recipe])
    return [check.name for check in checks if not check.passed]


LABEL, LOSS = "another most probable label", "accuracy loss, not trained on"
MEAN, LARGEST = "mean probability difference", "largest probability difference"


@pytest.mark.parametrize(
    ("recipe", "changes", "names"),
    [
        ("int8", {"agreement": 0.98, "mean_difference": 0.02, "accuracy_loss": 0.01}, []),
        ("int8", {"agreement": 0.979}, [LABEL]),
        ("int8", {"mean_difference": 0.0201}, [MEAN]),
        ("int8", {"accuracy_loss": 0.011}, [LOSS]),
        ("int8", {"largest_sum_error": 0.02}, []),
        ("int8", {"largest_sum_error": 0.021}, ["probabilities' sum, error"]),
        ("float32", {"largest_difference": 0.001}, []),
        ("float32", {"largest_difference": 0.0011}, [LARGEST]),
        ("float32", {"agreement": 0.999}, [LABEL]),
        # One image of 18 is more than one point. It says nothing about a share.
        ("int8", {"held_out_images": 18, "accuracy_loss": 1 / 18}, []),
        ("int8", {"held_out_images": 18, "accuracy_loss": 2 / 18}, [LOSS]),
        ("int8", {"images": 18, "agreement": 17 / 18}, []),
        ("int8", {"images": 18, "agreement": 16 / 18}, [LABEL]),
        ("float32", {"images": 18, "agreement": 17 / 18}, [LABEL]),
        # Images without labels have no accuracy.
        ("int8", {"held_out_images": 0, "accuracy_loss": 1.0}, []),
    ],
)
def test_the_limits_are_the_limits(recipe, changes, names):
    assert failed(recipe, **changes) == names


@pytest.mark.parametrize(
    "key",
    [
        *("agreement", "mean_difference", "largest_difference", "accuracy_loss"),
        *("input_difference", "largest_sum_error"),
    ],
)
def test_a_figure_that_is_not_a_number_fails(key):
    assert len(failed("int8", **{key: float("nan")})) == 1


def test_every_recipe_has_its_limits():
    assert set(parity.THRESHOLDS) == {*RECIPES, "imported"}


def test_figures_of_three_images_worked_out_by_hand(tmp_path):
    reference = np.array([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]], np.float32)
    served = np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]], np.float32)
    split = Split(tuple(tmp_path / n for n in "abc"), np.array([0, 1, 2]), ("x", "y", "z"))

    found = parity._figures(reference, served, parity.ParityImages(split, 2, "three"), 0.0)

    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["disagreeing_images"] == 1
    assert found["largest_difference"] == pytest.approx(0.1, abs=1e-6)
    assert found["mean_difference"] == pytest.approx(0.4 / 9, abs=1e-6)
    assert found["accuracy_reference"]["correct"] == 2
    assert found["accuracy_served"]["correct"] == 1
    assert found["accuracy_loss"] == pytest.approx(0.5)


def test_the_interval_of_a_loss_is_the_published_one():
    # 53 lost, 16 gained of 1,600 is close to Agresti's example of approval ratings: with half an
    # image added, (53.5 - 16.5) / 1602 = 0.02310 and 1.96 * sqrt(70 - 37**2 / 1602) / 1602.
    before = np.array([True] * 53 + [False] * 16 + [True] * 1531)
    after = np.array([False] * 53 + [True] * 16 + [True] * 1531)

    low, high = parity.paired_interval(before, after)

    assert (low, high) == (pytest.approx(0.01292, abs=1e-5), pytest.approx(0.03327, abs=1e-5))


def test_fixed_images_are_validation_first_and_always_the_same(tmp_path):
    root = support.write_dataset(tmp_path)
    images = parity.fixed_images(root, support.LABELS)

    assert images.held_out == 9
    assert len(images.split) == 9 + 12  # 1,000 of train where there are so many
    assert all(path.parts[-3] == "validation" for path in images.split.paths[:9])
    assert parity.fixed_images(root, support.LABELS).split.paths == images.split.paths


# --- faults, against a real model -----------------------------------------------


def build_gate(converted, dataset, cache):
    """A source's artifacts, and Keras's predictions of 21 images."""
    source = converted.source
    images = parity.fixed_images(dataset, source.labels)
    measured = source.distance is not None
    keras = keras_predictions(source, images.split.paths, pooled=measured, cache=cache)
    reference = parity.ReferencePredictions(
        source.labels,
        source.spec,
        keras.probabilities,
        maps=keras.maps,
        distances=source.distance.measure(keras.pooled) if measured else None,
    )
    return {"artifacts": converted.artifacts, "reference": reference, "images": images}


@pytest.fixture(scope="module")
def gate(plain, dataset, tmp_path_factory):
    return build_gate(plain, dataset, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def gate_of_maps(mapped, dataset, tmp_path_factory):
    """The same with an activation map and a feature distance."""
    return build_gate(mapped, dataset, tmp_path_factory.mktemp("cache"))


def failures(gate, artifact: bytes, **seams) -> set[str]:
    report = parity.compare(artifact, gate["reference"], gate["images"], **seams)
    return {check.name for check in report.checks if not check.passed}


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_a_right_artifact_passes(gate, recipe):
    report = parity.compare(gate["artifacts"][recipe], gate["reference"], gate["images"])

    assert report.passed, report.table()
    assert report.figures["agreement"] == 1.0
    assert report.figures["accuracy_reference"]["accuracy"] == 1.0
    assert report.figures["input_difference"] < 1e-6
    assert json.loads(json.dumps(report.to_dict()))["recipe"] == recipe


def swapped_channels(images):
    return images[..., ::-1]


def half_scale(images):
    return images * 0.5


@pytest.mark.training
@pytest.mark.parametrize(("fault", "name"), [(swapped_channels, LABEL), (half_scale, LARGEST)])
def test_a_fault_in_the_graph_is_caught(gate, tmp_path, fault, name):
    model = support.colour_model(before=fault)
    source = open_source(support.write_run(tmp_path, model))

    assert name in failures(gate, quantise(source, to_float32(source), RECIPES["float32"], None))


def bgr(image, spec):
    return np.ascontiguousarray(preprocess(image, spec)[..., ::-1])


def unit_scale(image, spec):
    return preprocess(image, spec) / 2 + 0.5


def bilinear(image, spec):
    return preprocess(image, dataclasses.replace(spec, resize_filter="bilinear"))


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
@pytest.mark.parametrize("fault", [bgr, unit_scale, bilinear])
def test_a_fault_in_serving_is_caught(gate, recipe, fault):
    names = failures(gate, gate["artifacts"][recipe], preprocess=fault)

    assert "input difference, worst image" in names
    assert fault is not bgr or LABEL in names


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8"])
def test_a_fault_in_the_metadata_is_caught(gate, recipe):
    artifact = gate["artifacts"][recipe]
    spec = dataclasses.replace(gate["reference"].spec, resize_filter="bilinear")
    other_filter = support.with_metadata(artifact, input=spec)
    shifted = support.with_metadata(artifact, labels=support.LABELS[1:] + support.LABELS[:1])

    assert {"input", "input difference, worst image"} <= failures(gate, other_filter)
    assert {"label order", LABEL} <= failures(gate, shifted)


@pytest.mark.training
def test_other_label_names_are_refused_with_both_sides(gate):
    artifact = support.with_metadata(gate["artifacts"]["int8"], labels=("blue", "green", "black"))
    report = parity.compare(artifact, gate["reference"], gate["images"])

    assert not report.passed
    assert "bla,blu,gre" in report.table()
    assert "blu,gre,red" in report.table()


@pytest.mark.training
def test_the_table_of_a_failure_names_the_worst_images_first(gate):
    shifted = support.LABELS[1:] + support.LABELS[:1]
    artifact = support.with_metadata(gate["artifacts"]["int8"], labels=shifted)
    report = parity.compare(artifact, gate["reference"], gate["images"])

    differences = [image["difference"] for image in report.worst]
    assert differences == sorted(differences, reverse=True)
    assert len(differences) == parity.WORST_IMAGES
    assert report.worst[0]["image"] in report.table()


# --- activation maps ------------------------------------------------------------

CORRELATION, LOGITS = "activation maps, mean correlation", "activation maps, logit error"


@pytest.mark.training
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_right_map_passes_and_the_worst_are_shown(gate_of_maps, recipe):
    report = parity.compare(
        gate_of_maps["artifacts"][recipe], gate_of_maps["reference"], gate_of_maps["images"]
    )

    assert report.passed, report.table()
    assert report.figures["map_correlation"] > 0.99
    assert {"activation map", CORRELATION, LOGITS} <= {check.name for check in report.checks}
    shown = [image["correlation"] for image in report.worst_maps]
    assert shown == sorted(shown)
    assert len(shown) == parity.WORST_IMAGES
    assert report.worst_maps[0]["image"] in report.table()
    assert json.loads(json.dumps(report.to_dict()))["worst_maps"] == list(report.worst_maps)


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["float32", "int8_float_head"])
def test_a_fault_in_the_maps_is_caught(gate_of_maps, recipe):
    right = gate_of_maps["reference"].maps
    bias = right.bias + np.array([0.06, 0, 0], np.float32)
    faults = {
        CORRELATION: dataclasses.replace(right, maps=right.maps[:, :, ::-1]),  # left is right
        LOGITS: dataclasses.replace(right, bias=bias),
        "activation map": dataclasses.replace(right, maps=right.maps.transpose(0, 2, 1, 3)),
    }
    for name, maps in faults.items():
        reference = dataclasses.replace(gate_of_maps["reference"], maps=maps)
        faulty = {**gate_of_maps, "reference": reference}
        assert failures(faulty, gate_of_maps["artifacts"][recipe]) == {name}


@pytest.mark.training
def test_an_output_that_should_be_there_or_should_not_is_caught(gate, gate_of_maps):
    both = {"activation map", "feature distance"}
    assert failures(gate_of_maps, gate["artifacts"]["float32"]) == both
    assert failures(gate, gate_of_maps["artifacts"]["float32"]) == both


@pytest.mark.parametrize(
    ("recipe", "found", "names"),
    [
        ("float32", {"map_correlation": 0.95, "map_error": 0.001}, []),
        ("int8_float_head", {"map_correlation": 0.95, "map_error": 0.05}, []),
        ("float32", {"map_correlation": 0.949, "map_error": 0.0}, [CORRELATION]),
        ("float32", {"map_correlation": 1.0, "map_error": 0.0011}, [LOGITS]),
        ("int8", {"map_correlation": 1.0, "map_error": 0.051}, [LOGITS]),
        ("int8", {"map_correlation": float("nan"), "map_error": 0.0}, [CORRELATION]),
        ("int8", {"map_correlation": 1.0, "map_error": float("nan")}, [LOGITS]),
    ],
)
def test_the_limits_of_the_maps_are_the_limits(recipe, found, names):
    checks = parity._map_checks(found, parity.THRESHOLDS[recipe])

    assert [check.name for check in checks if not check.passed] == names


# --- feature distances ----------------------------------------------------------

DISTANCE, UNCERTAIN = "feature distance, mean error", "uncertain, not trained on"


@pytest.mark.training
def test_a_fault_in_the_distances_is_caught(gate_of_maps):
    right = gate_of_maps["reference"]
    faulty = dataclasses.replace(right, distances=right.distances * 1.3)
    artifact = gate_of_maps["artifacts"]["float32"]

    assert failures({**gate_of_maps, "reference": faulty}, artifact) == {DISTANCE}


@pytest.mark.training
def test_a_threshold_that_marks_too_many_is_caught(gate_of_maps):
    artifact = gate_of_maps["artifacts"]["float32"]
    spec = dataclasses.replace(read_metadata(artifact).feature_distance, farthest=0.0)

    changed = support.with_metadata(artifact, feature_distance=spec)

    assert failures(gate_of_maps, changed) == {UNCERTAIN}


@pytest.mark.parametrize(("name", "passed", "said"), [(DISTANCE, False, 1), (DISTANCE, True, 0)])
def test_a_distance_that_fails_says_what_to_leave_out(name, passed, said):
    check = parity.Check(name, "2.8", "<= 0.01", passed)

    table = parity.ParityReport("float32", "", "", {}, (check,), (), (), ()).table()

    assert table.count("leave out --uncertain") == said


def test_figures_of_the_distances_worked_out_by_hand():
    expected, served = np.array([1.0, 2, 4, 10]), np.array([1.1, 2, 3, 10])
    # Of the two held-out images one is farther than 1.5. The errors are 0.1, 0, 0.25 and 0.
    figures = parity.distance_figures(expected, served, 2, 1.5)

    assert figures == {"distance_error": pytest.approx(0.0875), "uncertain": 0.5}


@pytest.mark.parametrize(
    ("recipe", "found", "names"),
    [
        ("float32", {"distance_error": 0.01, "uncertain": 0.05}, []),
        ("int8", {"distance_error": 0.2, "uncertain": 0.05}, []),
        ("float32", {"distance_error": 0.011, "uncertain": 0.0}, [DISTANCE]),
        ("int8", {"distance_error": 0.21, "uncertain": 0.0}, [DISTANCE]),
        ("int8", {"distance_error": 0.0, "uncertain": 0.051}, [UNCERTAIN]),
        (
            "int8",
            {"distance_error": float("nan"), "uncertain": float("nan")},
            [DISTANCE, UNCERTAIN],
        ),
    ],
)
def test_the_limits_of_the_distances_are_the_limits(recipe, found, names):
    checks = parity._distance_checks(found, parity.THRESHOLDS[recipe])

    assert [check.name for check in checks if not check.passed] == names
