"""What an artifact says about itself survives the way into the file and back, or is refused."""

from __future__ import annotations

import dataclasses
import io
import json
import tracemalloc
import zipfile

import pytest

from lambda_function.metadata import (
    DistanceSpec,
    InputSpec,
    MapSpec,
    MetadataError,
    ModelMetadata,
    embed_metadata,
    read_metadata,
)
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"
MODEL = b"\x1c\0\0\0TFL3" + bytes(1000)
METADATA = ModelMetadata(
    name="clothing",
    version="1.2.3",
    labels=("dress", "chapeau à plumes", "t-shirt"),
    input=InputSpec(height=36, width=48, resize_filter="lanczos"),
    recipe="int8",
    temperature=1.25,
    source_sha256="ab" * 32,
    dataset="clothing-dataset-small",
    licence="CC0-1.0",
    metrics={"validation": {"accuracy": 0.93, "images": 341, "interval_95": [0.9, 0.95]}},
    training={"seed": 3},
    conversion={"calibration": {"images": 128, "seed": 0}},
)


def with_text(
    text: str, name: str = "metadata.json", labels: tuple[str, ...] = METADATA.labels
) -> bytes:
    """An artifact whose metadata file holds this text."""
    buffer = io.BytesIO(MODEL)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in labels))
        archive.writestr(name, text)
    return buffer.getvalue()


def with_fields(**changes) -> bytes:
    fields = {**METADATA.to_dict(), **changes}
    return with_text(json.dumps({k: v for k, v in fields.items() if v is not None}))


def test_what_was_embedded_is_read_back_from_bytes_and_from_a_file(tmp_path):
    artifact = embed_metadata(MODEL, METADATA)
    path = tmp_path / "model.tflite"
    path.write_bytes(artifact)

    assert read_metadata(artifact) == METADATA
    assert read_metadata(path) == METADATA
    assert artifact.startswith(MODEL)


def test_format_version_one_without_title_and_subject_stays_readable():
    fields = METADATA.to_dict() | {"format_version": 1}
    for name in ("title", "subject"):
        del fields[name]

    metadata = read_metadata(with_text(json.dumps(fields)))

    assert metadata.labels == METADATA.labels
    assert (metadata.title, metadata.subject) == ("Which garment is it?", "garment")


def test_an_activation_map_is_described_and_read_again():
    grid = MapSpec(height=5, width=7)
    described = dataclasses.replace(METADATA, activation_map=grid, format_version=3)

    assert read_metadata(embed_metadata(MODEL, described)) == described
    assert described.to_dict()["activation_map"] == {
        "height": 5,
        "width": 7,
        "covers": "the whole upright image, in equal cells, row by row from the top left",
    }


DISTANCE = DistanceSpec(farthest=6.5, images=341, share=0.05)


def test_a_feature_distance_is_described_and_read_again():
    described = dataclasses.replace(METADATA, feature_distance=DISTANCE, format_version=3)

    assert read_metadata(embed_metadata(MODEL, described)) == described
    assert described.to_dict()["feature_distance"] == {
        "farthest": 6.5,
        "images": 341,
        "share": 0.05,
        "measures": "squared Mahalanobis distance of the pooled features to the nearest class mean",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"farthest": "6"}, "farthest must be a number from 0 on. Received: '6'"),
        ({"farthest": None}, "farthest must be a number from 0 on. Received: None"),
        ({"farthest": float("nan")}, "farthest must be a number from 0 on. Received: nan"),
        ({"farthest": -1.0}, "farthest must be a number from 0 on. Received: -1.0"),
        ({"share": True}, "share must be a number from 0 on. Received: True"),
        ({"share": 1.1}, r"share is 1 at most. Received: 1\.1"),
        ({"images": 0}, "images must be a positive integer. Received: 0"),
        (
            {"measures": "the weather"},
            "must measure 'squared .* Received: 'the weather'",
        ),
    ],
)
def test_a_feature_distance_that_cannot_be_is_refused(change, message):
    with pytest.raises(MetadataError, match=message):
        dataclasses.replace(DISTANCE, **change)


def test_a_feature_distance_needs_format_version_three():
    with pytest.raises(MetadataError, match=r"distance needs format version 3\. Received: 2"):
        dataclasses.replace(METADATA, feature_distance=DISTANCE)


