"""Errors of the fetch, beside those of ``lambda_function.errors``.

::

    FetchError                   502
    ├── ServerStatusError             the server responded with another status than 200
    └── UnusableResponseError         the server responded, but not with an image
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from lambda_function.errors import DeadlineError, FetchError, TooLargeError

if TYPE_CHECKING:
    from email.message import Message


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


def too_large(max_bytes: int) -> TooLargeError:
    """Return the error for an image of more than ``max_bytes``."""
    return TooLargeError(f"The image has more than {max_bytes:,} bytes. Use a smaller image.")


def too_slow() -> DeadlineError:
    """Return the error for a fetch that was not done in time."""
    return DeadlineError("The image did not arrive in time. Its server is too slow.")


def _status_text(status: int) -> str:
    """Return a status with its standard name. The server's own text is not repeated."""
    try:
        return f"{status} ({HTTPStatus(status).phrase})"
    except ValueError:
        return str(status)
