"""The memory of a batch of the largest images that the settings allow, in a process of its own."""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from lambda_function.images.strip import MAX_ROW_BYTES
from lambda_function.settings import Settings
from tests.support.images import chunk, encode
from tests.support.processes import run_python
from tools.image_server import ImageServer, Resource

if TYPE_CHECKING:
    from collections.abc import Callable

CHILD = """
import json, pathlib, sys, time
from lambda_function import app

class Context:
    aws_request_id = "memory"
    def get_remaining_time_in_millis(self, end=time.monotonic() + 240):
        return int((end - time.monotonic()) * 1000)

app.lambda_handler({"urls": json.loads(sys.argv[1])}, Context())
status = pathlib.Path("/proc/self/status").read_text()
print(next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")))
"""
FILES = 32
MARGIN_MB = 24  # for Lambda's own processes


def deep_png(pixels: int, max_bytes: int) -> bytes:
    """Return a 16-bit PNG with alpha of almost this many bytes, and of the pixels allowed."""
    pixels = min(pixels, MAX_ROW_BYTES // 8 - 10_000)
    side = int(pixels**0.5)
    rng = np.random.default_rng(0)
    packer = zlib.compressobj(1)
    packed = bytearray()
    for _ in range(side):
        room = max_bytes - len(packed) - pixels // 20 > 9 * side  # for the rows of zeros
        packed += packer.compress(b"\0" + (rng.bytes(8 * side) if room else bytes(8 * side)))
    packed += packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 16, 6, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", bytes(packed)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encoded(kind: str, mode: str, **options: object) -> Callable[[int, int], bytes]:
    """Return a maker of images of almost this many pixels, filled up to the number of bytes."""

    def make(pixels: int, max_bytes: int) -> bytes:
        width = min(16_000, int(pixels**0.5))
        height = min(16_000, pixels // width)
        image = Image.new(mode, (width, height), 7)
        channels = len(image.getbands())
        rows = max_bytes // (4 * width * channels)
        noise = np.random.default_rng(0).integers(0, 256, (rows, width, channels), np.uint8)
        image.paste(Image.fromarray(noise.squeeze()).convert(mode))
        return encode(image, kind, **options).ljust(max_bytes, b"\0")

    return make


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "PNG, 16 bit with alpha": deep_png,
    "WebP, lossless with alpha": encoded("WebP", "RGBA", lossless=True, quality=0, method=0),
    "JPEG, progressive": encoded("JPEG", "RGB", progressive=True, subsampling=0, quality=95),
}


def peak_mb(memory_mb: int, image: bytes) -> float:
    """Return the most memory that the handler holds for 32 such images."""
    with ImageServer({"/image": Resource(image)}) as server:
        urls = [server.url(f"/image?{number}") for number in range(FILES)]
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb),
            "TRUSTED_IMAGE_HOSTS": server.host,
            "FETCH_TIMEOUT_S": "60",
        }
        ended = run_python("-c", CHILD, json.dumps(urls), env=environment, timeout=400, check=True)
    line, peak_kb = ended.stdout.splitlines()
    assert json.loads(line)["items_done"] > 0, line
    return int(peak_kb) / 1024


@pytest.mark.budget
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("memory_mb", [512, 1769])
def test_32_of_the_largest_images_fit_into_the_function_s_memory(memory_mb: int, kind: str) -> None:
    settings = Settings.from_environment({"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(memory_mb)})
    image = KINDS[kind](settings.max_image_pixels, settings.max_image_bytes)
    assert len(image) <= settings.max_image_bytes

    peak = peak_mb(memory_mb, image)

    assert peak < memory_mb - MARGIN_MB, f"{peak:.0f} of {memory_mb} MB"
