"""`python -m converter MODEL.keras --recipe NAME`: convert, compare with Keras, write the file.

The file is written only after the parity gate passed. A gate that fails exits with 3 and leaves
the old file in place. There is no switch to skip the gate.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import numpy as np

from converter import parity
from converter.calibration import CalibrationRanges, choose_images
from converter.errors import ConversionError
from converter.recipes import RECIPES, find_recipe
from converter.reference import keras_predictions
from converter.sources.pooled_head import describe_map
from converter.sources.run_folder import open_source
from converter.sources.source import Source
from converter.tflite import quantise, to_float32
from lambda_function import SHIPPED_MODEL
from training.data.dataset import find_dataset, load_split
from training.evaluation.uncertain import add_uncertain_rule
from training.files import replacing
from training.options import add_options

GATE_FAILED = 3
MAP_HELP = (
    "add a second output that shows where the model sees each class. A model without global "
    "average pooling and one dense layer at its end gets none"
)
WORDS = {
    "name": "of the model; default: the run's",
    "title": "question that the model answers, such as 'Which screw is it?'",
    "subject": "noun for what an image shows, such as screw",
    "licence": "SPDX identifier of the weights; default: what the training was told",
}
UNCERTAIN_HELP = (
    "add a rule that marks images unlike those that the model knows. It is fitted on images that "
    "were not trained on, and marks at most 5 %% of them"
)


def main(arguments: list[str]) -> int:
    """Convert the model of a run folder."""
    options = _parse(arguments)
    recipe = find_recipe(options.recipe)
    require_tflite_name(options.output)
    source = rename(open_source(options.model), options)
    dataset = find_dataset(options.dataset, run=options.model.parent)
    calibration = choose_images(load_split(dataset, "train", source.labels), source.spec)
    images = (
        parity.folder_images(options.images, source.labels)
        if options.images
        else parity.fixed_images(dataset, source.labels)
    )
    if options.activation_map:
        source = describe_map(source)
    print(f"converting {options.model} to TFLite", flush=True)
    float_model = to_float32(source)
    print(f"applying {options.recipe}", flush=True)
    artifact = quantise(source, float_model, recipe, CalibrationRanges(float_model, calibration))
    if options.uncertain:
        held_out = images.split.subset(np.arange(images.held_out))
        artifact = add_uncertain_rule(artifact, held_out)
    probabilities, maps = keras_predictions(source, images.split.paths)
    reference = parity.ReferencePredictions(source.labels, source.spec, probabilities, maps=maps)
    report = parity.compare(artifact, reference, images)
    return finish(options.output, artifact, report)


def rename(source: Source, options: argparse.Namespace) -> Source:
    """Put the given words in the place of the training run's: name, title, subject, licence."""
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


def require_tflite_name(output: Path) -> None:
    """Check that a path can name an artifact.

    Raises:
        ConversionError: it is a folder, or does not end in ``.tflite``.
    """
    if output.suffix != ".tflite" or output.is_dir():
        raise ConversionError(f"--output must be a .tflite file. Received: {output}")


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
        "--output", type=Path, default=SHIPPED_MODEL, help="default: the shipped model"
    )
    add_options(parser, "dataset")
    parser.add_argument("--images", type=Path, help="folder of class folders for the gate instead")
    for word, meaning in WORDS.items():
        parser.add_argument(f"--{word}", help=meaning)
    return parser.parse_args(arguments)
