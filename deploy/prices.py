"""AWS's list prices, dated, and what a million predictions cost at them.

Source: https://aws.amazon.com/lambda/pricing/, region US East (N. Virginia), first tier, without
the free tier. That page fills its figures in by script; they were read from public quotations of
it, which agree from 2024 to 2026. What stands in front of the function (API Gateway, data
transfer) costs the same for every handler and is left out.
"""

from __future__ import annotations

import math

DATE = "2026"
SOURCE = "https://aws.amazon.com/lambda/pricing/"
REGION = "US East (N. Virginia)"
USD_PER_GB_SECOND = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
USD_PER_REQUEST = 0.20 / 1e6


def usd_per_million(
    duration_s: float, *, memory_mb: int, architecture: str, pictures_per_request: int = 1
) -> float:
    """Return the price of a million pictures.

    Args:
        duration_s: of one request; billed in whole milliseconds, rounded up.
        memory_mb: of the function.
        architecture: a key of ``USD_PER_GB_SECOND``.
        pictures_per_request: in one such request.

    >>> round(usd_per_million(0.1, memory_mb=1024, architecture="x86_64"), 4)
    1.8667
    """
    billed_s = math.ceil(round(duration_s * 1000, 6)) / 1000
    gb_seconds = billed_s * memory_mb / 1024
    request = gb_seconds * USD_PER_GB_SECOND[architecture] + USD_PER_REQUEST
    return request / pictures_per_request * 1e6
