"""`python -m training data` and `weights`: what a rebuild needs, fetched once, checked, kept.

After both (`make data`, `make fetch`) nothing needs the network: `make model` runs without one.
What is fetched is checked by content, not by archive: GitHub packs the same commit differently
from time to time.
"""

from __future__ import annotations

import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from training.data.dataset import FETCHED_ROOT, SPLITS, DatasetError
from training.files import replacing
from training.progress import progress_bar

# The commit whose files the figures in this repository were measured on.
COMMIT = "11961516512414bf9f6c150a832cfd21b54a6b54"
DATASET_URL = f"https://codeload.github.com/alexeygrigorev/clothing-dataset-small/tar.gz/{COMMIT}"
# Of all 3,781 images: see ``digest``. Computed from the copy that the figures were measured on.
DATASET_DIGEST = "f8667cfe4a397f1be854d7d6c56118e4eaf6e9654ac37940e443dec3b4e55721"
FETCHED_WEIGHTS = FETCHED_ROOT.parent / "xception_notop_imagenet.h5"
# Keras's own address and MD5 for keras.applications.Xception(include_top=False).
WEIGHTS_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/xception/"
    "xception_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
WEIGHTS_MD5 = "b0042744bf5b25fce3cb969f33bebb97"
TIMEOUT_S = 60
PIECE = 1024 * 1024  # 1 MiB


class DownloadError(ValueError):
    """What was fetched is not what was meant, or could not be fetched."""


def add_arguments(commands: Any) -> None:
    """Add these two commands to the others of ``python -m training``."""
    data = commands.add_parser("data", help="fetch the data set at its pinned commit")
    data.add_argument("--to", type=Path, default=FETCHED_ROOT)
    data.set_defaults(run=lambda parsed: print(f"data set: {fetch_dataset(parsed.to)}"))
    weights = commands.add_parser("weights", help="fetch Xception's complete ImageNet weights")
    weights.add_argument("--to", type=Path, default=FETCHED_WEIGHTS)
    weights.set_defaults(run=lambda parsed: print(f"weights: {fetch_weights(parsed.to)}"))


def fetch_dataset(to: Path, *, url: str = DATASET_URL, expected: str = DATASET_DIGEST) -> Path:
    """Download, check and unpack the data set; one that is there is only checked.

    Args:
        to: the folder that will hold ``train/``, ``validation/`` and ``test/``.
        url: of a ``.tar.gz`` with one folder at its top.
        expected: ``digest`` of the result.

    Raises:
        DownloadError: not to be had, or other content; ``to`` is as before.
    """
    if to.is_dir():
        if digest(to) != expected:
            raise DatasetError(f"{to} holds other images than commit {COMMIT[:7]}; remove it first")
        return to
    archive = to.with_name(f"{to.name}.tar.gz")
    unpacked = to.with_name(f"unfinished-{to.name}")
    try:
        download(url, archive)
        _unpack(archive, unpacked)
        found = digest(unpacked)
        if found != expected:
            raise DownloadError(f"{url} holds other images: digest {found}, expected {expected}")
        unpacked.rename(to)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
    return to


def fetch_weights(to: Path, *, url: str = WEIGHTS_URL, expected: str = WEIGHTS_MD5) -> Path:
    """Download the weights file and check it by Keras's own MD5.

    Raises:
        DownloadError: not to be had, or other content; nothing is left behind.
    """
    if to.is_file() and _md5(to) == expected:
        return to
    with replacing(to) as unfinished:
        download(url, unfinished)
        if (found := _md5(unfinished)) != expected:
            raise DownloadError(f"{url} has MD5 {found}; Keras expects {expected}")
    return to


def download(url: str, to: Path) -> None:
    """Fetch a URL into a file, whole or not at all, with a progress bar.

    Raises:
        DownloadError: it cannot be fetched; the message says why.
    """
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response, replacing(to) as file:  # noqa: S310 (ours)
            length = int(response.headers.get("Content-Length") or 0)
            with file.open("wb") as opened, progress_bar(length, to.name, unit="byte") as bar:
                while piece := response.read(PIECE):
                    opened.write(piece)
                    bar.update(len(piece))
                received = opened.tell()
            if length and received != length:
                raise DownloadError(f"{url} broke off after {received} of {length} bytes")
    except (
        urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError,
    ) as error:  # fmt: skip
        raise DownloadError(f"{url} cannot be fetched: {error}. Is there a network?") from error


def digest(root: Path) -> str:
    """Return one SHA-256 over the names and contents of all images of a data set."""
    total = hashlib.sha256()
    paths = [path for split in SPLITS for path in (root / split).glob("*/*.jpg")]
    for path in sorted(paths, key=lambda path: path.relative_to(root).as_posix()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{content}  {path.relative_to(root).as_posix()}\n".encode())
    return total.hexdigest()


def _unpack(archive: Path, to: Path) -> None:
    """Unpack the one top folder of an archive as ``to``."""
    shutil.rmtree(to, ignore_errors=True)
    inside = to.with_name(f"{to.name}-archive")
    try:
        with tarfile.open(archive) as opened:
            opened.extractall(inside, filter="data")
        tops = [entry for entry in inside.iterdir() if entry.is_dir()]
        if len(tops) != 1:
            raise DownloadError(f"the archive has {len(tops)} folders at its top; expected one")
        tops[0].rename(to)
    except tarfile.TarError as error:
        raise DownloadError(f"the archive cannot be unpacked: {error}") from error
    finally:
        shutil.rmtree(inside, ignore_errors=True)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
