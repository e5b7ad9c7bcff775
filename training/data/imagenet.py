"""`python -m training weights`: Xception's complete ImageNet weights, fetched once and found."""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path

from lambda_function import REPOSITORY
from training.data.dataset import FETCHED_ROOT
from training.download import download
from training.errors import DownloadError, WeightsError
from training.files import replacing

ENVIRONMENT_VARIABLE = "BACKBONE_WEIGHTS"
FETCHED_WEIGHTS = FETCHED_ROOT.parent / "xception_notop_imagenet.h5"
DEFAULT_WEIGHTS = REPOSITORY.parent / "shared" / "weights" / "xception_notop_imagenet.weights.h5"
# Keras's own address and MD5 for keras.applications.Xception(include_top=False).
URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
MD5 = "b0042744bf5b25fce3cb969f33bebb97"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--to", type=Path, default=FETCHED_WEIGHTS, help="file to write")


def run(parsed: argparse.Namespace) -> None:
    """Fetch the weights and print where they are."""
    print(f"weights: {fetch_weights(parsed.to)}")


def fetch_weights(to: Path, *, url: str = URL, expected: str = MD5) -> Path:
    """Download the weights file and check it by Keras's own MD5.

    Args:
        to: file to write. An existing file with the expected MD5 is kept.
        url: of the file.
        expected: MD5, in hexadecimal.

    Returns:
        The file.

    Raises:
        DownloadError: the file cannot be fetched, or is another one. Nothing is left behind.
    """
    if to.is_file() and _md5(to) == expected:
        return to
    with replacing(to) as unfinished:
        download(url, unfinished)
        if (received := _md5(unfinished)) != expected:
            raise DownloadError(f"{url} has MD5 {received}; Keras expects {expected}")
    return to


def find_weights(path: Path | None = None) -> Path | None:
    """Return the weights file: the argument, ``BACKBONE_WEIGHTS``, `make fetch`'s, the default.

    Returns:
        None if no file was named and there is none at the default places. Keras then downloads
        the weights.

    Raises:
        WeightsError: a file was named and does not exist.
    """
    named = path or (Path(value) if (value := os.environ.get(ENVIRONMENT_VARIABLE)) else None)
    if named is not None and not named.is_file():
        raise WeightsError(
            f"no weights file at {named} (--backbone-weights, {ENVIRONMENT_VARIABLE})"
        )
    defaults = (file for file in (FETCHED_WEIGHTS, DEFAULT_WEIGHTS) if file.is_file())
    return named or next(defaults, None)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
