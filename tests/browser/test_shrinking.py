"""The page shrinks an image over 4 MB, keeps it upright, and says so."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.browser.test_ways_in import api_rows, close
from tests.support.images import encode

if TYPE_CHECKING:
    from pathlib import Path

    from tests.browser.conftest import Demo

pytestmark = pytest.mark.browser
LIMIT_BYTES = 4 * 1024**2
ORIENTATION_TAG = 0x0112  # EXIF
TURN_RIGHT = 6  # stored lying, and turned by 90 degrees clockwise when shown


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return pixels that no encoder makes small, uint8."""
    return np.random.default_rng(5).integers(0, 110, (height, width, channels), np.uint8)


def saved_copy(demo: Demo) -> bytes:
    """Return what the page sent: the image that its link saves."""
    with demo.page.expect_download() as download:
        demo.page.click("#save")
    return download.value.path().read_bytes()


def test_a_large_photo_is_shrunk_upright_and_classified(demo: Demo, tmp_path: Path) -> None:
    pixels = noise(1700, 2600)
    pixels[:850, :, 0] += 140  # the stored upper half is red: upright, that is the right half
    photo = Image.fromarray(pixels)
    exif = photo.getexif()
    exif[ORIENTATION_TAG] = TURN_RIGHT
    photo.save(tmp_path / "photo.jpg", quality=97, exif=exif)
    before = (tmp_path / "photo.jpg").stat().st_size
    assert before > LIMIT_BYTES

    demo.page.set_input_files("#file", tmp_path / "photo.jpg")
    answer = demo.answer()

    sent = saved_copy(demo)
    image = Image.open(io.BytesIO(sent))
    assert len(sent) <= LIMIT_BYTES
    assert image.format == "JPEG"
    assert (image.height, image.width) == (2048, 1339)  # 2600 x 1700 upright, longest side 2048
    assert ORIENTATION_TAG not in image.getexif()
    red = np.asarray(image.convert("RGB"), float)[..., 0]
    assert red[:, 700:].mean() - red[:, :600].mean() > 100
    assert close(answer, api_rows(demo.origin, sent, "image/jpeg"))
    assert demo.page.locator("#note").inner_text() == (
        f"Shrunk in your browser from {before / 1e6:.1f} MB to {len(sent) / 1e6:.1f} MB, "
        "because the service takes 4.2 MB."
    )
    assert "photo-shrunk.jpg" in demo.page.locator("#curl").inner_text()
    assert "Content-Type: image/jpeg" in demo.page.locator("#curl").inner_text()


def test_an_image_that_was_replaced_while_shrinking_is_not_sent(demo: Demo, tmp_path: Path) -> None:
    Image.fromarray(noise(1200, 1400)).save(tmp_path / "large.png", compress_level=1)
    assert (tmp_path / "large.png").stat().st_size > LIMIT_BYTES
    demo.page.evaluate("""() => {
      const shrink = HTMLCanvasElement.prototype.toBlob;
      HTMLCanvasElement.prototype.toBlob = function (done, ...rest) {
        const finish = (blob) => { done(blob); window.released = true; };
        window.release = () => shrink.call(this, finish, ...rest);
      };
    }""")
    demo.page.set_input_files("#file", tmp_path / "large.png")
    demo.wait("window.release")
    demo.page.click("#example")
    demo.answer()
    demo.page.evaluate("window.release()")
    demo.wait("window.released")
    assert demo.page.locator("#note").is_hidden()
    assert "@example.webp" in demo.page.locator("#curl").inner_text()
    assert "".join(demo.requests).count("/predict") == 1


def test_what_is_transparent_becomes_white(demo: Demo, tmp_path: Path) -> None:
    pixels = noise(1200, 1200, channels=4)
    pixels[..., 3] = 255
    pixels[:, :600, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "cut-out.png", compress_level=1)
    assert (tmp_path / "cut-out.png").stat().st_size > LIMIT_BYTES
    demo.page.set_input_files("#file", tmp_path / "cut-out.png")
    demo.answer()
    image = np.asarray(Image.open(io.BytesIO(saved_copy(demo))).convert("RGB"))
    assert image.shape == (1200, 1200, 3)  # nothing was wrong with its sides
    assert image[:, :580].min() >= 250
    assert image[:, 620:].mean() < 80


def test_an_image_of_just_the_limit_is_sent_as_it_is(demo: Demo, tmp_path: Path) -> None:
    jpeg = encode(Image.fromarray(noise(40, 40)), "JPEG")
    padded = jpeg.ljust(LIMIT_BYTES, b"\0")  # decoders ignore what follows the end
    (tmp_path / "fits.jpg").write_bytes(padded)
    demo.page.set_input_files("#file", tmp_path / "fits.jpg")
    demo.answer()
    assert demo.page.locator("#note").is_hidden()
    assert "@fits.jpg" in demo.page.locator("#curl").inner_text()


def test_a_large_file_that_the_browser_cannot_read_is_not_sent(demo: Demo, tmp_path: Path) -> None:
    (tmp_path / "raw.jpg").write_bytes(b"\xff\xd8" + bytes(LIMIT_BYTES))
    demo.page.set_input_files("#file", tmp_path / "raw.jpg")
    assert "cannot read it to shrink it" in demo.problem()
    assert "/predict" not in "".join(demo.requests)
