"""`python -m training data`: fetch clothing-dataset-small at the commit that was measured.

The images are checked by content, not by archive. GitHub packs the same commit differently from
time to time.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tarfile
from pathlib import Path

from training.data.dataset import FETCHED_ROOT, SPLITS
from training.download import download
from training.errors import DatasetError, DownloadError

# The commit whose files the figures in this repository were measured on.
COMMIT = "11961516512414bf9f6c150a832cfd21b54a6b54"
URL = f"https://codeload.github.com/alexeygrigorev/clothing-dataset-small/tar.gz/{COMMIT}"
# ``digest`` of all 3,781 images, computed from the copy that the figures were measured on.
DIGEST = "f8667cfe4a397f1be854d7d6c56118e4eaf6e9654ac37940e443dec3b4e55721"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--to", type=Path, default=FETCHED_ROOT, help="folder to write")


def run(parsed: argparse.Namespace) -> None:
    """Fetch the data set and print where it is."""
    print(f"data set: {fetch_dataset(parsed.to)}")


def fetch_dataset(to: Path, *, url: str = URL, expected: str = DIGEST) -> Path:
    """Download, check and unpack the data set. An existing one is only checked.

    Args:
        to: the folder that will hold ``train/``, ``validation/`` and ``test/``.
        url: of a ``.tar.gz`` with one folder at its top.
        expected: ``digest`` of the images.

    Returns:
        The folder.

    Raises:
        DatasetError: the folder holds other images.
        DownloadError: the archive cannot be fetched, or holds other images. ``to`` is as before.
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
        received = digest(unpacked)
        if received != expected:
            raise DownloadError(f"{url} holds other images: digest {received}, expected {expected}")
        unpacked.rename(to)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
    return to


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