def test_a_model_without_a_map_is_described_as_before():
    assert not {"activation_map", "feature_distance"} & METADATA.to_dict().keys()
    assert METADATA.to_dict()["format_version"] == 2


def test_equal_arguments_give_equal_bytes():
    assert embed_metadata(MODEL, METADATA) == embed_metadata(MODEL, METADATA)
    other = dataclasses.replace(METADATA, temperature=1.3)
    assert embed_metadata(MODEL, other) != embed_metadata(MODEL, METADATA)


def test_other_tools_find_the_labels_one_a_line_as_tflites_convention_has_it():
    with zipfile.ZipFile(io.BytesIO(embed_metadata(MODEL, METADATA))) as archive:
        assert archive.namelist() == ["labels.txt", "metadata.json"]
        assert archive.read("labels.txt").decode() == "dress\nchapeau à plumes\nt-shirt\n"
        assert all(entry.date_time == (1980, 1, 1, 0, 0, 0) for entry in archive.infolist())


@pytest.mark.parametrize("version", [0, 4, "1", None, 99])
def test_an_unknown_format_version_is_refused_with_both_sides(version):
    with pytest.raises(
        MetadataError, match=rf"version {version!r}\. This code reads versions \(1, 2, 3\)"
    ):
        read_metadata(with_fields(format_version=version))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["dress"]}, "two or more different names"),
        ({"labels": ["dress", "dress"]}, "two or more different names"),
        ({"labels": "dress"}, "list of names"),
        ({"labels": ["dress", 7]}, "list of names"),
        ({"output": "scores"}, r"output must be one of \('probabilities', .* Received: 'scores'"),
        ({"output": "logit_of_second"}, "output 'logit_of_second' needs two labels"),
        ({"title": 7}, "title must be text. Received: 7"),
        ({"labels": ["dress", "two\nlines"]}, "must be single lines"),
        ({"labels": ["dress", "two\u2028lines"]}, "single lines"),
        ({"labels": ["dress", "end\u2028"]}, "single lines"),
        ({"labels": ["dress", "bell\x07"]}, "without control"),
        ({"labels": ["dress", " hat"]}, "without blanks around them. Received: ' hat'"),
        ({"labels": ["dress", ""]}, "single lines"),
        ({"labels": ["dress", "\ud800"]}, "JSON does not have"),
        ({"metrics": {"accuracy": float("nan")}}, "JSON does not have, such as NaN"),
        ({"training": {"loss": [1.0, {"a": float("inf")}]}}, "JSON does not have, such as NaN"),
        ({"temperature": None}, "temperature"),
        ({"temperature": "warm"}, "temperature must be a number above 0. Received: 'warm'"),
        ({"temperature": 0}, "temperature must be a number above 0. Received: 0"),
        ({"temperature": float("nan")}, "temperature must be a number above 0. Received: nan"),
        ({"colour": "red"}, "colour"),
        ({"input": [224, 224]}, r"input must be an object. Received: \[224, 224\]"),
        ({"input": {"height": 0, "width": 8}}, "input height must be a positive integer"),
        ({"input": {"height": 8, "width": True}}, "input width must be a positive integer"),
        ({"activation_map": {"height": 7, "width": 7}}, "map needs format version 3. Received: 2"),
        ({"activation_map": {"height": 7}}, "does not fit"),
        ({"activation_map": [7, 7]}, r"activation_map must be an object. Received: \[7, 7\]"),
        (
            {"activation_map": {"height": 400, "width": 300}},
            "up to 100,000 cells. Received: .400, 300.",
        ),
        ({"feature_distance": "far"}, "feature_distance must be an object. Received: 'far'"),
        ({"activation_map": {"height": 0, "width": 7}}, "map height must be a positive integer"),
        (
            {"activation_map": {"height": 7, "width": 7, "covers": "the middle"}},
            "must cover 'the whole upright image, .* Received: 'the middle'",
        ),
        (
            {"input": {"height": 8, "width": 8, "resize_filter": "area"}},
            r"resize_filter must be one of .* Received: 'area'",
        ),
        (
            {"input": {"height": 8, "width": 8, "normalisation": "imagenet"}},
            r"normalisation must be one of .* Received: 'imagenet'",
        ),
        ({"name": 7}, "name must be text. Received: 7"),
        ({"metrics": [1]}, "metrics must be an object. Received: "),
    ],
)
def test_a_field_that_does_not_fit_is_named(changes, message):
    with pytest.raises(MetadataError, match=message):
        read_metadata(with_fields(**changes))


