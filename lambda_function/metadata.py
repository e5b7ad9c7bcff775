"""The metadata inside a ``.tflite``: only this module reads, writes and checks it.

The artifact follows TFLite's own metadata convention: a ZIP archive appended to the flatbuffer. The
interpreter ignores trailing bytes, and ``zipfile`` finds the archive from the end of the file. The
archive holds ``labels.txt`` (one label a line, in model order, for other tools) and
``metadata.json`` (everything, labels included).

Timestamps in the archive are fixed, so equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import re
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FORMAT_VERSION = 2
MAP_FORMAT_VERSION = 3  # of artifacts with an activation map or a feature distance
READABLE_VERSIONS = (1, 2, 3)
# Version 1 had no words. All its artifacts are of this project's clothing model.
_WORDS_OF_VERSION_1 = {"title": "Which garment is it?", "subject": "garment"}
METADATA_FILE = "metadata.json"
LABELS_FILE = "labels.txt"
RESIZE_FILTERS = ("nearest", "bilinear", "bicubic", "lanczos")
NORMALISATIONS = ("xception", "tf", "torch", "caffe", "0..1", "0..255")
SECOND_LABEL_OUTPUTS = ("probability_of_second", "logit_of_second")
OUTPUTS = ("probabilities", "logits", *SECOND_LABEL_OUTPUTS)
MAP_OUTPUT = "activation_map"  # names of the outputs beside the first
DISTANCE_OUTPUT = "feature_distance"
# A cell takes 8 bytes of a response. Lambda sends 6 MB, and 4 images may be explained at once.
MAX_MAP_CELLS = 100_000
MAP_COVERS = "the whole upright image, in equal cells, row by row from the top left"
DISTANCE_MEASURES = "squared Mahalanobis distance of the pooled features to the nearest class mean"
NOT_STATED = "not stated"  # the licence of a model whose owner names none
_TEXTS = (
    "name",
    "version",
    "recipe",
    "source_sha256",
    "dataset",
    "licence",
    "title",
    "subject",
)
_OBJECTS = ("metrics", "training", "conversion")
# A damaged archive raises one of these, also if it claims encryption or an unknown compression.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, OSError)
MAX_METADATA_BYTES = 1024**2  # 1 MiB: of the ZIP, and of each file in it. Ours have 10 kB
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a ZIP can hold


class MetadataError(ValueError):
    """The artifact's metadata is missing, broken or of an unknown version."""


@dataclasses.dataclass(frozen=True)
class InputSpec:
    """How an image becomes the model's input tensor.

    Attributes:
        height: of the input, in pixels.
        width: of the input, in pixels.
        resize_filter: one of ``RESIZE_FILTERS``. All but ``"nearest"`` are antialiased. The
            image is stretched to (height, width). Its aspect ratio is not kept.
        normalisation: how levels of 0..255 become the input, one of ``NORMALISATIONS``.
            ``"xception"`` and ``"tf"`` give -1..1. ``"torch"`` gives 0..1 less ImageNet's mean,
            divided by its standard deviation. ``"caffe"`` gives BGR less ImageNet's mean.
            ``"0..1"`` divides by 255 and ``"0..255"`` changes nothing.
    """

    height: int
    width: int
    resize_filter: str = "bicubic"
    normalisation: str = "xception"

    def __post_init__(self) -> None:
        _check_size("input", self)
        fits = self.resize_filter in RESIZE_FILTERS
        _check(fits, f"resize_filter must be one of {RESIZE_FILTERS}", self.resize_filter)
        fits = self.normalisation in NORMALISATIONS
        _check(fits, f"normalisation must be one of {NORMALISATIONS}", self.normalisation)


@dataclasses.dataclass(frozen=True)
class MapSpec:
    """The grid of the activation map, which shows where the model sees each class.

    The grid lies over the whole upright image. All cells have the same size, because the image is
    stretched to the input. So cell (row, column) of an image of H by W pixels covers the rows
    ``row * H / height`` to ``(row + 1) * H / height``, and the columns likewise.

    Attributes:
        height: number of rows, the first at the top.
        width: number of columns, the first at the left.
        covers: the rule above in words, for readers of the metadata.
    """

    height: int
    width: int
    covers: str = MAP_COVERS

    def __post_init__(self) -> None:
        _check_size("activation map", self)
        rule = f"the activation map may have up to {MAX_MAP_CELLS:,} cells"
        _check(self.height * self.width <= MAX_MAP_CELLS, rule, (self.height, self.width))
        rule = f"the activation map must cover {MAP_COVERS!r}"
        _check(self.covers == MAP_COVERS, rule, self.covers)


