"""The response of an image's server: what may be taken as an image's bytes.

``http.client`` parses the response. This module checks it before and after.
"""

from __future__ import annotations

import io
from http import HTTPStatus
from typing import TYPE_CHECKING

from lambda_function.errors import FetchError, TooLargeError, UnsupportedImageError

if TYPE_CHECKING:
    from email.message import Message
    from http.client import HTTPResponse

CHUNK_BYTES = 64 * 1024
REDIRECTS = frozenset({301, 302, 303, 307, 308})


class ServerStatusError(FetchError):
    """The image's server responded with a status other than 200, or with an empty redirect.

    Attributes:
        server_status: the status.
        server_headers: the headers that came with it.
    """

    def __init__(self, server_status: int, server_headers: Message) -> None:
        super().__init__(f"The image's server answered {_status_text(server_status)}.")
        self.server_status = server_status
        self.server_headers = server_headers


class UnusableResponseError(FetchError):
    """The image's server responded, but the response cannot hold an image."""


def check_encoding(response: HTTPResponse) -> None:
    """Check that the body is sent as it is.

    Raises:
        UnusableResponseError: the body is encoded.
    """
    for header, accepted in (
        ("Content-Encoding", {"", "identity"}),
        ("Transfer-Encoding", {"", "identity", "chunked"}),
    ):
        encoding = response.headers.get(header, "").strip().lower()
        if encoding not in accepted:
            raise UnusableResponseError(
                f"The image's server answered with a {header} that was not asked for. "
                "Images are taken as they are."
            )


def check_length(response: HTTPResponse, max_bytes: int) -> None:
    """Check the length that the response announces.

    Raises:
        TooLargeError: more than ``max_bytes``.
    """
    if response.length is not None and response.length > max_bytes:
        raise too_large(max_bytes)


def read_body(response: HTTPResponse, max_bytes: int) -> bytes:
    """Read the body of a response.

    Args:
        response: its head has been read.
        max_bytes: of the body.

    Returns:
        1 to ``max_bytes`` bytes. They may or may not be an image.

    Raises:
        TooLargeError: more than ``max_bytes``.
        FetchError: the body ended too early, or is empty.
        UnsupportedImageError: the body is a web page.
    """
    declared = response.length
    body = io.BytesIO()  # getvalue() hands over its buffer without a copy
    while chunk := response.read(CHUNK_BYTES):
        body.write(chunk)
        if body.tell() > max_bytes:
            raise too_large(max_bytes)
    if declared is not None and body.tell() < declared:
        raise FetchError(
            f"The image's server broke off after {body.tell():,} of {declared:,} bytes."
        )
    if not body.tell():
        raise UnusableResponseError("The image's server sent an empty response.")
    _check_not_a_page(body.getvalue(), response.headers.get_content_type())
    return body.getvalue()


def too_large(max_bytes: int) -> TooLargeError:
    """Return the error for an image of more than ``max_bytes``."""
    return TooLargeError(f"The image has more than {max_bytes:,} bytes. Use a smaller image.")


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


def _status_text(status: int) -> str:
    """Return a status with its standard name. The server's own text is not repeated."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)
