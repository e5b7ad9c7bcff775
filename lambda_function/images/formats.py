"""Recognise an image's format by its first bytes."""

from __future__ import annotations

import re

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "AVIF", "HEIC")
SNIFF_BYTES = 1024

_TEXT = rb"(\xef\xbb\xbf)?\s*"  # a byte order mark, blanks
# Atomic. Otherwise 25 comments without HTML behind them are split in all 2^25 ways.
_COMMENTS = rb"(?><!--.*?-->\s*)*"
# https://en.wikipedia.org/wiki/List_of_file_signatures. The first match counts.
_SIGNATURES = (
    (rb"\xff\xd8\xff", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"RIFF....WEBP", "WebP"),
    # With the size of the second header, because many texts begin with "BM".
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"....ftypavi[fs]", "AVIF"),
    (rb"....ftypm(if|sf)1.{4}(....){0,16}avi[fs]", "AVIF"),
    (rb"....ftyp(hei[cmsx]|hev[cmsx]|m(if|sf)1)", "HEIC"),
    (rb"....ftyp", "a video (MP4 or QuickTime)"),
    (rb"\x1aE\xdf\xa3", "a video (WebM)"),
    (rb"II[*+]\0|MM\0[*+]", "TIFF"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "JPEG XL"),
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"\0\0[\x01\x02]\0", "an icon (ICO)"),
    (rb"8BPS", "a Photoshop file"),
    (rb"%PDF-", "PDF"),
    (rb"PK\x03\x04", "a ZIP archive"),
    (rb"\x1f\x8b", "gzip"),
    (_TEXT + _COMMENTS + rb"(?i:<!doctype\s+html|<html|<head|<body)", "HTML"),
    (_TEXT + rb"<((\?xml|!--|!DOCTYPE\s+svg).*?<)?svg[\s/>]", "SVG"),
    (_TEXT + rb"<\?xml", "XML"),
    (_TEXT + rb"[{\[]", "JSON"),
)
# What a caller can do about a type that is not read.
_ADVICE = {
    "SVG": "SVG is a drawing, not pixels. Export it as PNG.",
    "PDF": "Export the page as PNG or JPEG.",
    "HTML": "It is a web page. Send the address of the image itself.",
    "a ZIP archive": "Unpack it and send one image.",
    "gzip": "Unpack it first.",
    "a video (MP4 or QuickTime)": "Send one frame as JPEG.",
    "a video (WebM)": "Send one frame as JPEG.",
}


def sniff(first_bytes: bytes) -> str | None:
    """Return the name of the format that a file's first bytes claim.

    Example::

        sniff(b"\\xff\\xd8\\xff\\xe0") == "JPEG"

    Args:
        first_bytes: of the file. ``SNIFF_BYTES`` are enough.

    Returns:
        One of ``FORMATS``, the name of another type ("TIFF", "HTML"), or None.
    """
    head = first_bytes[:SNIFF_BYTES]
    for pattern, name in _SIGNATURES:
        if re.match(pattern, head, re.DOTALL):  # compiled once, when it is needed
            return name
    return None


def advice(kind: str | None) -> str:
    """Return what to do with a file of a type that is not read.

    Args:
        kind: as ``sniff`` names it.
    """
    return _ADVICE.get(kind or "", "Save it as JPEG or PNG.")
