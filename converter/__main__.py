"""`python -m converter MODEL.keras --recipe NAME`: convert, hold against Keras, publish a file.

    python -m converter runs/mine/model.keras --recipe int8_float_head
    python -m converter inspect lambda_function/model.tflite
    python -m converter publish lambda_function/model.tflite --to s3://bucket/prefix

The file is written only after the parity gate passed; a gate that fails exits with 3 and leaves
what was there. There is no switch to skip it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before Keras: no start-up chatter

from converter.errors import ConversionError, ConverterError
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import ArtifactError
from lambda_function.metadata import MetadataError
from training.data.dataset import find_dataset
from training.errors import DatasetError
from training.files import replacing

GATE_FAILED = 3


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    commands = {"inspect": _inspect, "publish": _publish}
    command = commands.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else _convert(words)
    except (ConverterError, DatasetError, MetadataError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; nothing was published", file=sys.stderr)
        return 130


def _convert(words: list[str]) -> int:
    from converter.calibration import DEFAULT_IMAGES, DEFAULT_SEED
    from converter.recipes import RECIPES, find_recipe

    meanings = "\n\n".join(f"{r.name}\n    {r.meaning}" for r in RECIPES.values())
    parser = argparse.ArgumentParser(
        prog="python -m converter",
        description=__doc__,
        epilog=f"recipes:\n\n{meanings}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="model.keras of a run folder")
    parser.add_argument("--recipe", required=True, help=f"one of {', '.join(RECIPES)}")
    parser.add_argument(
        "--output", type=Path, default=SHIPPED_MODEL, help="default: the shipped model"
    )
    parser.add_argument("--dataset", type=Path, help="else $CLOTHING_DATASET, data/, ../shared/")
    parser.add_argument("--images", type=Path, help="folder of class folders for the gate instead")
    parser.add_argument("--calibration-images", type=_at_least(1), default=DEFAULT_IMAGES)
    parser.add_argument("--seed", type=_at_least(0), default=DEFAULT_SEED, help="of their choice")
    parsed = parser.parse_args(words)
    find_recipe(parsed.recipe)
    if parsed.output.suffix != ".tflite" or parsed.output.is_dir():
        raise ConversionError(f"--output must be a .tflite file. Received: {parsed.output}")
    return _convert_and_gate(parsed)


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(
                f"must be a whole number from {least} on. Received: {text}"
            )
        return int(text)

    return number


def _convert_and_gate(parsed: argparse.Namespace) -> int:
    from converter import parity, reference
    from converter.calibration import Ranges, choose_images
    from converter.recipes import find_recipe
    from converter.source import open_source
    from converter.tflite import quantise, to_float32

    source = open_source(parsed.model)
    dataset = find_dataset(parsed.dataset)
    calibration = choose_images(
        dataset, source.labels, source.spec, count=parsed.calibration_images, seed=parsed.seed
    )
    images = (
        parity.folder_images(parsed.images, source.labels)
        if parsed.images
        else parity.fixed_images(dataset, source.labels)
    )
    print(f"converting {parsed.model} to TFLite", flush=True)
    float_model = to_float32(source)
    print(f"applying {parsed.recipe}", flush=True)
    ranges = Ranges(float_model, calibration)
    artifact = quantise(source, float_model, find_recipe(parsed.recipe), ranges)
    truth = parity.Truth(
        source.labels,
        source.spec,
        reference.keras_probabilities(source, images.split.paths),
        reference.reference_tensor,
    )
    report = parity.compare(artifact, truth, images)
    print(report.table())
    if not report.passed:
        print(f"not published; {parsed.output} is as it was", file=sys.stderr)
        return GATE_FAILED
    _write(parsed.output, artifact, report.to_dict())
    print(f"wrote {parsed.output}, {len(artifact):,} bytes, SHA-256 {report.artifact_sha256}")
    return 0


def _write(output: Path, artifact: bytes, report: dict[str, object]) -> None:
    """Write both, whole or not at all; the artifact takes its place last."""
    text = json.dumps(report, indent=2) + "\n"
    with replacing(output) as model, replacing(output.with_suffix(".parity.json")) as gate:
        model.write_bytes(artifact)
        gate.write_text(text)


def _inspect(words: list[str]) -> int:
    from converter.inspect import describe

    parser = argparse.ArgumentParser(prog="python -m converter inspect")
    parser.add_argument("file", type=Path)
    print(describe(parser.parse_args(words).file))
    return 0


def _publish(words: list[str]) -> int:
    from converter.publish import publish

    parser = argparse.ArgumentParser(prog="python -m converter publish")
    parser.add_argument("file", type=Path, nargs="?", default=SHIPPED_MODEL)
    parser.add_argument("--to", required=True, help="s3://bucket/prefix")
    parsed = parser.parse_args(words)
    published = publish(parsed.file, parsed.to)
    print(f"MODEL_URI={published.model_uri}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
