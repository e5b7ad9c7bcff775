"""A run folder describes its model, or is refused with the file and the field."""

from __future__ import annotations

import json

import pytest

from converter.errors import SourceError
from converter.sources.run_folder import open_source
from tests.support.converter import LABELS, colour_model, write_run
from tests.support.paths import TESTS

BAD_INPUT = {"height": 8, "width": 8, "resize_filter": "area", "normalisation": "xception"}


@pytest.mark.parametrize("missing", ["config.json", "report.json", "model.keras"])
def test_a_missing_file_is_named(tmp_path, missing):
    path = write_run(tmp_path)
    path.with_name(missing).unlink()

    with pytest.raises(SourceError, match=missing.replace(".", r"\.")):
        open_source(path)


def test_a_tflite_file_is_not_converted_again(tmp_path):
    path = write_run(tmp_path)
    path.write_bytes((TESTS / "data" / "tiny.tflite").read_bytes())

    with pytest.raises(SourceError, match=r"model\.keras is a TFLite file.*converter import`"):
        open_source(path)


@pytest.mark.parametrize("field", ["name", "version", "labels", "input", "dataset", "licence"])
def test_a_missing_field_is_named_before_anything_is_converted(tmp_path, field):
    path = write_run(tmp_path)
    config = json.loads(path.with_name("config.json").read_text())
    del config[field]
    path.with_name("config.json").write_text(json.dumps(config))

    with pytest.raises(SourceError, match=f"'{field}' is missing"):
        open_source(path)


def test_an_unknown_resize_filter_is_named(tmp_path):
    with pytest.raises(SourceError, match="resize_filter must be one of"):
        open_source(write_run(tmp_path, input=BAD_INPUT))


def test_title_and_subject_reach_the_metadata(tmp_path):
    path = write_run(tmp_path, title="Which screw is it?", subject="screw")

    metadata = open_source(path).metadata

    assert (metadata.title, metadata.subject) == ("Which screw is it?", "screw")
    assert metadata.training == {"seed": 7}


@pytest.mark.training
def test_shapes_that_differ_from_the_description_are_shown(tmp_path):
    four = write_run(tmp_path / "four", colour_model(outputs=4))
    with pytest.raises(SourceError, match=r"description says \(N, 3\), the model has \(N, 4\)"):
        open_source(four).load()

    spec = {"height": 20, "width": 30, "resize_filter": "bicubic", "normalisation": "xception"}
    small = write_run(tmp_path / "small", colour_model(), input=spec)
    with pytest.raises(SourceError, match=r"says \(N, 20, 30, 3\), the model has \(N, 36, 48, 3\)"):
        open_source(small).load()
    assert open_source(four).labels == LABELS


@pytest.mark.training
def test_a_file_that_is_no_keras_model_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(SourceError, match=r"model\.keras is not a Keras model: ") as caught:
        open_source(write_run(tmp_path)).load()
    assert "\n" not in str(caught.value)
