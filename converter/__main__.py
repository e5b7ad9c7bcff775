"""Convert a trained model, take in another's, and look after the file that is served.

    python -m converter runs/mine/model.keras --recipe int8_float_head
    python -m converter import course.h5 --labels cat,dog --normalisation xception --resize nearest
    python -m converter adopt runs/imported/course/model.tflite --example cat.jpg
    python -m converter inspect lambda_function/model.tflite
    python -m converter publish lambda_function/model.tflite --to s3://bucket/prefix

Each command has its own --help. A command imports only what it needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before Keras: no start-up chatter

from converter.errors import ConverterError
from lambda_function.classifier import ArtifactError
from lambda_function.metadata import MetadataError
from training.errors import DatasetError

COMMANDS = {
    "import": "converter.import_model",
    "adopt": "converter.adopt",
    "inspect": "converter.inspect",
    "publish": "converter.publish",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words == ["--help"]:
        print(__doc__)
        return 0 if words else 2
    module = COMMANDS.get(words[0])
    path = Path(words[0])
    if not (module or path.suffix or path.exists() or words[0].startswith("-")):
        print(
            f"error: no command and no file {words[0]}. Name a .keras file of a run, or one of the "
            f"commands {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    command = importlib.import_module(module or "converter.convert").main
    try:
        return int(command(words[1:] if module else words))
    except (ConverterError, DatasetError, MetadataError, ArtifactError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        reason = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"error: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted, nothing was written", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
