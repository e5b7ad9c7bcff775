"""What predictions cost at AWS's list prices, from one measured figure: `make costs`, or::

    python -m deploy.costs --ms 250    # prints the tables for your own figure
    python -m deploy.costs --write     # puts ours into docs/deploy-reference.md

The figure is the milliseconds of one warm request for one picture on one vCPU (1,769 MB); by
default the median in benchmarks/results/compare.json, which a test holds the document to.
Prices are those of US East (N. Virginia), first tier, without the free tier; Lambda's are in
deploy/prices.py, the others below, each with its page. arm64 is priced at the same duration,
which has not been measured.
"""

from __future__ import annotations

import argparse
import json
import math
import sys

from deploy.prices import usd_per_million
from lambda_function import REPOSITORY
from training.files import replace_marked

DOCUMENT = REPOSITORY / "docs" / "deploy-reference.md"
COMPARED = REPOSITORY / "benchmarks" / "results" / "compare.json"
BEGIN, END = "<!-- costs: written by `make costs` -->", "<!-- end of costs -->"
MEMORY_MB = 1769
MILLION = 1_000_000
HTTP_API_USD_PER_MILLION = 1.00  # https://aws.amazon.com/api-gateway/pricing/ (up to 512 KB each)
# Of a request: our line has about 1,000, Lambda's START, END and REPORT 400, the gateway's access
# log 500, its own 26 bytes of overhead a line included.
LOG_BYTES = 1900
LOGS_USD_PER_GB = 0.50  # https://aws.amazon.com/cloudwatch/pricing/ (ingestion, standard class)
S3_GET_USD = 0.40 / MILLION  # https://aws.amazon.com/s3/pricing/
S3_LIST_USD = 5.00 / MILLION  # of 1,000 keys each
# https://aws.amazon.com/step-functions/pricing/
STANDARD_TRANSITION_USD = 25.00 / MILLION
EXPRESS_REQUEST_USD = 1.00 / MILLION
EXPRESS_GB_SECOND_USD = 0.00001667
EXPRESS_MEMORY_GB = 0.0625  # 64 MB is the least that is billed
S3_READ_MS = 5.0  # of each picture that does not overlap inference: an assumption


def request_rows(ms: float) -> list[tuple[str, float, float]]:
    """Return (what, USD on x86_64, USD on arm64) for a million single requests."""
    compute = [
        usd_per_million(ms / 1000, memory_mb=MEMORY_MB, architecture=a) for a in ("x86_64", "arm64")
    ]
    logs = LOG_BYTES * MILLION / 1e9 * LOGS_USD_PER_GB
    rows = [
        ("Lambda, duration and requests", *compute),
        ("HTTP API", HTTP_API_USD_PER_MILLION, HTTP_API_USD_PER_MILLION),
        ("logs", logs, logs),
    ]
    totals = [sum(row[i] for row in rows) for i in (1, 2)]
    return [*rows, ("**together**", totals[0], totals[1])]


def bulk_rows(ms: float, *, batch_size: int = 40) -> list[tuple[str, float, float]]:
    """Return (what, USD on x86_64, USD on arm64) for a million images in a bulk run."""
    batches = math.ceil(MILLION / batch_size)
    batch_s = batch_size * (ms + S3_READ_MS) / 1000
    compute = [
        usd_per_million(
            batch_s, memory_mb=MEMORY_MB, architecture=a, pictures_per_request=batch_size
        )
        for a in ("x86_64", "arm64")
    ]
    s3 = MILLION * S3_GET_USD + MILLION / 1000 * S3_LIST_USD
    express = batches * (EXPRESS_REQUEST_USD + batch_s * EXPRESS_MEMORY_GB * EXPRESS_GB_SECOND_USD)
    steps = batches * STANDARD_TRANSITION_USD + express
    rows = [
        ("Lambda, duration and requests", *compute),
        ("Step Functions", steps, steps),
        ("S3, reading and listing", s3, s3),
    ]
    totals = [sum(row[i] for row in rows) for i in (1, 2)]
    return [*rows, ("**together**", totals[0], totals[1])]


def bulk_minutes(ms: float, concurrency: int) -> float:
    """Return how long a million images take with so many calls at once."""
    return MILLION * (ms + S3_READ_MS) / 1000 / concurrency / 60


def tables(ms: float) -> str:
    """Return the two tables as Markdown."""
    return "\n".join(
        [
            f"A million requests of one picture, {ms:g} ms each at {MEMORY_MB:,} MB, in USD:",
            "",
            *_table(request_rows(ms)),
            "",
            f"A million pictures in a bulk run, batches of 40, {ms:g} + {S3_READ_MS:g} ms each:",
            "",
            *_table(bulk_rows(ms)),
            "",
            f"Such a run takes {bulk_minutes(ms, 100):.0f} minutes at `MaxConcurrency=100` and "
            f"{bulk_minutes(ms, 1000):.1f} at 1,000.",
        ]
    )


def put_into(document: str, ms: float) -> str:
    """Return a document with the tables between its markers.

    Raises:
        ValueError: the markers are not there.
    """
    return replace_marked(document, (BEGIN, END), tables(ms))


def measured_ms() -> float:
    """Return the median of our warm requests, as ``make benchmark`` measured it."""
    compared = json.loads(COMPARED.read_text())
    return round(float(compared["peers"]["ours"]["warm_s"]["median"]) * 1000, 1)


def _table(rows: list[tuple[str, float, float]]) -> list[str]:
    lines = ["| | x86_64 | arm64 |", "| --- | ---: | ---: |"]
    return lines + [f"| {what} | {x86:.2f} | {arm:.2f} |" for what, x86, arm in rows]


def main(arguments: list[str] | None = None) -> int:
    """Print or write the tables; see the module."""
    parser = argparse.ArgumentParser(prog="python -m deploy.costs", description=__doc__)
    parser.add_argument("--ms", type=float, help="default: what was measured")
    parser.add_argument("--write", action="store_true", help="into docs/deploy-reference.md")
    options = parser.parse_args(arguments)
    ms = options.ms or measured_ms()
    if options.write:
        DOCUMENT.write_text(put_into(DOCUMENT.read_text(), ms))
    print(tables(ms))
    return 0


if __name__ == "__main__":
    sys.exit(main())
