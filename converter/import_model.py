"""`python -m converter import FILE`: take in a Keras or TFLite model from elsewhere.

Reads .keras and .h5 files of Keras 2 and 3, and plain .tflite files. Finds out what the file
says, asks for the rest, and writes a self-describing artifact after the parity
gate. A model file is code: import only files whose origin you know.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import re
import shlex
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from converter import parity
from converter.convert import (
    MAP_HELP,
    UNCERTAIN_HELP,
    finish,
    next_command,
    predict_reference,
    require_tflite_name,
)
from converter.errors import SourceError
from converter.recipes import RECIPES, Recipe, find_recipe
from converter.reference import complete, output_in_words, read_tensor
from converter.sources.feature_distance import with_served_threshold
from converter.sources.keras_file import check_size, load_keras
from converter.sources.pooled_head import describe_map
from converter.sources.source import Source
from converter.sources.tflite_file import TfliteFile, open_tflite, starts_as_tflite
from lambda_function.metadata import (
    NORMALISATIONS,
    NOT_STATED,
    RESIZE_FILTERS,
    SECOND_LABEL_OUTPUTS,
    InputSpec,
    MetadataError,
    ModelMetadata,
    embed_metadata,
    read_metadata,
)
from training.data.dataset import Split, find_dataset, folder_to_split, is_split, load_split
from training.files import file_name, sha256_of

IMPORTED = Path("runs") / "imported"
GENERATED_IMAGES = 16
SUM_TOLERANCE = 0.02  # integer softmaxes give steps of 1/256
HELP = {
    "labels": "LABELS are the class names in the order of the outputs, as a,b,c or a text file "
    "with one name a line (for one sigmoid: first the class of 0, then the class of 1)",
    "size": "SIZE is N or HEIGHTxWIDTH in pixels",
    "normalisation": f"NORMALISATION is what training did to pixels, one of "
    f"{', '.join(NORMALISATIONS)} (-1..1 for xception and tf, BGR less ImageNet's mean for caffe, "
    "0..255 for a model that scales by itself, as EfficientNet does)",
    "resize": f"RESIZE is the filter that training resized with, one of "
    f"{', '.join(RESIZE_FILTERS)} (nearest for Keras's load_img and keras-image-helper)",
}
NOT_CHECKED = (
    "conversion was not checked: the TFLite file itself is the reference for decoding, resizing "
    "and scaling"
)
OF_THE_COURSE = {  # an example, in the order in which variables are asked for
    "labels": "a,b,c",
    "size": "299",
    "normalisation": "xception",
    "resize": "nearest",
}
ANY_SIZE = "of any size"
RECIPE = "float32"
OF_CONVERSION = ("recipe", "activation_map", "uncertain")  # options without effect on TFLite files
SMOKE_TEST = (
    f"no images were given: {GENERATED_IMAGES} generated ones are a smoke test, accuracy was not "
    "measured"
)


@dataclasses.dataclass(frozen=True)
class Findings:
    """What a model shows by itself.

    Attributes:
        size: (height, width) of the input. None where the model takes any.
        outputs: number of outputs.
        output: what they are, one of ``metadata.OUTPUTS``.
    """

    size: tuple[int | None, int | None]
    outputs: int
    output: str

    def __str__(self) -> str:
        values = f"{self.outputs} output{'s' if self.outputs > 1 else ''}"
        return f"found: input {self.size_in_words()}, {values}: {output_in_words(self.output)}"

    def size_in_words(self) -> str:
        """Return ``299x299``, or what it is where a side may have any length."""
        return "x".join(str(side or "any") for side in self.size) if any(self.size) else ANY_SIZE


def main(arguments: list[str]) -> int:
    """Import one model."""
    options = _parse(arguments)
    recipe = find_recipe(options.recipe or RECIPE)
    if options.output:
        require_tflite_name(options.output)
    if options.model.is_file():
        check_size(options.model)
    is_tflite = options.model.is_file() and starts_as_tflite(options.model)
    if is_tflite:
        _refuse_conversion(options)
    dataset = find_dataset(options.dataset) if options.dataset else None
    model: Any = open_tflite(options.model) if is_tflite else load_keras(options.model)
    findings = look_at(model)
    print(findings, flush=True)
    metadata = _describe(options, findings)
    output = options.output or _own_folder(metadata) / "model.tflite"
    with tempfile.TemporaryDirectory() as folder:
        images = _gate_images(dataset, metadata.labels, Path(folder))
        notes = [SMOKE_TEST] if not images.held_out else []
        notes += [NOT_CHECKED] if is_tflite else []
        gate = {"images": images.description, "notes": notes}
        metadata = dataclasses.replace(metadata, conversion={**metadata.conversion, "gate": gate})
        if is_tflite:
            artifact, probabilities = _take_tflite(model, metadata, images.split.paths)
            reference = parity.ReferencePredictions(
                metadata.labels, metadata.input, probabilities, tuple(notes)
            )
        else:
            source = Source(options.model, metadata, lambda: model)
            if options.activation_map:
                source = describe_map(source)
            train = None
            if dataset and is_split(dataset):
                train = load_split(dataset, "train", metadata.labels)
            source, reference = predict_reference(
                source, images, uncertain=options.uncertain, notes=tuple(notes)
            )
            artifact = _convert(source, recipe, train)
            if source.distance:
                artifact = with_served_threshold(artifact, images.split.paths[: images.held_out])
        report = parity.compare(artifact, reference, images)
        status = finish(output, artifact, report)
    if status == 0:
        if images.held_out:
            labels = images.split.labels[: images.held_out]
            print(accuracy_in_words(report.figures["accuracy_served"], labels))
        print(next_command(output))
    return status


def look_at(model: Any) -> Findings:
    """Find out a model's input size and outputs, with one forward pass.

    Args:
        model: of Keras, or a ``TfliteFile``.

    Raises:
        SourceError: it is no classifier of one RGB image.
    """
    inputs, outputs = ([tuple(t.shape) for t in ends] for ends in (model.inputs, model.outputs))
    if len(inputs) != 1 or len(inputs[0]) != 4 or inputs[0][3] != 3:
        raise SourceError(
            f"the model must take one RGB image, (N, height, width, 3). Received: {inputs}"
        )
    if len(outputs) != 1 or len(outputs[0]) != 2 or not outputs[0][1]:
        raise SourceError(
            f"the model must give one row of numbers, (N, classes). Received: {outputs}"
        )
    _, height, width, _ = inputs[0]
    # Growing inputs drive logits out of 0..1. A sigmoid or a softmax stays in.
    rng = np.random.default_rng(0)
    scales = np.array([0.5, 1, 2, 5, 10, 30, 100, 300], np.float32).reshape(-1, 1, 1, 1)
    batch = rng.uniform(-1, 1, (8, height or 128, width or 128, 3)).astype(np.float32) * scales
    values = np.asarray(model.predict_on_batch(batch), np.float64)
    return Findings((height, width), int(outputs[0][1]), kind_of_output(values))


def kind_of_output(values: NDArray[np.float64]) -> str:
    """Return which of ``metadata.OUTPUTS`` a model's values are.

    Args:
        values: (images, outputs), of images with growing contrast.

    Raises:
        SourceError: they are not numbers, or one sigmoid for each class.
    """
    if not np.isfinite(values).all():
        raise SourceError("the model's outputs are not all numbers: its weights are damaged")
    in_range = bool((values >= -1e-6).all() and (values <= 1 + 1e-6).all())
    if values.shape[1] == 1:
        return "probability_of_second" if in_range else "logit_of_second"
    if not in_range:
        return "logits"
    if np.abs(values.sum(axis=1) - 1).max() <= SUM_TOLERANCE:
        return "probabilities"
    raise SourceError(
        "the model's outputs are between 0 and 1 and do not sum to 1, as with one sigmoid for "
        "each class. Such a model finds several labels in an image. Only models that choose one "
        "label are served."
    )


def accuracy_in_words(served: dict[str, Any], labels: NDArray[np.int64]) -> str:
    """Return how many of the user's images are right, or a warning that chance explains it.

    Args:
        served: the gate's ``accuracy_served``.
        labels: int64, (images,), of the same images.
    """
    right, total = served["correct"], len(labels)
    largest = int(np.bincount(labels).max())
    if served["interval_95"][0] > largest / total:
        return f"{right} of {total} of your images are right"
    better = "not clearly" if right > largest else "no"
    return (
        f"warning: {right} of {total} images are right, {better} better than chance. Check the "
        "order of LABELS, then NORMALISATION and RESIZE, and import again"
    )


def read_labels(text: str) -> tuple[str, ...]:
    """Return class names from ``a,b,c`` or from a text file with one name a line.

    Raises:
        SourceError: the file cannot be read, or a name stands twice.
    """
    try:
        file = Path(text).expanduser()
        lines = file.read_text(encoding="utf-8-sig").splitlines()  # Windows writes a mark first
    except UnicodeDecodeError as error:
        raise SourceError(f"{text} must be text in UTF-8, one label a line: {error}") from error
    except OSError as error:  # no file, or more labels than a file's name may be long
        if "," not in text and (text.endswith(".txt") or "/" in text):
            raise SourceError(f"there is no file {text} that can be read") from error
        lines = text.split(",")
    named = (unicodedata.normalize("NFC", line.strip()) for line in lines)  # as of class folders
    names = tuple(name for name in named if name)
    for name, count in collections.Counter(names).items():
        if count > 1:
            raise SourceError(f"LABELS names {name} {'twice' if count == 2 else f'{count} times'}")
    return names


def read_size(text: str) -> tuple[int, int]:
    """Return (height, width) from ``N`` or ``HEIGHTxWIDTH``.

    Raises:
        SourceError: it is neither.
    """
    match = re.fullmatch(r"([1-9]\d{0,3})(?:x([1-9]\d{0,3}))?", text.strip())
    if not match:
        raise SourceError(f"{HELP['size']}. Received: {text!r}")
    return int(match[1]), int(match[2] or match[1])


def generated_images(folder: Path) -> parity.ParityImages:
    """Draw images of several shapes and formats. They have no labels."""
    rng = np.random.default_rng(0)
    paths = []
    for number in range(GENERATED_IMAGES):
        height, width = (int(n) for n in rng.integers(60, 700, 2))
        low, high = rng.integers(0, 256, (2, 3))
        ramp = np.linspace(low, high, width)[np.newaxis].repeat(height, axis=0)
        noise = rng.normal(0, 8 * (number % 4), ramp.shape)
        image = Image.fromarray(np.clip(ramp + noise, 0, 255).astype(np.uint8))
        box = (width // 4, height // 5, width // 2, height * 4 // 5)
        ImageDraw.Draw(image).ellipse(box, fill=tuple(int(n) for n in rng.integers(0, 256, 3)))
        path = folder / f"generated-{number:02}.{('png', 'jpg')[number % 2]}"
        exif = Image.Exif()
        exif[0x0112] = 1 + number % 8  # orientation
        image.save(path, exif=exif)
        paths.append(path)
    split = Split(tuple(paths), np.zeros(len(paths), np.int64), ("none",))
    return parity.ParityImages(split, 0, f"{len(paths)} generated images")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m converter import",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help=".keras, .h5 or .tflite file")
    parser.add_argument("--labels", default="", help=HELP["labels"])
    parser.add_argument("--size", default="", help=HELP["size"])
    parser.add_argument("--normalisation", default="", help=HELP["normalisation"])
    parser.add_argument("--resize", default="", help=HELP["resize"])
    parser.add_argument("--name", default="", help="of the model. Default: the file's")
    parser.add_argument("--title", default="", help="question that the model answers")
    parser.add_argument("--subject", default="", help="noun for what an image shows")
    parser.add_argument("--licence", default=NOT_STATED, help="SPDX identifier of the weights")
    parser.add_argument(
        "--dataset", type=Path, help="images for the gate: class folders, or splits of them"
    )
    parser.add_argument(
        "--recipe", help=f"one of {', '.join(RECIPES)}, for a Keras model; default: {RECIPE}"
    )
    parser.add_argument("--activation-map", action="store_true", help=MAP_HELP)
    parser.add_argument("--uncertain", action="store_true", help=UNCERTAIN_HELP)
    parser.add_argument("--output", type=Path, help="default: runs/imported/NAME/model.tflite")
    return parser.parse_args(arguments)


def _refuse_conversion(options: argparse.Namespace) -> None:
    """Raise SourceError if an option would convert what is a TFLite file already."""
    given = [f"--{name.replace('_', '-')}" for name in OF_CONVERSION if getattr(options, name)]
    if given:
        raise SourceError(
            f"{options.model} is a TFLite file, which is not converted, so {', '.join(given)} "
            f"would have no effect. Import the .keras or .h5 file that it was made of, or leave "
            f"out {', '.join(given)}."
        )


def _describe(options: argparse.Namespace, findings: Findings) -> ModelMetadata:
    """Return the metadata, or ask for all that is missing."""
    size: tuple[int | None, int | None] = read_size(options.size) if options.size else findings.size
    _require_variables(options, needs_size=not all(size))
    for side, found in zip(size, findings.size, strict=True):
        if found not in (None, side):
            raise SourceError(
                f"SIZE must be the model's {findings.size_in_words()}. Received: {options.size}"
            )
    labels = read_labels(options.labels)
    expected = 2 if findings.output in SECOND_LABEL_OUTPUTS else findings.outputs
    if len(labels) != expected:
        raise SourceError(
            f"LABELS must be {expected} names, for {findings.outputs} output"
            f"{'s' if findings.outputs > 1 else ''}. Received: {len(labels)}, {', '.join(labels)}"
        )
    words = {n: getattr(options, n) for n in ("title", "subject") if getattr(options, n)}
    digest = sha256_of(options.model)
    return ModelMetadata(
        name=options.name or options.model.stem,
        version="1",
        labels=labels,
        input=InputSpec(
            int(size[0] or 0), int(size[1] or 0), options.resize, options.normalisation
        ),
        recipe="imported",
        temperature=1.0,
        source_sha256=digest,
        dataset=NOT_STATED,  # DATASET holds images for the gate
        licence=options.licence,
        conversion={"imported_from": options.model.name, "file_sha256": digest},
        output=findings.output,
        **words,
    )


def _require_variables(options: argparse.Namespace, *, needs_size: bool) -> None:
    """Raise SourceError for a value that is not known, or for all variables that are missing."""
    for name, known in (("normalisation", NORMALISATIONS), ("resize", RESIZE_FILTERS)):
        value = getattr(options, name)
        if value and value not in known:
            raise SourceError(
                f"{name.upper()} must be one of {', '.join(known)}. Received: {value!r}"
            )
    needed = [name for name in OF_THE_COURSE if name != "size" or needs_size]
    if missing := [HELP[name] for name in needed if not getattr(options, name)]:
        words = [
            f"{name.upper()}={shlex.quote(getattr(options, name) or example)}"
            for name, example in OF_THE_COURSE.items()
            if name in needed or getattr(options, name)
        ]
        raise SourceError(
            "\n".join(
                [
                    "the model file does not say everything. Missing:",
                    *(f"  {line}" for line in missing),
                    "For a model of the course:",
                    f"  make import MODEL={shlex.quote(str(options.model))} {' '.join(words)}",
                ]
            )
        )


def _gate_images(
    dataset: Path | None, labels: tuple[str, ...], folder: Path
) -> parity.ParityImages:
    if dataset is None:
        return generated_images(folder)
    if is_split(dataset):
        return parity.fixed_images(dataset, labels)
    return parity.folder_images(folder_to_split(dataset), labels)


def _convert(source: Source, recipe: Recipe, train: Split | None) -> bytes:
    # Imported here: a TFLite file is taken in without TensorFlow.
    from converter.calibration import CalibrationRanges, choose_images
    from converter.tflite import quantise, to_float32

    if recipe.is_calibrated and train is None:
        raise SourceError(
            f"the recipe {recipe.name} needs images to calibrate with. Name a folder with train/ "
            "and validation/ as DATASET, or take the recipe float32, float16 or dynamic."
        )
    print(f"converting {source.path} to TFLite as {recipe.name}", flush=True)
    float_model = to_float32(source)
    ranges = CalibrationRanges(float_model, choose_images(train, source.spec)) if train else None
    return quantise(source, float_model, recipe, ranges)


def _take_tflite(
    model: TfliteFile, metadata: ModelMetadata, paths: Sequence[Path]
) -> tuple[bytes, NDArray[np.float32]]:
    """Return the artifact, and the file's own probabilities of the images."""
    artifact = embed_metadata(model.content, metadata)
    values = model.predict_on_batch(read_tensor(path, metadata.input) for path in paths)
    return artifact, complete(values, metadata.output)


def _own_folder(metadata: ModelMetadata) -> Path:
    """Return the folder of the model's name, unless it holds what was made of another file."""
    name = file_name(metadata.name, "model")
    folder = IMPORTED / name
    if name != metadata.name:
        print(f"{metadata.name!r} gets the folder {folder}: only letters, digits, '.', '_', '-'")
    try:
        held = read_metadata(folder / "model.tflite").conversion
    except FileNotFoundError:
        return folder
    except MetadataError:
        held = {}
    if held.get("file_sha256") != metadata.conversion["file_sha256"]:
        raise SourceError(
            f"{folder} holds the import of another or older "
            f"{metadata.conversion['imported_from']} (its content differs). Choose NAME=..., or "
            "remove the folder"
        )
    return folder
