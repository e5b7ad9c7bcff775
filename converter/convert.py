"""`python -m converter MODEL.keras --recipe NAME`: convert, compare with Keras, write the file.

The file is written only after the parity gate passed. A gate that fails exits with 3 and leaves
the old file in place. There is no switch to skip the gate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path

from converter import parity
from converter.calibration import CalibrationRanges, choose_images
from converter.errors import ConversionError
from converter.recipes import RECIPES, find_recipe
from converter.reference import keras_predictions
from converter.sources.feature_distance import require_images, with_served_threshold
from converter.sources.pooled_head import (
    describe_map,
    has_pooled_features,
    with_feature_distance,
)
from converter.sources.run_folder import open_source
from converter.sources.source import Source
from converter.tflite import quantise, to_float32
from lambda_function import SHIPPED_MODEL
from training.data.dataset import find_dataset, load_split
from training.files import replacing
from training.options import add_options

GATE_FAILED = 3
MAP_HELP = (
    "add a second output that shows where the model sees each class. A model without global "
    "average pooling and one dense layer at its end gets none"
)
WORDS = {
    "name": "of the model; default: the run's",
    "version": "of the artifact, such as 1.0.1; default: the run's",
    "title": "question that the model answers, such as 'Which screw is it?'",
    "subject": "noun for what an image shows, such as screw",
    "licence": "SPDX identifier of the weights; default: what the training was told",
}
UNCERTAIN_HELP = (
    "add an output that tells images unlike those that the model knows, and a threshold. It marks "
    "at most 5 %% of the images that were not trained on. A model without global average pooling "
    "and one dense layer at its end gets none"
)


def main(arguments: list[str]) -> int:
    """Convert the model of a run folder."""
    options = _parse(arguments)
    recipe = find_recipe(options.recipe)
    output = options.output or options.model.with_suffix(".tflite")
    require_tflite_name(output)
    if options.uncertain and options.images:
        raise ConversionError(
            "--uncertain is fitted on images that were trained on, and --images replaces them. "
            "Leave out one of the two."
        )
    source = rename(open_source(options.model), options)
    dataset = find_dataset(options.dataset, model=options.model)
    calibration = choose_images(load_split(dataset, "train", source.labels), source.spec)
    images = (
        parity.folder_images(options.images, source.labels)
        if options.images
        else parity.fixed_images(dataset, source.labels)
    )
    if options.activation_map:
        source = describe_map(source)
    source, reference = predict_reference(source, images, uncertain=options.uncertain)
    print(f"converting {options.model} to TFLite", flush=True)
    float_model = to_float32(source)
    print(f"applying {options.recipe}", flush=True)
    artifact = quantise(source, float_model, recipe, CalibrationRanges(float_model, calibration))
    if source.distance:
        artifact = with_served_threshold(artifact, images.split.paths[: images.held_out])
    status = finish(output, artifact, parity.compare(artifact, reference, images))
    if status == 0 and not options.no_next:
        print(next_command(output))
    return status


def predict_reference(
    source: Source, images: parity.ParityImages, *, uncertain: bool, notes: tuple[str, ...] = ()
) -> tuple[Source, parity.ReferencePredictions]:
    """Run the Keras model on the gate's images.

    Args:
        source: the model and its description.
        images: of the gate.
        uncertain: whether the artifact is to measure a feature distance. It is fitted on those of
            the images that were trained on.
        notes: for the gate's report.

    Returns:
        The source, described with the distance if its head allows it, and the predictions.

    Raises:
        ConversionError: there are too few images to fit a distance.
    """
    train_labels = images.split.labels[images.held_out :]
    measured = uncertain and has_pooled_features(source)
    if measured:
        require_images(images.held_out, train_labels, len(source.labels))
    keras = keras_predictions(source, images.split.paths, pooled=measured)
    distances = None
    if keras.pooled is not None:
        source = with_feature_distance(source, keras.pooled, train_labels)
        distances = source.distance.measure(keras.pooled) if source.distance else None
    reference = parity.ReferencePredictions(
        source.labels, source.spec, keras.probabilities, notes, keras.maps, distances
    )
    return source, reference


def rename(source: Source, options: argparse.Namespace) -> Source:
    """Put the given words in the place of the training run's: name, version, title and so on."""
    words = {word: getattr(options, word) for word in WORDS if getattr(options, word)}
    return dataclasses.replace(source, metadata=dataclasses.replace(source.metadata, **words))


def finish(output: Path, artifact: bytes, report: parity.ParityReport) -> int:
    """Print the gate's verdict, write artifact and report if it passed, return the status."""
    print(report.table())
    if not report.passed:
        print(f"not written. {output} is unchanged", file=sys.stderr)
        return GATE_FAILED
    text = json.dumps(report.to_dict(), indent=2) + "\n"
    # Both are whole or not there. The artifact takes its place last.
    with replacing(output) as model, replacing(output.with_suffix(".parity.json")) as gate:
        model.write_bytes(artifact)
        gate.write_text(text)
    print(f"wrote {output}, {len(artifact):,} bytes, SHA-256 {report.artifact_sha256}")
    return 0


def next_command(output: Path) -> str:
    """Return the line that says how to serve an artifact."""
    return f"Next: make adopt MODEL={shlex.quote(str(output))}"


def require_tflite_name(output: Path) -> None:
    """Check that a path can name an artifact.

    Raises:
        ConversionError: it is a folder, the served model, or does not end in ``.tflite``.
    """
    if output.suffix != ".tflite" or output.is_dir():
        raise ConversionError(f"--output must be a .tflite file. Received: {output}")
    if output.resolve() == SHIPPED_MODEL:
        raise ConversionError(
            f"only make adopt replaces {output}, with all that belongs to it. Name another --output"
        )


def _parse(arguments: list[str]) -> argparse.Namespace:
    meanings = "\n\n".join(f"{r.name}\n    {r.meaning}" for r in RECIPES.values())
    parser = argparse.ArgumentParser(
        prog="python -m converter",
        description=__doc__,
        epilog=f"recipes:\n\n{meanings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="model.keras of a run folder")
    parser.add_argument("--recipe", required=True, help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--activation-map", action="store_true", help=MAP_HELP)
    parser.add_argument("--uncertain", action="store_true", help=UNCERTAIN_HELP)
    parser.add_argument(
        "--output", type=Path, help="default: the model's file, with .tflite at its end"
    )
    add_options(parser, "dataset", "no-next")
    parser.add_argument("--images", type=Path, help="folder of class folders for the gate instead")
    for word, meaning in WORDS.items():
        parser.add_argument(f"--{word}", help=meaning)
    return parser.parse_args(arguments)
