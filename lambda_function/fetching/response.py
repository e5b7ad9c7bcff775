"""The response of an image's server: its head within limits, and its body.

``http.client`` parses the response. This module bounds what it reads, and refuses a response that
two clients could read in two ways.
"""

from __future__ import annotations

import enum
import io
import re
from http.client import HTTPResponse
from typing import TYPE_CHECKING, cast

from lambda_function.errors import FetchError, UnsupportedImageError
from lambda_function.fetching.encodings import is_gzip, unpack_gzip
from lambda_function.fetching.errors import UnusableResponseError, too_large

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

MAX_HEAD_BYTES = 64 * 1024  # status lines, headers and trailers of one connection
MAX_CHUNK_LINES_BYTES = 512 * 1024  # of one body. 20 MiB in chunks of 256 bytes are within it
CHUNK_BYTES = 64 * 1024
MAX_FRAMING_BYTES = MAX_HEAD_BYTES + 2 * MAX_CHUNK_LINES_BYTES  # a chunk ends with two more bytes
IMAGE_STATUSES = frozenset({200, 203})  # 203: a proxy has changed the image
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}(?=[ \t]*[;\r\n])")
_HEADER_NAME = re.compile(rb"[!-9;-~]+")  # printable ASCII without blank and colon


class _Line(enum.Enum):
    """What the next line of a connection is."""

    STATUS = enum.auto()
    HEADER = enum.auto()
    CHUNK_SIZE = enum.auto()
    TRAILER = enum.auto()


class ResponseReader(io.BufferedReader):
    """Reads the responses of one connection, with at most ``MAX_HEAD_BYTES`` of lines.

    ``http.client`` reads lines with ``readline`` and bodies with ``read``. Status lines, headers
    and trailers count, informational responses included. Lines with the size of a chunk have
    their own limit, because a body may have many chunks. Without a limit, 20 MB in chunks of one
    byte took 6 s of CPU time.

    ``http.client`` ignores all headers after a malformed line
    (https://github.com/python/cpython/issues/69725), the length of the body included. Browsers
    ignore the line alone, and so does this reader.
    """

    def __init__(self, raw: io.RawIOBase) -> None:
        """Read from ``raw``, which bounds the bytes in all."""
        super().__init__(raw)
        self._head_left = MAX_HEAD_BYTES
        self._chunk_lines_left = MAX_CHUNK_LINES_BYTES
        self._next = _Line.STATUS

    def read_head(self) -> HTTPResponse:
        """Read the head of the final response.

        Returns:
            The response, whose body can be read.

        Raises:
            FetchError: more than ``MAX_HEAD_BYTES``.
            http.client.HTTPException, ValueError, OSError: not HTTP, or the connection broke.
        """
        while True:
            response = HTTPResponse(cast("socket.socket", self), method="GET")
            response.begin()
            if not 102 <= response.status < 200:  # http.client skips 100. 101 ends HTTP
                self._next = _Line.CHUNK_SIZE
                return response

    def makefile(self, _mode: str) -> ResponseReader:
        """Return this reader, as ``http.client`` asks a socket for it."""
        return self

    def close(self) -> None:
        """Leave the socket open: an informational response must not close it."""

    def readline(self, size: int | None = -1, /) -> bytes:
        """Read the next line that means something to ``http.client``."""
        while True:
            line = super().readline(size)
            if self._next is _Line.CHUNK_SIZE:
                self._check_chunk_line(line)
                return line
            self._head_left -= len(line)
            if self._head_left < 0:
                raise UnusableResponseError(
                    f"The image's server sends more than {MAX_HEAD_BYTES:,} bytes of headers."
                )
            shown = self._shown(line)
            if shown or not line:
                return shown

    def _check_chunk_line(self, line: bytes) -> None:
        size = _CHUNK_SIZE.match(line)
        if line and not size:  # http.client takes -1, +1, 0x1 and 1_0 too
            raise UnusableResponseError("The image's server sends a chunk without a size.")
        self._chunk_lines_left -= len(line)
        if self._chunk_lines_left < 0:
            raise UnusableResponseError("The image's server sends the image in too many chunks.")
        if size and not size[0].strip(b"0"):
            self._next = _Line.TRAILER  # this is the last chunk

    def _shown(self, line: bytes) -> bytes:
        """Return a line as ``http.client`` gets it, or nothing if the line is ignored."""
        is_blank = not line.strip(b"\r\n")
        if self._next is _Line.STATUS:
            self._next = _Line.STATUS if is_blank else _Line.HEADER
            return b"" if is_blank else line
        if self._next is _Line.HEADER:
            if not is_blank:
                return _clean_header(line)
            self._next = _Line.STATUS  # after an informational response
        return line


