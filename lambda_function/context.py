"""One invocation: who asks, until when, what is logged, and what becomes of an error."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from lambda_function.errors import DeadlineError, FetchError, InternalError, ServiceError
from lambda_function.logs import RequestLog
from lambda_function.predictor import Stopwatch

if TYPE_CHECKING:
    from lambda_function.predictor import Predictor

DEADLINE_MARGIN_S = 1.0  # kept of the function's remaining time, to answer in
DEFAULT_REMAINING_S = 30.0  # without a Lambda context: the longest that an HTTP API waits
_INTERNAL = "Something went wrong on our side. Quote the request_id when you report it."
_cold = iter([True])  # has one item, for the process's first request


class Call:
    """One invocation: what every route may need to know about it.

    Attributes:
        predictor: the loaded model and the ways to it.
        request_id: Lambda's.
        deadline: the ``time.monotonic()`` moment to be done by.
        allow_s3: whether this caller may name S3 objects.
        log: of this request.
        watch: started with the request.
    """

    def __init__(self, predictor: Predictor, context: Any, *, is_http: bool) -> None:
        self.watch = Stopwatch()
        self.predictor = predictor
        self.request_id = str(getattr(context, "aws_request_id", None) or os.urandom(16).hex())
        self.deadline = time.monotonic() + _remaining_s(context) - DEADLINE_MARGIN_S
        self.allow_s3 = not is_http or predictor.settings.api_auth != "none"
        settings = predictor.settings
        waited = next(_cold, False) and not settings.started_in_advance
        self.log = RequestLog(settings, request_id=self.request_id, cold_start=waited)
        self.log.add(model_version=self.model["version"])

    @property
    def model(self) -> dict[str, str]:
        """Name and version, as answers carry them."""
        metadata = self.predictor.classifier.metadata
        return {"name": metadata.name, "version": metadata.version}

    @property
    def classes(self) -> int:
        """How many the model knows."""
        return len(self.predictor.classifier.metadata.labels)

    def known(self, error: Exception) -> ServiceError:
        """Return an error that the caller may see.

        What is none of ``errors`` is ours: it is logged with its traceback and becomes a plain 500.
        """
        if isinstance(error, ServiceError) and not isinstance(error, InternalError):
            if isinstance(error, FetchError | DeadlineError):
                self.log.add_reason(error)
            return error
        self.log.add_failure(error)
        return InternalError(_INTERNAL)


def problem(error: ServiceError) -> dict[str, Any]:
    """Return an error as an RFC 9457 object, without the request's id."""
    return {
        "type": f"/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }


def _remaining_s(context: Any) -> float:
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return remaining() / 1000 if callable(remaining) else DEFAULT_REMAINING_S