@dataclasses.dataclass(frozen=True)
class DistanceSpec:
    """How far an image's features may lie from those of images that the model knows.

    Attributes:
        farthest: the largest feature distance that is not marked as uncertain.
        images: number of images, not trained on, that ``farthest`` is measured on.
        share: of these images that are farther, and so would be marked.
        measures: what the distance is, in words, for readers of the metadata.
    """

    farthest: float
    images: int
    share: float
    measures: str = DISTANCE_MEASURES

    def __post_init__(self) -> None:
        for name in ("farthest", "share"):
            value = getattr(self, name)
            is_number = type(value) in (int, float) and 0 <= value < math.inf
            _check(is_number, f"feature distance: {name} must be a number from 0 on", value)
        _check(self.share <= 1, "feature distance: share is 1 at most", self.share)
        is_count = type(self.images) is int and self.images >= 1
        _check(is_count, "feature distance: images must be a positive integer", self.images)
        rule = f"the feature distance must measure {DISTANCE_MEASURES!r}"
        _check(self.measures == DISTANCE_MEASURES, rule, self.measures)


@dataclasses.dataclass(frozen=True)
class ModelMetadata:
    """The artifact's metadata.

    Attributes:
        name: of the model.
        version: of the release. Weights that are converted anew get a new one.
        labels: class names in the order of the output tensor.
        input: how an image becomes the input tensor.
        recipe: converter recipe that made the file, such as ``"int8"``.
        temperature: divides the logits before the softmax, inside the graph.
        source_sha256: SHA-256 of the weights that were converted. Up to 1.0.0 of the file.
        dataset: name of the training data.
        licence: SPDX identifier of the weights, or ``NOT_STATED``.
        metrics: measured figures with their sample sizes and intervals.
        training: configuration of the training run.
        conversion: versions of the tools, and the calibration images' number and seed.
        output: what the output tensor holds, one of ``OUTPUTS``. ``Classifier`` makes
            probabilities of it.
        title: the question that the model answers, such as ``"Which garment is it?"``.
        subject: noun for what an image shows, such as ``"garment"``.
        activation_map: the grid of the output ``activation_map``. None if the model has no such
            output, and then ``to_dict`` has no such field.
        feature_distance: what the output ``feature_distance`` says of images unlike those that
            the model knows. None if the model has no such output, as above.
        format_version: of this structure.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    input: InputSpec
    recipe: str
    temperature: float
    source_sha256: str
    dataset: str
    licence: str
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    conversion: dict[str, Any] = dataclasses.field(default_factory=dict)
    output: str = "probabilities"
    title: str = "What is in the image?"
    subject: str = "image"
    activation_map: MapSpec | None = None
    feature_distance: DistanceSpec | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            _check(isinstance(value, str), f"{name} must be text", value)
        for name in _OBJECTS:
            value = getattr(self, name)
            _check(isinstance(value, dict), f"{name} must be an object", value)
        for label in self.labels:
            rule = "single lines without control characters and without blanks around them"
            _check(is_label(label), f"labels must be {rule}", label)
        are_different = len(set(self.labels)) == len(self.labels) >= 2
        _check(are_different, "labels must be two or more different names", list(self.labels))
        is_number = type(self.temperature) in (int, float) and 0 < self.temperature < math.inf
        _check(is_number, "temperature must be a number above 0", self.temperature)
        _check(self.output in OUTPUTS, f"output must be one of {OUTPUTS}", self.output)
        fits = self.output not in SECOND_LABEL_OUTPUTS or len(self.labels) == 2
        _check(fits, f"output {self.output!r} needs two labels", list(self.labels))
        for name in (MAP_OUTPUT, DISTANCE_OUTPUT):
            fits = getattr(self, name) is None or self.format_version == MAP_FORMAT_VERSION
            _check(fits, f"{name} needs format version {MAP_FORMAT_VERSION}", self.format_version)
        try:
            json.dumps(self.to_dict(), allow_nan=False, ensure_ascii=False).encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise MetadataError(
                f"the metadata holds a value that JSON does not have, such as NaN: {error}"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types, nested."""
        fields = {**dataclasses.asdict(self), "labels": list(self.labels)}
        for name in (MAP_OUTPUT, DISTANCE_OUTPUT):
            if getattr(self, name) is None:
                del fields[name]  # artifacts of format version 2 stay as they were
        return fields

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> ModelMetadata:
        """Build from ``to_dict``'s form.

        Raises:
            MetadataError: unknown format version, missing or unknown field.
        """
        found = fields.get("format_version") if isinstance(fields, dict) else None
        if found not in READABLE_VERSIONS:
            raise MetadataError(
                f"this artifact's metadata has format version {found!r}. This code reads versions "
                f"{READABLE_VERSIONS}. Convert the model again, or use the matching release."
            )
        if found == 1:
            fields = _WORDS_OF_VERSION_1 | fields
        try:
            spec = InputSpec(**_object(fields, "input"))
            labels = fields["labels"]
            are_names = isinstance(labels, list) and all(isinstance(name, str) for name in labels)
            _check(are_names, "labels must be a list of names", labels)
            known = {**fields, "labels": tuple(labels), "input": spec}
            if MAP_OUTPUT in fields:
                known[MAP_OUTPUT] = MapSpec(**_object(fields, MAP_OUTPUT))
            if DISTANCE_OUTPUT in fields:
                known[DISTANCE_OUTPUT] = DistanceSpec(**_object(fields, DISTANCE_OUTPUT))
            return cls(**known)
        except (TypeError, KeyError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else error
            raise MetadataError(f"the artifact's metadata does not fit: {what}") from error


def is_label(text: str) -> bool:
    """Tell whether a text is one line, without blanks around it and without control characters."""
    return text.splitlines() == [text] and text == text.strip() and not _CONTROL.search(text)


def embed_metadata(model: bytes, metadata: ModelMetadata) -> bytes:
    """Append the metadata to a TFLite flatbuffer.

    Args:
        model: the flatbuffer, without metadata.
        metadata: to append.

    Returns:
        The self-describing artifact. Equal arguments give equal bytes.
    """
    buffer = io.BytesIO(model)
    text = json.dumps(metadata.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    with zipfile.ZipFile(buffer, "a") as archive:
        _add(archive, LABELS_FILE, _one_a_line(metadata.labels))
        _add(archive, METADATA_FILE, text)
    return buffer.getvalue()


def read_metadata(artifact: bytes | Path) -> ModelMetadata:
    """Read an artifact's metadata.

    Args:
        artifact: the ``.tflite`` file, or its bytes.

    Raises:
        MetadataError: there is none, or it cannot be used. The message says why.
        OSError: the file cannot be read.
    """
    with naming(artifact, MetadataError):
        return _read_metadata(artifact)


@contextlib.contextmanager
def naming(artifact: bytes | Path, kind: type[Exception]) -> Iterator[None]:
    """Put the path of an artifact, if it has one, in front of the message of an error."""
    try:
        yield
    except kind as error:
        if isinstance(artifact, bytes):
            raise
        raise kind(f"{artifact}: {error}") from error


def _read_metadata(artifact: bytes | Path) -> ModelMetadata:
    try:
        archive = zipfile.ZipFile(io.BytesIO(_end_of(artifact)))
    except (zipfile.BadZipFile, NotImplementedError, UnicodeDecodeError) as error:
        raise MetadataError(
            "the file holds no labels and no input size: it was not written by this project, or "
            "it is cut short. `make import MODEL=<file> LABELS=a,b,c NORMALISATION=... RESIZE=...` "
            "makes a file that can be served"
        ) from error
    try:
        with archive:
            fields = json.loads(_read_bounded(archive, METADATA_FILE))
            listed = _read_bounded(archive, LABELS_FILE).decode()
    except (*_ZIP_ERRORS, KeyError, ValueError, EOFError, RecursionError) as error:
        what = error.args[0] if isinstance(error, KeyError) else error
        raise MetadataError(f"the artifact's metadata cannot be read: {what}") from error
    metadata = ModelMetadata.from_dict(fields)
    if listed != _one_a_line(metadata.labels):
        raise MetadataError(
            f"the artifact's label lists differ: {METADATA_FILE} says {list(metadata.labels)}, "
            f"{LABELS_FILE} says {listed.splitlines()}"
        )
    return metadata


def _end_of(artifact: bytes | Path) -> bytes:
    """Return the end of an artifact, which holds the whole archive. Offsets may be negative."""
    if isinstance(artifact, bytes):
        return artifact[-MAX_METADATA_BYTES:]
    with artifact.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - MAX_METADATA_BYTES))
        return file.read()


