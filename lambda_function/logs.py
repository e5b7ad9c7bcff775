"""One JSON line per request, which is log entry and CloudWatch metrics in one.

The line follows CloudWatch's embedded metric format (EMF). Its ``_aws`` part tells CloudWatch
which fields are metrics. There are three metrics by function. Two more are by version, for the
alarms that roll a deployment back: the server errors, and the time of a prediction without its
download. Each combination costs money, so routes, classes and error codes are plain fields. Count
them with Logs Insights. Field names are those of Powertools' Logger (level, timestamp, service).

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

Images are never logged. URLs are logged without credentials and query string, since a signed URL
is a key.
"""

from __future__ import annotations

import datetime
import json
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

from lambda_function.errors import DeadlineError, FetchError, to_service_error

if TYPE_CHECKING:
    from lambda_function.settings import Settings

MAX_REASONS = 5  # of a batch's images, each once
_SERVER_ERROR = {"Name": "ServerError", "Unit": "Count"}
_OWN_TIME = {"Name": "OwnTime", "Unit": "Milliseconds"}
_METRICS = (
    {"Name": "Latency", "Unit": "Milliseconds"},
    _SERVER_ERROR,
    {"Name": "ColdStart", "Unit": "Count"},
)


class RequestLog:
    """Collects the fields of one request's log line.

    Attributes:
        fields: so far. None values are left out of the line.

    Example::

        log = RequestLog(settings, request_id="c6af", model_version="1.0.0", cold_start=True)
        log.fields["status"] = 200
        write_line(log.line(latency_ms=31.2))
    """

    def __init__(
        self, settings: Settings, *, request_id: str, model_version: str, cold_start: bool
    ) -> None:
        self._settings = settings
        self._cold_start = cold_start
        self.fields: dict[str, Any] = {"request_id": request_id, "model_version": model_version}
        self._failed = False

    def add_error(self, error: Exception) -> None:
        """Add what an error tells the operator.

        A failed download adds its reason and the type of the underlying exception. Of the caller's
        text a reason holds at most a host name. An unexpected error adds its traceback. Other
        errors of the service add nothing.
        """
        if to_service_error(error) is not error:
            self._failed = True
            self.fields["exception_name"] = type(error).__name__
            self.fields["exception"] = "".join(traceback.format_exception(error))
        elif isinstance(error, FetchError | DeadlineError):
            reasons: list[str] = self.fields.setdefault("reasons", [])
            reason = f"{error.reason} ({type(error.__cause__ or error).__name__})"
            if reason not in reasons and len(reasons) < MAX_REASONS:
                reasons.append(reason)

    def line(self, latency_ms: float) -> str:
        """Return the JSON line.

        Args:
            latency_ms: how long the request took.
        """
        now_s = time.time()
        moment = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        fields = {
            "level": "ERROR" if self._failed else "INFO",
            "timestamp": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "message": "request failed" if self._failed else "request",
            "service": self._settings.function_name,
            "function_version": self._settings.function_version,
            "cold_start": self._cold_start,
            **{name: value for name, value in self.fields.items() if value is not None},
            "Latency": latency_ms,
            "ServerError": int(self._failed),
            "ColdStart": int(self._cold_start),
        }
        if self._settings.metrics_namespace:
            by_version = [_SERVER_ERROR, _OWN_TIME] if "OwnTime" in fields else [_SERVER_ERROR]
            fields["_aws"] = _emf(self._settings.metrics_namespace, now_s, by_version)
        return json.dumps(fields, default=str)


def write_line(line: str) -> None:
    """Write one line to where Lambda collects logs."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _emf(namespace: str, now_s: float, by_version: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "Timestamp": int(now_s * 1000),
        "CloudWatchMetrics": [
            {
                "Namespace": namespace,
                "Dimensions": [["service"]],
                "Metrics": list(_METRICS),
            },
            {
                "Namespace": namespace,
                "Dimensions": [["service", "function_version"]],
                "Metrics": by_version,
            },
        ],
    }
