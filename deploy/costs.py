"""What predictions cost at AWS's list prices, computed from one measured figure.

    python -m deploy.costs --ms 250    # prints the tables for your own figure
    python -m deploy.costs --write     # writes tables and price for ours into README.md and docs/

The figure is the milliseconds of one warm request for one image on one vCPU (1,769 MB). The default
is the median in benchmarks/results/compare.json. A test compares the documents with that file.

Prices are those of US East (N. Virginia), first tier, without the free tier. AWS's Lambda page
fills its figures in by script. They were read from public quotations of the page, which agree from
2024 to 2026. arm64 is priced at the duration of x86_64, because its duration was not measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

from lambda_function import REPOSITORY

DATE = "2026"
SOURCE = "https://aws.amazon.com/lambda/pricing/"
REGION = "US East (N. Virginia)"
MILLION = 1_000_000
USD_PER_GB_SECOND = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
USD_PER_REQUEST = 0.20 / MILLION
# Counted in steps of 512 KB: https://aws.amazon.com/api-gateway/pricing/
HTTP_API_USD_PER_STEP = 1.00 / MILLION
HTTP_API_STEP_BYTES = 512 * 1024
# Of one request. The function's line has about 1,000 bytes. Lambda's START, END and REPORT have
# 400. The gateway's access log has 500. Each line adds 26 bytes of overhead.
LOG_BYTES = 1900
LOGS_USD_PER_GB = 0.50  # https://aws.amazon.com/cloudwatch/pricing/ (ingestion, standard class)
S3_GET_USD = 0.40 / MILLION  # https://aws.amazon.com/s3/pricing/
S3_LIST_USD = 5.00 / MILLION  # of 1,000 keys each
# https://aws.amazon.com/step-functions/pricing/
STANDARD_TRANSITION_USD = 25.00 / MILLION
EXPRESS_REQUEST_USD = 1.00 / MILLION
EXPRESS_GB_SECOND_USD = 0.00001667
EXPRESS_MEMORY_GB = 0.0625  # AWS bills at least 64 MB
S3_READ_MS = 5.0  # of each image, not overlapped by inference (an assumption)
BATCH_SIZE = 40  # images in one call of a bulk run
MEMORY_MB = 1769
MAX_DURATION_MS = 900_000

REFERENCE = REPOSITORY / "docs" / "deploy-reference.md"
COMPARED = REPOSITORY / "benchmarks" / "results" / "compare.json"
BEGIN, END = "<!-- costs: written by `python -m deploy.costs --write` -->", "<!-- end of costs -->"
Row = tuple[str, float, float]


def billed_ms(duration_s: float) -> int:
    """Return what Lambda bills for a request: whole milliseconds, rounded up.

    >>> billed_ms(0.18901)
    190
    """
    return math.ceil(round(duration_s * 1000, 6))


def usd_per_million(
    duration_s: float, *, memory_mb: int, architecture: str, images_per_request: int = 1
) -> float:
    """Return Lambda's price of a million images.

    Args:
        duration_s: of one request.
        memory_mb: of the function.
        architecture: a key of ``USD_PER_GB_SECOND``.
        images_per_request: how many images one such request classifies.

    >>> round(usd_per_million(0.1, memory_mb=1024, architecture="x86_64"), 4)
    1.8667
    """
    gb_seconds = billed_ms(duration_s) / 1000 * memory_mb / 1024
    request = gb_seconds * USD_PER_GB_SECOND[architecture] + USD_PER_REQUEST
    return request / images_per_request * MILLION


def http_api_usd_per_million(body_bytes: int = 1) -> float:
    """Return the HTTP API's price of a million requests with a body of so many bytes.

    >>> http_api_usd_per_million(4_500_000)
    9.0
    """
    return max(1, math.ceil(body_bytes / HTTP_API_STEP_BYTES)) * HTTP_API_USD_PER_STEP * MILLION


def request_rows(ms: float) -> list[Row]:
    """Return the costs of a million requests with one image each.

    Args:
        ms: duration of one request in milliseconds.

    Returns:
        Rows of (what, USD on x86_64, USD on arm64). The last row is the sum.
    """
    x86, arm = (
        usd_per_million(ms / 1000, memory_mb=MEMORY_MB, architecture=architecture)
        for architecture in ("x86_64", "arm64")
    )
    api = http_api_usd_per_million()
    logs = LOG_BYTES * MILLION / 1e9 * LOGS_USD_PER_GB
    return _with_sum(
        [("Lambda, duration and requests", x86, arm), ("HTTP API", api, api), ("logs", logs, logs)]
    )


def bulk_rows(ms: float) -> list[Row]:
    """Return the costs of a million images in a bulk run.

    Args:
        ms: duration for one image in milliseconds, without the download from S3.

    Returns:
        Rows as those of ``request_rows``.
    """
    batches = math.ceil(MILLION / BATCH_SIZE)
    batch_s = BATCH_SIZE * (ms + S3_READ_MS) / 1000
    x86, arm = (
        usd_per_million(
            batch_s, memory_mb=MEMORY_MB, architecture=architecture, images_per_request=BATCH_SIZE
        )
        for architecture in ("x86_64", "arm64")
    )
    s3 = MILLION * S3_GET_USD + MILLION / 1000 * S3_LIST_USD
    express = batches * (EXPRESS_REQUEST_USD + batch_s * EXPRESS_MEMORY_GB * EXPRESS_GB_SECOND_USD)
    steps = batches * STANDARD_TRANSITION_USD + express
    return _with_sum(
        [
            ("Lambda, duration and requests", x86, arm),
            ("Step Functions", steps, steps),
            ("S3, reading and listing", s3, s3),
        ]
    )


def bulk_minutes(ms: float, concurrency: int) -> float:
    """Return how many minutes a million images take at a number of concurrent calls."""
    return MILLION * (ms + S3_READ_MS) / 1000 / concurrency / 60


def tables(ms: float) -> str:
    """Return both tables as Markdown for a request that takes so many milliseconds."""
    return "\n".join(
        [
            f"A million requests of one image, {ms:g} ms each at {MEMORY_MB:,} MB, in USD:",
            "",
            *_table(request_rows(ms)),
            "",
            f"A million images in a bulk run, batches of {BATCH_SIZE}, {ms:g} + {S3_READ_MS:g} ms "
            "each:",
            "",
            *_table(bulk_rows(ms)),
            "",
            f"Such a run takes {bulk_minutes(ms, 100):.0f} minutes at `MaxConcurrency=100` and "
            f"{bulk_minutes(ms, 1000):.1f} at 1,000.",
        ]
    )


def price(ms: float) -> str:
    """Return the price of a million requests as one sentence, with what it is made of."""
    (_, function, _), (_, api, _), (_, logs, _), (_, together, _) = request_rows(ms)
    return (
        f"A million predictions cost about **{together:.2f} USD**: Lambda {function:.2f}, the HTTP "
        f"API {api:.2f},\nand logs {logs:.2f} (x86_64, {ms:g} ms each, list prices without the "
        "free tier)."
    )


# What `--write` writes between the markers of each document.
DOCUMENTS: dict[Path, Callable[[float], str]] = {
    REFERENCE: tables,
    REPOSITORY / "docs" / "deploy.md": price,
    REPOSITORY / "README.md": price,
}


def put_into(document: str, text: str) -> str:
    """Return a document with a text between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The document has no {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def measured_ms() -> float:
    """Return the milliseconds that Lambda bills for our median warm request, as measured.

    ``benchmarks compare`` prices the same duration.
    """
    compared = json.loads(COMPARED.read_text())
    lane = next(iter(compared["handlers"].values()))  # the one that is nearest to Lambda: AVX2
    return billed_ms(float(lane["ours"]["warm_s"]["median"]))


def _with_sum(rows: list[Row]) -> list[Row]:
    return [*rows, ("**together**", sum(row[1] for row in rows), sum(row[2] for row in rows))]


def _table(rows: list[Row]) -> list[str]:
    lines = ["| | x86_64 | arm64 |", "| --- | ---: | ---: |"]
    return lines + [f"| {what} | {x86:.2f} | {arm:.2f} |" for what, x86, arm in rows]


def _milliseconds(text: str) -> float:
    try:
        duration_ms = float(text)
    except ValueError:
        duration_ms = 0.0
    if not 0 < duration_ms <= MAX_DURATION_MS:
        raise argparse.ArgumentTypeError(
            f"must be above 0, and at most {MAX_DURATION_MS:,} (Lambda's longest). "
            f"Received: {text!r}"
        )
    return duration_ms


def main(arguments: list[str] | None = None) -> int:
    """Print the tables, and write them with --write. Returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.costs", description=__doc__)
    parser.add_argument("--ms", type=_milliseconds, help="default: the measured figure")
    parser.add_argument("--write", action="store_true", help="into README.md and docs/")
    options = parser.parse_args(arguments)
    ms = options.ms or measured_ms()
    if options.write:
        for path, written in DOCUMENTS.items():
            path.write_text(put_into(path.read_text(), written(ms)))
    print(tables(ms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