def _read_bounded(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an archive's file.

    Raises:
        ValueError: it has more than ``MAX_METADATA_BYTES``, or is compressed in another way than
            deflate. Python inflates other ways without a bound.
    """
    if archive.getinfo(name).compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is neither stored nor deflated")
    with archive.open(name) as file:
        content = file.read(MAX_METADATA_BYTES + 1)
    if len(content) > MAX_METADATA_BYTES:
        raise ValueError(f"{name} has more than {MAX_METADATA_BYTES:,} bytes")
    return content


def _one_a_line(labels: tuple[str, ...]) -> str:
    return "".join(f"{label}\n" for label in labels)


def _object(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value: dict[str, Any] = fields[name]
    _check(isinstance(value, dict), f"{name} must be an object", value)
    return value


def _check_size(what: str, spec: InputSpec | MapSpec) -> None:
    for name in ("height", "width"):
        value = getattr(spec, name)
        is_count = type(value) is int and value >= 1
        _check(is_count, f"{what} {name} must be a positive integer", value)


def _check(holds: bool, rule: str, received: object) -> None:
    if not holds:
        raise MetadataError(f"{rule}. Received: {received!r}")


def _add(archive: zipfile.ZipFile, name: str, text: str) -> None:
    info = zipfile.ZipInfo(name, date_time=_ZIP_EPOCH)
    info.external_attr = 0o644 << 16
    archive.writestr(info, text.encode())
