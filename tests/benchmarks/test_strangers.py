"""Images of other things: read from wheels and from locked source archives, or refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.baselines import BaselineError
from benchmarks.no_garment import strangers
from lambda_function.images.decode import decode_image
from tests.support.images import encode


def as_tiff(colour: str) -> bytes:
    return encode(Image.new("RGB", (12, 8), colour), "TIFF")


def test_surfaces_are_readable_images() -> None:
    drawn = dict(strangers.surfaces())
    assert set(drawn) == {"white", "grey", "black", "noise"}
    assert decode_image(drawn["white"]).getpixel((5, 5)) == (255, 255, 255)


def test_a_format_that_the_function_does_not_read_becomes_png() -> None:
    assert decode_image(strangers.readable(as_tiff("red"))).getpixel((3, 3)) == (255, 0, 0)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match="no_such_package is not installed"):
        list(strangers.carried_files("no_such_package/images", ("a.png",), tmp_path))


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaselineError, match=r"no thing-\*\.tar\.gz in "):
        list(strangers.carried_files("thing.tar.gz/images", ("a.png",), tmp_path))


def archive_with(folder: Path, data: bytes) -> Path:
    archive = folder / "thing-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("thing-1.0/images/a.tif")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return archive


def test_an_archive_that_is_not_locked_is_refused(tmp_path: Path) -> None:
    archive_with(tmp_path, as_tiff("red"))
    with pytest.raises(BaselineError, match=r"thing-1\.0\.tar\.gz is not the locked one"):
        list(strangers.carried_files("thing.tar.gz/images", ("a.tif",), tmp_path))


def test_images_of_a_locked_archive_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_with(tmp_path, as_tiff("blue"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    (tmp_path / "serving.txt").write_text(f"thing==1.0 \\\n    --hash=sha256:{digest}\n")
    monkeypatch.setattr(strangers, "REQUIREMENTS", tmp_path)
    ((name, data),) = strangers.carried_files("thing.tar.gz/images", ("a.tif",), tmp_path)
    assert name == "a.tif"
    assert decode_image(data).getpixel((3, 3)) == (0, 0, 255)


def test_at_least_forty_photographs_are_listed() -> None:
    assert sum(map(len, strangers.PHOTOGRAPHS.values())) >= 40
