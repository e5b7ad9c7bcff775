"""Images of other things than clothes: what the locked packages carry for examples and tests.

Installed wheels carry some. The source archives of Pillow and pi-heif carry more. Their SHA-256
stands in requirements/serving.txt, so they are the locked packages too::

    pip download --no-deps --no-binary :all: --dest FOLDER pillow==VERSION pi-heif==VERSION

All were looked at. People, drawn or not, are left out, because they wear something. So are near
copies (the right motorcycle, the many Grace Hoppers), images of less than 100 pixels, and two HEICs
that the function does not read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import io
import re
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from benchmarks.baselines import REQUIREMENTS, BaselineError
from lambda_function.images.formats import FORMATS, SNIFF_BYTES, sniff
from training.data.augment import encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

PHOTOGRAPHS = {
    "skimage/data": (
        "brick.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png",
        "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png",
        "moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png",
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
    "pillow.tar.gz/Tests/images": (
        "app13-multiple.jpg", "argb-32bpp_MipMaps-1.dds", "ati2.dds", "avif/rot0mir0.avif",
        "avif/xmp_tags_orientation.avif", "exif-72dpi-int.jpg", "exif_gps_typeerror.jpg",
        "flower.jpg", "flower2.jpg", "frozenpond.mpo", "fujifilm.mpo", "icc_profile_big.jpg",
        "iptc.jpg", "issue_2811.gif", "junk_jpeg_header.jpg", "m13.fits", "sugarshack.mpo",
        "tv.rgb", "xmp_test.jpg",
    ),
    "pi_heif.tar.gz/tests/images": (
        "heif_other/arrow.heic", "heif_other/cat.hif", "heif_other/empty_icc.heic",
        "heif_other/invalid_id.heic", "heif_other/nokia/bird_burst.heic", "heif_other/pug.heic",
        "heif_other/spatial_photo.heic", "heif_special/aux_YCbCr.heic",
        "heif_special/xiaomi.heic",
    ),
}  # fmt: skip
DRAWINGS = {
    "skimage/data": ("chessboard_RGB.png", "color.png", "horse.png", "logo.png", "phantom.png"),
    "matplotlib/mpl-data/sample_data": ("Minduka_Present_Blue_Pack.png", "logo2.png"),
    "networkx/drawing/tests/baseline": (
        "test_display_complex.png", "test_display_house_with_colors.png",
        "test_display_labels_and_colors.png",
    ),
    "pillow.tar.gz/Tests/images": (
        "avif/exif.avif", "avif/star.avifs", "balloon.jpf", "caption_6_33_22.png",
        "clipboard.dib", "copyleft.png", "drawing_emf_ref.png", "effect_mandelbrot.png",
        "iss634.apng", "pil123p.png", "pil184.pcx", "pillow.ico", "pport_g4.tif", "python.ico",
        "rdf.tif", "test-card-lossless.jp2", "transparent.png",
    ),
}  # fmt: skip
_ARCHIVE = ".tar.gz"


@dataclasses.dataclass(frozen=True)
class Stranger:
    """An image of something else.

    Attributes:
        name: of its file, without the ending.
        kind: ``"photograph"``, ``"drawing"`` (icons, diagrams and pages too) or ``"surface"``.
        data: encoded, in a format that the function reads.
    """

    name: str
    kind: str
    data: bytes


def strangers(archives: Path) -> list[Stranger]:
    """Return all images of other things.

    Args:
        archives: the folder of the source archives.

    Raises:
        BaselineError: a package is not installed, or an archive is missing or not the locked one.
    """
    carried = [
        Stranger(Path(name).stem, kind, data)
        for kind, folders in (("photograph", PHOTOGRAPHS), ("drawing", DRAWINGS))
        for folder, names in folders.items()
        for name, data in carried_files(folder, names, archives)
    ]
    return carried + [Stranger(name, "surface", data) for name, data in surfaces()]


def carried_files(
    folder: str, names: tuple[str, ...], archives: Path
) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the readable bytes of images that a package carries.

    Args:
        folder: ``package/folder`` of an installed package, or ``package.tar.gz/folder``.
        names: of its files.
        archives: the folder of the source archives.
    """
    package, _, rest = folder.partition("/")
    if package.endswith(_ARCHIVE):
        yield from _archived(package.removesuffix(_ARCHIVE), rest, names, archives)
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise BaselineError(f"{package} is not installed here: `make .venv/benchmarks/.ok`")
    for name in names:
        yield name, readable((Path(spec.origin).parent / rest / name).read_bytes())


def surfaces() -> Iterator[tuple[str, bytes]]:
    """Yield even surfaces and noise, drawn here, as PNG."""
    for name, grey in (("white", 255), ("grey", 128), ("black", 0)):
        yield name, encoded(Image.fromarray(np.full((533, 400, 3), grey, np.uint8)), "PNG")
    noise = np.random.default_rng(0).integers(0, 256, (533, 400, 3), np.uint8)
    yield "noise", encoded(Image.fromarray(noise), "PNG")


def readable(data: bytes) -> bytes:
    """Return an image that the function reads: the same, or as PNG if it knows no such format."""
    if sniff(data[:SNIFF_BYTES]) in FORMATS:
        return data
    with Image.open(io.BytesIO(data)) as image:
        return encoded(image.convert("RGB"), "PNG")


def _archived(
    package: str, folder: str, names: tuple[str, ...], archives: Path
) -> Iterator[tuple[str, bytes]]:
    found = sorted(archives.glob(f"{package}-*{_ARCHIVE}"))
    if not found:
        raise BaselineError(f"no {package}-*{_ARCHIVE} in {archives}: download it as the help says")
    archive = found[-1]
    with archive.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 not in _locked_hashes():
        raise BaselineError(
            f"{archive.name} is not the locked one: requirements/serving.txt has no {sha256}"
        )
    root = archive.name.removesuffix(_ARCHIVE)
    with tarfile.open(archive) as tar:
        for name in names:
            member: Any = tar.extractfile(f"{root}/{folder}/{name}")
            yield name, readable(member.read())


def _locked_hashes() -> set[str]:
    text = (REQUIREMENTS / "serving.txt").read_text(encoding="utf-8")
    return set(re.findall(r"sha256:([0-9a-f]{64})", text))
