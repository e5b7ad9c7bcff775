"""What ``Content-Encoding`` says about the bytes of an image, and unpacking gzip within limits.

Images are asked for without encoding. Some servers compress them nevertheless. Others send a word
that is no content coding at all, such as ``utf-8``, ``base64``, ``binary``, ``none`` or
``aws-chunked``. S3 returns whatever the uploader wrote. Browsers take a body with an unknown
coding as it is (https://fetch.spec.whatwg.org/#handle-content-codings), and so does this module.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from lambda_function.fetching.errors import UnusableResponseError, too_large

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from email.message import Message

MAX_UNPACKED_BYTES = 20 * 1024**2  # 20 MiB, whatever the limit for images that are not packed
MAX_RATIO = 100  # unpacked to packed. Photos reach 1, drawings as BMP about 50
STEP_BYTES = 64 * 1024  # unpacked at a time

_GZIP = frozenset({"gzip", "x-gzip"})
# Codings that change the bytes: IANA's registry, https://www.iana.org/assignments/http-parameters/
_CODINGS = _GZIP | {
    *("deflate", "br", "zstd", "compress", "x-compress", "dcb", "dcz", "exi", "pack200-gzip")
}


def is_gzip(headers: Message) -> bool:
    """Return whether a body must be unpacked.

    Args:
        headers: of the response.

    Raises:
        UnusableResponseError: another coding, several layers, or several header lines.
    """
    lines: list[str] = headers.get_all("Content-Encoding", [])
    if not lines:
        return False
    if len(lines) > 1:
        raise UnusableResponseError("The image's server sent several lines of Content-Encoding.")
    names = [name.strip(" \t").lower() for name in lines[0].split(",")]
    layers = [name for name in names if name in _CODINGS]
    if layers and (len(layers) > 1 or layers[0] not in _GZIP):
        raise UnusableResponseError(
            f"The image's server used the Content-Encoding {', '.join(layers)[:60]}, which was "
            "not asked for. Images are taken as they are, or with one layer of gzip."
        )
    return bool(layers)


def unpack_gzip(packed: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """Unpack one gzip member while it arrives.

    Args:
        packed: pieces of the member, none of them empty.
        max_bytes: unpacked. ``MAX_UNPACKED_BYTES`` holds too.

    Yields:
        Unpacked pieces of at most ``STEP_BYTES``.

    Raises:
        TooLargeError: more bytes than allowed.
        UnusableResponseError: the data is damaged, cut short, followed by other bytes, or unpacks
            to more than ``MAX_RATIO`` times its size.
    """
    max_bytes = min(max_bytes, MAX_UNPACKED_BYTES)
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: a gzip header and checksum
    bytes_in = bytes_out = 0
    for piece in packed:
        bytes_in += len(piece)
        for unpacked in _unpack_piece(decoder, piece):
            bytes_out += len(unpacked)
            if bytes_out > max_bytes:
                raise too_large(max_bytes)
            if bytes_out > MAX_RATIO * bytes_in:
                raise UnusableResponseError(
                    "The image's server sent gzip data that unpacks to more than "
                    f"{MAX_RATIO} times its size."
                )
            yield unpacked
    if not decoder.eof:
        raise UnusableResponseError("The image's server sent gzip data that is cut short.")


def _unpack_piece(decoder: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    try:
        while piece and not decoder.eof:
            yield decoder.decompress(piece, STEP_BYTES)
            piece = decoder.unconsumed_tail
    except zlib.error as error:
        raise UnusableResponseError("The image's server sent damaged gzip data.") from error
    if piece or decoder.unused_data:
        raise UnusableResponseError("The image's server sent bytes after the gzip data.")
