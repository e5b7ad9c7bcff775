"""One JSON line per request, which is log entry and CloudWatch metrics in one.

The line follows CloudWatch's embedded metric format (EMF): its ``_aws`` part tells CloudWatch
which of the fields are metrics. Three metrics by function; by version, for the alarms that roll a
deployment back, the server errors once more and the time that a prediction took without its
download. No more, since each combination costs money: routes, classes and error codes are fields,
to be counted with Logs Insights. Names are those of Powertools' Logger (level, timestamp, service,
cold_start, exception).

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

A picture is never logged, and of an address neither credentials nor query string: signed URLs
are keys.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import traceback
import urllib.parse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lambda_function.errors import ServiceError
    from lambda_function.settings import Settings

MAX_URL_CHARS = 500
MAX_REASONS = 5  # of a batch's pictures, each once
_SERVER_ERROR = {"Name": "ServerError", "Unit": "Count"}
_OWN_TIME = {"Name": "OwnTime", "Unit": "Milliseconds"}
_METRICS = (
    {"Name": "Latency", "Unit": "Milliseconds"},
    _SERVER_ERROR,
    {"Name": "ColdStart", "Unit": "Count"},
)


class RequestLog:
    """Gathers what is known about one request; ``write`` makes the line.

    Example::

        log = RequestLog(settings, request_id="c6af", cold_start=True)
        log.add(route="POST /predict", status=200)
        log.write(write_line)
    """

    def __init__(self, settings: Settings, *, request_id: str, cold_start: bool) -> None:
        self._settings = settings
        self._cold_start = cold_start
        self._fields: dict[str, Any] = {"request_id": request_id}
        self._failed = False

    def add(self, **fields: Any) -> None:
        """Add fields to the line; None is left out."""
        self._fields |= {name: value for name, value in fields.items() if value is not None}

    def add_own_time(self, own_ms: float) -> None:
        """Count what one prediction took, strangers' servers left out: a metric by version."""
        self._fields["OwnTime"] = round(own_ms, 1)

    def add_reason(self, error: ServiceError) -> None:
        """Add why a picture was not to be had, with the class of what lay beneath.

        Such a text is in our own words; of the caller's it holds a host's name at most.
        """
        beneath = type(error.__cause__).__name__ if error.__cause__ else type(error).__name__
        reasons: list[str] = self._fields.setdefault("reasons", [])
        text = f"{error.detail} ({beneath})"
        if text not in reasons and len(reasons) < MAX_REASONS:
            reasons.append(text)

    def add_failure(self, error: BaseException) -> None:
        """Add an unexpected error's traceback: makes this a server error."""
        self._failed = True
        self._fields["exception_name"] = type(error).__name__
        self._fields["exception"] = "".join(traceback.format_exception(error))

    def line(self, latency_ms: float) -> str:
        """Return the JSON line."""
        now = time.time()
        stamp = datetime.datetime.fromtimestamp(now, datetime.UTC).isoformat(
            timespec="milliseconds"
        )
        fields = {
            "level": "ERROR" if self._failed else "INFO",
            "timestamp": stamp.replace("+00:00", "Z"),
            "message": "request failed" if self._failed else "request",
            "service": self._settings.function_name,
            "function_version": self._settings.function_version,
            "cold_start": self._cold_start,
            **self._fields,
            "Latency": latency_ms,
            "ServerError": int(self._failed),
            "ColdStart": int(self._cold_start),
        }
        if self._settings.metrics_namespace:
            fields["_aws"] = _emf(self._settings.metrics_namespace, now, own="OwnTime" in fields)
        return json.dumps(fields, default=str)


def write_line(line: str) -> None:
    """Write one line to where Lambda collects logs."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def redact_url(url: str) -> str:
    """Return an address without credentials and with its query string blacked out.

    Of anything but http, https and s3 nothing is shown: a ``data:`` address is a picture. Nor of
    one whose host and port do not parse: a ``/`` in a password makes them look like this.

    >>> redact_url("https://me:secret@example.com/a.jpg?X-Amz-Signature=1f#x")
    'https://example.com/a.jpg?REDACTED'
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        _ = parts.port  # raises on anything but a number
    except ValueError:
        return "unreadable"
    if parts.scheme not in ("http", "https", "s3"):
        return "unreadable"
    query = "?REDACTED" if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{query}"[:MAX_URL_CHARS]


def _emf(namespace: str, now_s: float, *, own: bool) -> dict[str, Any]:
    def directive(dimensions: list[str], metrics: list[dict[str, str]]) -> dict[str, Any]:
        return {"Namespace": namespace, "Dimensions": [dimensions], "Metrics": metrics}

    return {
        "Timestamp": int(now_s * 1000),
        "CloudWatchMetrics": [
            directive(["service"], list(_METRICS)),
            directive(["service", "function_version"], [_SERVER_ERROR, *([_OWN_TIME] * own)]),
        ],
    }