def check_head(response: HTTPResponse, max_bytes: int) -> bool:
    """Check what the head of a response says about its body.

    Returns:
        Whether the body is packed with gzip.

    Raises:
        UnusableResponseError: the end of the body can be read in two ways, or the body has an
            encoding that is not accepted.
        TooLargeError: the announced length is above ``max_bytes``.
    """
    lengths = ",".join(response.headers.get_all("Content-Length", [])).split(",")
    if len({length.strip(" \t") for length in lengths}) > 1:  # browsers take equal ones too
        raise UnusableResponseError("The image's server sent two different Content-Lengths.")
    codings: list[str] = response.headers.get_all("Transfer-Encoding", [])
    if len(codings) > 1 or "".join(codings).lower() not in {"", "identity", "chunked"}:
        raise UnusableResponseError(
            "The image's server used a Transfer-Encoding that was not asked for."
        )
    packed = is_gzip(response.headers)
    if response.length is not None and response.length > max_bytes:
        raise too_large(max_bytes)
    return packed


def read_body(response: HTTPResponse, max_bytes: int, *, packed: bool) -> bytes:
    """Read the body of a response.

    Args:
        response: its head has been read and checked.
        max_bytes: of the body, as it arrives and unpacked.
        packed: whether the body is packed with gzip.

    Returns:
        1 to ``max_bytes`` bytes. They may or may not be an image.

    Raises:
        TooLargeError: more than ``max_bytes``.
        FetchError: the body ended too early, is empty, or cannot be unpacked.
        UnsupportedImageError: the body is a web page.
    """
    pieces = _received(response, max_bytes)
    if packed:
        pieces = unpack_gzip(pieces, max_bytes)
    buffer = io.BytesIO()  # getvalue() hands over its buffer without a copy
    for piece in pieces:
        buffer.write(piece)
    body = buffer.getvalue()
    if not body:
        raise UnusableResponseError("The image's server sent an empty response.")
    _check_not_a_page(body, response.headers.get_content_type())
    return body


def _received(response: HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    declared = response.length
    received = 0
    while piece := response.read(CHUNK_BYTES):
        received += len(piece)
        if received > max_bytes:
            raise too_large(max_bytes)
        yield piece
    if declared is not None and received < declared:
        raise FetchError(f"The image's server broke off after {received:,} of {declared:,} bytes.")


def _check_not_a_page(body: bytes, content_type: str) -> None:
    """Tell a web page from an image, which is the most common mistake of callers.

    A body that starts like HTML is a page. A body that is called HTML is a page if it starts with
    ``<``. An image that is called HTML is still an image.
    """
    start = body[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    called_html = content_type in ("text/html", "application/xhtml+xml")
    if start.startswith((b"<!doctype html", b"<html")) or (called_html and start[:1] == b"<"):
        raise UnsupportedImageError(
            "The URL leads to a web page (HTML), not to an image. Use the URL of the image itself."
        )


def _clean_header(line: bytes) -> bytes:
    """Return a header line without blanks before the colon and at the end.

    Blanks at the end are not part of the value (RFC 9110, section 5.5), but ``http.client`` would
    not know ``chunked `` as chunked. A line without a colon, or with another character in the name
    than ASCII has, is no header. The result is then empty.
    """
    if line[:1] in (b" ", b"\t") or not line.endswith(b"\n"):  # folded, or cut short
        return line
    name, colon, value = line.partition(b":")
    name = name.rstrip(b" \t")
    if not colon or not _HEADER_NAME.fullmatch(name):
        return b""
    return name + b":" + value.rstrip(b" \t\r\n") + b"\r\n"
