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
    command = importlib.import_module(module or "converter.convert").main
    try:
        if not module and words[0].isalpha():
            raise ConverterError(
                f"no command {words[0]}. Name one of {', '.join(COMMANDS)}, or a run's .keras file"
            )
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
