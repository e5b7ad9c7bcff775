"""Every error that a caller of the service may see.

``app`` turns each of them into a response::

    ServiceError                     the base, never raised itself
    ├── BadRequestError         400  bad_request
    │   └── AddressNotAllowedError   400  address_not_allowed
    ├── NotFoundError           404  not_found
    ├── MethodNotAllowedError   405  method_not_allowed
    ├── TooLargeError           413  too_large
    ├── UnsupportedImageError   415  unsupported_image
    ├── UndecodableImageError   422  undecodable_image
    ├── InternalError           500  internal_error
    ├── FetchError              502  fetch_failed
    └── DeadlineError           504  deadline_exceeded

Messages speak of the caller's request, never of our network, files or code.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar


class ServiceError(Exception):
    """Base of all errors shown to a caller.

    Attributes:
        status: HTTP status code.
        code: stable machine-readable name. It is part of the API and never changes.
        title: short human-readable summary, the same for every occurrence.
        rule: what was wrong with this request and what to do, without the value received.
        detail: the same with the value.
        reason: what the log says, where the operator needs more than the caller.
    """

    status: ClassVar[int]
    code: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, rule: str, *, received: object = ..., reason: str = "") -> None:
        self.rule = rule
        self.detail = rule if received is ... else f"{rule} Received: {shown(received)}."
        self.reason = reason or self.detail
        super().__init__(self.detail)

    def to_dict(self) -> dict[str, Any]:
        """Return the RFC 9457 problem object, without the request's id."""
        return {
            "type": f"/docs#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }


class BadRequestError(ServiceError):
    """The request itself is malformed."""

    status = 400
    code = "bad_request"
    title = "Malformed request"


class AddressNotAllowedError(BadRequestError):
    """The URL names an address that this service does not fetch from."""

    code = "address_not_allowed"
    title = "Address not allowed"


class NotFoundError(ServiceError):
    """No such route."""

    status = 404
    code = "not_found"
    title = "Not found"


class MethodNotAllowedError(ServiceError):
    """The route exists, but not for this HTTP method."""

    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"


class TooLargeError(ServiceError):
    """The image has more bytes or more pixels than the service accepts."""

    status = 413
    code = "too_large"
    title = "Image too large"


class UnsupportedImageError(ServiceError):
    """The bytes are not of an image type that the service reads."""

    status = 415
    code = "unsupported_image"
    title = "Not a supported image type"


class UndecodableImageError(ServiceError):
    """The bytes claim to be an image but cannot be decoded."""

    status = 422
    code = "undecodable_image"
    title = "Image cannot be decoded"


class InternalError(ServiceError):
    """The service itself failed. The log has the traceback, the caller sees only this."""

    status = 500
    code = "internal_error"
    title = "Internal error"


class FetchError(ServiceError):
    """The image's server failed or answered something other than an image."""

    status = 502
    code = "fetch_failed"
    title = "Image could not be fetched"


class DeadlineError(ServiceError):
    """The image's server was too slow."""

    status = 504
    code = "deadline_exceeded"
    title = "Image took too long"


def to_service_error(error: Exception) -> ServiceError:
    """Return the error that the caller may see: an unexpected one becomes a plain 500."""
    if isinstance(error, ServiceError) and not isinstance(error, InternalError):
        return error
    return InternalError(
        "Something went wrong on our side. Quote the request_id when you report it."
    )


def shown(value: Any) -> str:
    """Return a value as a message may show it: short, on one line, and as JSON spells it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    try:
        text = repr(value[:60] if isinstance(value, str | bytes) else value)
    except (ValueError, RecursionError):  # thousands of digits, or of nested brackets
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."
