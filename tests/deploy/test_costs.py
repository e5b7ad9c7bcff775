"""Costs, against sums done by hand from AWS's price pages."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy import costs


def test_a_million_requests_of_a_quarter_second() -> None:
    rows = {what: (x86, arm) for what, x86, arm in costs.request_rows(250)}
    # 1e6 x 0.25 s x 1769/1024 GB x 0.0000166667 + 0.20, and for arm64 x 0.0000133334 + 0.20
    assert rows["Lambda, duration and requests"] == pytest.approx((7.398, 5.959), abs=0.001)
    assert rows["HTTP API"] == (1.0, 1.0)
    assert rows["logs"] == pytest.approx((0.95, 0.95))
    assert rows["**together**"] == pytest.approx((9.348, 7.909), abs=0.001)


def test_a_million_images_in_bulk() -> None:
    rows = {what: (x86, arm) for what, x86, arm in costs.bulk_rows(245)}
    # 25,000 batches of 40 x 0.25 s = 10 s. Requests cost 25,000 x 0.20/1e6 = 0.005
    assert rows["Lambda, duration and requests"] == pytest.approx((7.203, 5.764), abs=0.001)
    # 25,000 x 25/1e6 = 0.625. 25,000/1e6 = 0.025. 25,000 x 10 x 0.0625 x 0.00001667 = 0.2605
    assert rows["Step Functions"] == pytest.approx((0.9105, 0.9105), abs=0.001)
    # 0.40 for reading, 1,000 listings x 5/1e6 = 0.005
    assert rows["S3, reading and listing"] == pytest.approx((0.405, 0.405))


@pytest.mark.parametrize(
    ("body_bytes", "usd"), [(1, 1.0), (512 * 1024, 1.0), (512 * 1024 + 1, 2.0), (4_500_000, 9.0)]
)
def test_the_gateway_counts_a_request_once_for_each_512_kb(body_bytes: int, usd: float) -> None:
    assert costs.http_api_usd_per_million(body_bytes) == pytest.approx(usd)


def test_time_of_a_bulk_run() -> None:
    assert costs.bulk_minutes(295, 100) == pytest.approx(50)  # 1e6 x 0.3 s / 100 = 3,000 s


@pytest.mark.release
@pytest.mark.parametrize("path", costs.DOCUMENTS, ids=lambda path: path.name)
def test_what_a_document_says_is_made_from_what_was_measured(path: Path) -> None:
    document = path.read_text()
    assert costs.put_into(document, costs.DOCUMENTS[path](costs.measured_ms())) == document


def test_the_price_names_its_parts() -> None:
    """By hand, at 100 ms and 1,769 MB: 0.1 x 1.7275 GB x 16.6667 + 0.20 = 3.08 USD for Lambda."""
    text = " ".join(costs.price(100).split())
    assert text.startswith("A million predictions cost about **5.03 USD**: Lambda 3.08, the HTTP ")
    assert "API 1.00, and logs 0.95 (x86_64, 100 ms each" in text


def test_a_document_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="costs"):
        costs.put_into("nothing here", "text")


def test_duration_is_billed_in_whole_milliseconds_rounded_up() -> None:
    # 0.1 GB-s x 1e6 x 0.0000166667 = 1.66667, and 0.20 for the requests
    usd = [
        costs.usd_per_million(s, memory_mb=1024, architecture="x86_64")
        for s in (0.1, 0.1001, 0.101)
    ]
    assert usd[0] == pytest.approx(1.86667)
    assert usd[1] == usd[2] > usd[0]


def test_the_images_of_a_batch_share_the_price_of_their_request() -> None:
    alone = costs.usd_per_million(1.6, memory_mb=1769, architecture="arm64")
    shared = costs.usd_per_million(1.6, memory_mb=1769, architecture="arm64", images_per_request=16)
    assert shared == pytest.approx(alone / 16)


@pytest.mark.parametrize("duration", ["abc", "nan", "-1", "0", "900001"])
def test_a_duration_that_lambda_cannot_bill_is_refused(
    duration: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        costs.main([f"--ms={duration}"])

    assert "must be above 0, and at most 900,000" in capsys.readouterr().err
