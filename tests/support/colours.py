"""Images of one colour, and the tiny model that tells their colours apart."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from PIL import Image

from lambda_function.metadata import embed_metadata, read_metadata
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"
COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250), "dark": (5, 5, 5)}


def write_colours(root: Path, *, count: int = 3, mislabelled: int = 0) -> Path:
    """Write ``count`` images of each colour. The first ``mislabelled`` of "red" are green."""
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for index in range(count):
            shown = COLOURS["green"] if label == "red" and index < mislabelled else colour
            Image.new("RGB", (60, 40), shown).save(root / label / f"{index}.png")
    return root


def rename_tiny(path: Path, name: str) -> Path:
    """Write the tiny model under another name: other bytes, the same predictions."""
    artifact = TINY.read_bytes()
    metadata = dataclasses.replace(read_metadata(artifact), name=name)
    path.write_bytes(embed_metadata(artifact[: artifact.index(b"PK\x03\x04")], metadata))
    return path


def printed_error(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one error that was printed. It is one line without a traceback."""
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]