@pytest.mark.parametrize(
    ("artifact", "message"),
    [
        (b"", "holds no labels"),
        (MODEL, "holds no labels"),
        (with_text("{}", name="other.json"), "metadata cannot be read: .*metadata.json"),
        (with_text("{"), "metadata cannot be read"),
        (with_text("[]"), "has format version None"),
        (with_text("\ud800".encode("utf-8", "surrogatepass").decode("latin-1")), "cannot be read"),
    ],
)
def test_what_holds_no_metadata_is_refused_with_one_sentence(artifact, message):
    with pytest.raises(MetadataError, match=message) as caught:
        read_metadata(artifact)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels", [("dress", "t-shirt", "chapeau à plumes"), ("dress", "t-shirt"), ()]
)
def test_two_label_lists_that_differ_are_refused_with_both_sides(labels):
    artifact = with_text(json.dumps(METADATA.to_dict()), labels=labels)

    with pytest.raises(MetadataError, match="label lists differ") as caught:
        read_metadata(artifact)
    assert str(list(METADATA.labels)) in str(caught.value)
    assert str(list(labels)) in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97, 0.99, 0.999])
def test_a_truncated_artifact_is_refused(tmp_path, share):
    content = TINY.read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(content[: int(len(content) * share)])

    with pytest.raises(MetadataError):
        read_metadata(path)
    with pytest.raises(MetadataError):
        read_metadata(path.read_bytes())


def test_a_byte_changed_inside_the_metadata_is_noticed():
    artifact = bytearray(embed_metadata(MODEL, METADATA))
    position = artifact.rindex(b'"temperature": 1.25')
    artifact[position + len('"temperature": ')] = ord("7")

    with pytest.raises(MetadataError, match="cannot be read"):  # the ZIP holds a CRC-32
        read_metadata(bytes(artifact))


def test_a_file_name_that_is_not_utf_8_is_refused():
    buffer = io.BytesIO(embed_metadata(MODEL, METADATA))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("é", "")

    with pytest.raises(MetadataError, match="holds no labels"):
        read_metadata(buffer.getvalue().replace("é".encode(), b"\xff\xff"))


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "model.tflite")


def zipped(content: bytes, compression: int, *, entries: int = 0) -> bytes:
    """An artifact whose metadata file holds this content, compressed."""
    buffer = io.BytesIO(MODEL)
    with zipfile.ZipFile(buffer, "a", compression) as archive:
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in METADATA.labels))
        archive.writestr("metadata.json", content)
        for number in range(entries):
            archive.writestr(f"{number}.txt", "")
    return buffer.getvalue()


@pytest.mark.parametrize("as_file", [True, False])
def test_metadata_is_inflated_to_a_bound(tmp_path, as_file):
    artifact = zipped(b" " * 200_000_000, zipfile.ZIP_DEFLATED)
    assert len(artifact) < 200_000
    path = tmp_path / "model.tflite"
    path.write_bytes(artifact)
    tracemalloc.start()
    with pytest.raises(MetadataError, match=r"metadata\.json has more than 1,048,576 bytes"):
        read_metadata(path if as_file else artifact)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 8_000_000


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_that_python_inflates_without_a_bound_are_refused(compression):
    with pytest.raises(MetadataError, match="neither stored nor deflated"):
        read_metadata(zipped(b"{}", compression))


def test_a_deflated_archive_is_read_as_tflite_s_own_tools_write_it():
    artifact = zipped(json.dumps(METADATA.to_dict()).encode(), zipfile.ZIP_DEFLATED)

    assert read_metadata(artifact) == METADATA


def test_an_archive_of_many_entries_is_not_listed():
    artifact = zipped(b"{}", zipfile.ZIP_STORED, entries=30_000)

    with pytest.raises(MetadataError, match="holds no labels"):
        read_metadata(artifact)
