"""S3 objects: from moto's server if S3 behaves, from our own server if it does not."""

from __future__ import annotations

import concurrent.futures
import gzip
import hashlib
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from lambda_function.errors import (
    AddressNotAllowedError,
    DeadlineError,
    FetchError,
    TooLargeError,
)
from lambda_function.fetching import s3
from lambda_function.fetching.errors import UnusableResponseError
from lambda_function.fetching.s3 import ModelDownloadError, download_model, read_object
from tests.support.aws import invent_account, moto_server
from tests.support.processes import run_python
from tests.support.servers import LoopbackServer, Stage, answer, drip, redirect, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.servers import Play

SECRET = "not-a-secret-but-must-not-show"
BUCKETS = frozenset({"pics", "gone"})
SLACK_S = 3.0  # that a busy machine may add to a deadline
MODEL = b"TFL3" + bytes(100_000)
SHA256 = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An environment with invented credentials and without cached clients."""
    invent_account(monkeypatch, AWS_SECRET_ACCESS_KEY=SECRET, AWS_DEFAULT_REGION="eu-west-1")
    s3._clients.clear()
    yield monkeypatch
    s3._clients.clear()


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as address:
        yield address


@pytest.fixture
def bucket(aws: pytest.MonkeyPatch, moto: str) -> Any:
    """A boto3 client of the emulated S3, which has a bucket ``pics``."""
    aws.setenv("AWS_ENDPOINT_URL_S3", moto)
    client = boto3.client("s3")
    client.create_bucket(
        Bucket="pics", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )
    yield client
    for item in client.list_objects_v2(Bucket="pics").get("Contents", []):
        client.delete_object(Bucket="pics", Key=item["Key"])
    client.delete_bucket(Bucket="pics")
    client.close()


def read(uri: str, *, max_bytes: int = 10**6, deadline_s: float = 30.0) -> bytes:
    return read_object(
        uri, buckets=BUCKETS, max_bytes=max_bytes, deadline=time.monotonic() + deadline_s
    )


class S3:
    """A server that answers every request of ``GET /pics/a.jpg`` with the next of these plays."""

    def __init__(self, aws: pytest.MonkeyPatch, *plays: Play) -> None:
        self._plays = list(plays)
        self._aws = aws
        self.paths: list[str] = []

    def __enter__(self) -> S3:
        self._server = LoopbackServer({}, default=self._play)
        self._aws.setenv("AWS_ENDPOINT_URL_S3", f"http://{self._server.host}")
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def _play(self, stage: Stage) -> None:
        self.paths.append(stage.head.split(b" ")[1].decode())
        play = self._plays.pop(0) if len(self._plays) > 1 else self._plays[0]
        play(stage)


# --- images -----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a.jpg", "a/b/c.jpg", "a b+c%20?d=e#f&g.jpg", "été/été.jpg"])
def test_an_object_is_returned_unchanged(bucket: Any, key: str) -> None:
    bucket.put_object(Bucket="pics", Key=key, Body=b"image")
    assert read(f"s3://pics/{key}") == b"image"
    assert read(f"S3://pics/{key}") == b"image"


@pytest.mark.parametrize(
    "encoding", ["base64", "aws-chunked", "utf-8", "binary", "none", "gzip", "aws-chunked,gzip"]
)
def test_an_object_with_a_careless_encoding_is_read(bucket: Any, encoding: str) -> None:
    packed = "gzip" in encoding
    body = gzip.compress(b"image") if packed else b"image"
    bucket.put_object(Bucket="pics", Key="a.jpg", Body=body, ContentEncoding=encoding)
    assert read("s3://pics/a.jpg") == b"image"


def test_damaged_gzip_is_a_failed_fetch_of_one_object(bucket: Any) -> None:
    body = gzip.compress(b"image") + b"more"
    bucket.put_object(Bucket="pics", Key="a.jpg", Body=body, ContentEncoding="gzip")
    with pytest.raises(UnusableResponseError, match="bytes after the gzip data"):
        read("s3://pics/a.jpg")


def test_exactly_max_bytes_are_accepted_and_one_more_is_refused(bucket: Any) -> None:
    bucket.put_object(Bucket="pics", Key="a.jpg", Body=bytes(1000))
    assert len(read("s3://pics/a.jpg", max_bytes=1000)) == 1000
    with pytest.raises(TooLargeError):
        read("s3://pics/a.jpg", max_bytes=999)


@pytest.mark.parametrize(
    "name", ["other", "PICS", "pics.", "pics@other", "pics:80", "..", "%70ics"]
)
def test_other_buckets_are_refused_without_a_request(name: str) -> None:
    """There is no server and there are no credentials."""
    with pytest.raises(AddressNotAllowedError):
        read(f"s3://{name}/a.jpg")


def test_missing_and_forbidden_objects_return_the_same_error(
    bucket: Any, aws: pytest.MonkeyPatch
) -> None:
    def told(uri: str) -> tuple[int, str, str]:
        with pytest.raises(FetchError) as caught:
            read(uri)
        return caught.value.status, caught.value.code, caught.value.detail

    answers = {told("s3://pics/missing.jpg"), told("s3://gone/a.jpg")}
    s3._clients.clear()
    with S3(aws, answer(b"<Error/>", status="403 Forbidden")):
        answers.add(told("s3://pics/a.jpg"))
    assert len(answers) == 1
    assert answers.pop()[:2] == (502, "fetch_failed")


def test_without_credentials_nothing_is_read_and_only_the_operator_is_told_why(
    aws: pytest.MonkeyPatch,
) -> None:
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY")
    with S3(aws, answer(b"image")) as server, pytest.raises(FetchError) as caught:
        read("s3://pics/a.jpg")
    assert server.paths == []
    assert caught.value.reason == s3.NO_CREDENTIALS
    assert "aws" not in json.dumps(caught.value.to_dict()).lower()


def test_the_operator_is_told_what_s3_or_the_configuration_says(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, answer(b"<Error/>", status="403 x")), pytest.raises(FetchError) as caught:
        read("s3://pics/a.jpg")
    assert "403 (Forbidden)" in caught.value.reason

    s3._clients.clear()
    aws.setenv("AWS_PROFILE", "absent")
    with pytest.raises(FetchError, match="no such S3 object") as caught:
        read("s3://pics/a.jpg")
    assert "The config profile (absent) could not be found" in caught.value.reason
    assert "absent" not in caught.value.detail


def test_an_unreachable_s3_is_a_failed_fetch(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ENDPOINT_URL_S3", "http://s3.invalid")
    with pytest.raises(FetchError) as caught:
        read("s3://pics/a.jpg")
    assert caught.value.code == "fetch_failed"


def test_the_request_is_signed_and_the_signature_stays_out_of_errors(
    aws: pytest.MonkeyPatch,
) -> None:
    aws.setenv("AWS_SESSION_TOKEN", "session")
    server = S3(aws, answer(b"no", status="418 I'm a teapot"))
    with server, pytest.raises(FetchError) as caught:
        read("s3://pics/a.jpg")
    asked = urlsplit(server.paths[0])
    query = parse_qs(asked.query)
    assert asked.path == "/pics/a.jpg"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Security-Token"] == ["session"]
    assert SECRET not in asked.query
    assert query["X-Amz-Signature"][0] not in caught.value.detail
    assert "418" in caught.value.detail


# --- S3 in trouble ----------------------------------------------------------------------

BUSY = answer(b"<Error><Code>SlowDown</Code></Error>", status="503 Slow Down")


def test_a_busy_s3_is_retried(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, BUSY, answer(status="500 x"), answer(b"image")) as server:
        assert read("s3://pics/a.jpg") == b"image"
    assert len(server.paths) == 3


def test_a_failing_s3_is_asked_three_times_and_named(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, BUSY) as server, pytest.raises(FetchError, match="503"):
        read("s3://pics/a.jpg")
    assert len(server.paths) == 3


def test_s3_is_not_retried_if_no_time_is_left(aws: pytest.MonkeyPatch) -> None:
    aws.setattr(s3, "RETRY_PAUSES_S", (600.0,))
    with S3(aws, BUSY) as server, pytest.raises(FetchError, match="503"):
        read("s3://pics/a.jpg")
    assert len(server.paths) == 1


def _client_ready() -> float:
    """Make the client first, because that may take a second on a busy machine."""
    s3._client(None)
    return time.monotonic()


def test_a_bucket_in_another_region_is_read_there(aws: pytest.MonkeyPatch) -> None:
    elsewhere = answer(
        status="301 Moved Permanently", headers={"x-amz-bucket-region": "ap-south-1"}
    )
    with S3(aws, elsewhere, answer(b"image")) as server:
        assert read("s3://pics/a.jpg") == b"image"
    regions = [parse_qs(path)["X-Amz-Credential"][0].split("/")[2] for path in server.paths]
    assert regions == ["eu-west-1", "ap-south-1"]


def test_a_redirect_is_not_followed(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, redirect("/elsewhere", status="307 x")) as server, pytest.raises(FetchError):
        read("s3://pics/a.jpg")
    assert len(server.paths) == 1


def test_a_bucket_that_is_always_elsewhere_is_not_found(aws: pytest.MonkeyPatch) -> None:
    def elsewhere(stage: Stage) -> None:
        here = "us-east-1" if b"ap-south-1" in stage.head else "ap-south-1"
        answer(status="301 x", headers={"x-amz-bucket-region": here})(stage)

    with S3(aws, elsewhere) as server, pytest.raises(FetchError, match="no such S3 object"):
        read("s3://pics/a.jpg")
    assert len(server.paths) == 3


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(silent, id="silence"),
        pytest.param(
            drip(b"z", first=b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"), id="drip"
        ),
    ],
)
def test_a_slow_s3_ends_at_the_deadline(aws: pytest.MonkeyPatch, play: Play) -> None:
    with S3(aws, play):
        start = _client_ready()
        with pytest.raises(DeadlineError):
            read("s3://pics/a.jpg", deadline_s=0.3)
        assert time.monotonic() - start < 0.3 + SLACK_S


def test_after_the_deadline_nothing_is_asked(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, answer(b"image")) as server, pytest.raises(DeadlineError):
        read("s3://pics/a.jpg", deadline_s=-1)
    assert server.paths == []
    assert not s3._clients  # making one takes a second


def test_several_threads_may_read_first(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, answer(b"image")), concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: read("s3://pics/a.jpg"), range(16)))
    assert got == [b"image"] * 16
    assert len(s3._clients) == 1


# --- models -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        f"clothing-1.0.0-{SHA256}.tflite",
        f"models/{SHA256.upper()}/model.tflite",
        f"{SHA256}",
    ],
)
def test_a_model_with_the_sha256_of_its_name_is_returned(bucket: Any, key: str) -> None:
    bucket.put_object(Bucket="pics", Key=key, Body=MODEL)
    assert download_model(f"s3://pics/{key}") == MODEL


def test_a_model_with_another_sha256_than_its_name_is_refused(bucket: Any) -> None:
    uri = f"s3://pics/{SHA256}.tflite"
    bucket.put_object(Bucket="pics", Key=f"{SHA256}.tflite", Body=MODEL[:-1])
    with pytest.raises(ModelDownloadError) as caught:
        download_model(uri)
    message = str(caught.value)
    assert uri in message
    assert f"Expected SHA-256: {SHA256}" in message
    assert f"Received: {hashlib.sha256(MODEL[:-1]).hexdigest()}, 100,003 bytes" in message


def test_a_missing_model_is_named(bucket: Any) -> None:
    with pytest.raises(ModelDownloadError, match=f"MODEL_URI=s3://pics/{SHA256}.*no such S3"):
        download_model(f"s3://pics/{SHA256}")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://pics/model.tflite",
        f"s3://pics/{SHA256[:-1]}.tflite",
        f"s3://pics/{SHA256}0.tflite",
        f"s3://pics/{SHA256}/{SHA256}.tflite",
        f"s3://{SHA256}/model.tflite",
    ],
)
def test_a_model_name_without_one_sha256_is_refused(uri: str) -> None:
    with pytest.raises(ModelDownloadError, match="64 hexadecimal digits"):
        download_model(uri)


def test_another_address_than_s3_names_no_model() -> None:
    with pytest.raises(ModelDownloadError, match="s3://bucket/key"):
        download_model(f"https://pics/{SHA256}")


def test_a_model_that_does_not_arrive_in_time_is_named(aws: pytest.MonkeyPatch) -> None:
    with S3(aws, silent):
        _client_ready()
        with pytest.raises(ModelDownloadError, match="too slow"):
            download_model(f"s3://pics/{SHA256}", timeout_s=0.2)


def test_importing_s3_does_not_import_boto3() -> None:
    code = "import sys, lambda_function.fetching.s3; print([m for m in sys.modules if 'boto' in m])"
    assert run_python("-c", code, check=True).stdout.strip() == "[]"
