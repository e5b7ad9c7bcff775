"""Uploads from a queue, through the real handler: what is written, and what is tried again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from lambda_function.errors import FetchError, TooLargeError
from lambda_function.fetching.urls import parse_s3_uri
from lambda_function.queue_events import ResultPlace, handle, lambda_handler, uploads
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Context, encode_image, recorded
from tests.support.aws import invent_account

if TYPE_CHECKING:
    from lambda_function.classifier import Classifier

PLACE = ResultPlace("results", "classified/")
SETTINGS = Settings(image_buckets=frozenset({"uploads", "results"}))


def stored(uri: str, **_: Any) -> bytes:
    """Stand for s3.read_object: the name of an object says what it is."""
    if uri.endswith("text.txt"):
        return b"no image at all"
    if uri.endswith("half.png"):
        return encode_image("red")[:60]
    if uri.endswith("huge.png"):
        raise TooLargeError("too large")
    if uri.endswith("throttled.png"):
        raise FetchError("S3 asks to slow down.")
    if uri.endswith("bug.png"):
        raise RuntimeError("not expected")
    return encode_image("red")


class Results:
    """A result bucket. ``broken`` makes every write fail."""

    def __init__(self, *, broken: bool = False) -> None:
        self.written: dict[str, dict[str, Any]] = {}
        self._broken = broken

    def put(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:  # noqa: N803
        if self._broken:
            raise OSError("no network")
        assert (Bucket, ContentType) == ("results", "application/json")
        self.written[Key] = json.loads(Body)


def message(number: int, *keys: str, bucket: str = "uploads") -> dict[str, Any]:
    records = [{"s3": {"bucket": {"name": bucket}, "object": {"key": key}}} for key in keys]
    return {"messageId": str(number), "body": json.dumps({"Records": records})}


def respond(
    tiny: Classifier, *messages: dict[str, Any], results: Results | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Return (written results, ids of the messages to send again)."""
    results = results or Results()
    service = Service(SETTINGS, tiny, read_object=stored)
    event = {"Records": list(messages)}
    response = handle(event, Context(), service, place=PLACE, put=results.put)
    return results.written, [item["itemIdentifier"] for item in response["batchItemFailures"]]


def test_an_upload_gives_a_result_under_its_key(tiny: Classifier) -> None:
    written, again = respond(tiny, message(1, "2026/red.png"))

    result = written["classified/2026/red.png.json"]
    assert again == []
    assert (result["bucket"], result["key"]) == ("uploads", "2026/red.png")
    assert result["predictions"][0]["label"] == "red"
    assert result["model"] == {"name": "tiny", "version": "1.2.3"}


def test_a_recorded_event_is_read_with_its_encoded_key(tiny: Classifier) -> None:
    written, again = respond(tiny, *recorded("sqs_s3_upload")["Records"])

    assert (list(written), again) == (["classified/2026/sub dir/red+é.png.json"], [])


# As S3 encodes them in a notification: https://docs.aws.amazon.com/AmazonS3/latest/userguide/
# notification-content-structure.html (form encoding, so a space is a plus sign)
ODD_KEYS = [
    ("a+b.png", "a b.png"),
    ("a%2Bb.png", "a+b.png"),
    ("100%2525.png", "100%25.png"),
    ("%F0%9F%91%95/%E5%B8%BD.png", "\N{T-SHIRT}/\u5e3d.png"),
    ("what%3Fx%3D1%23y.png", "what?x=1#y.png"),
    ("a//../b%26c%3Bd.png", "a//../b&c;d.png"),
    ("line%0Abreak.png", "line\nbreak.png"),
    ("%22quoted%22%5C.png", '"quoted"\\.png'),
]


@pytest.fixture
def _s3(monkeypatch: pytest.MonkeyPatch) -> None:
    invent_account(monkeypatch, RESULT_BUCKET="results")


@mock_aws
@pytest.mark.parametrize(("encoded", "key"), ODD_KEYS)
@pytest.mark.usefixtures("_s3")
def test_a_key_of_any_characters_gives_a_result_of_its_name(
    tiny: Classifier, encoded: str, key: str
) -> None:
    """The names that S3 was asked for come from S3 itself, here moto's."""
    s3 = boto3.client("s3")
    for bucket in ("uploads", "results"):
        s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket="uploads", Key=key, Body=encode_image("red"))

    def read(uri: str, **_: Any) -> bytes:
        bucket, name = parse_s3_uri(uri)
        body: bytes = s3.get_object(Bucket=bucket, Key=name)["Body"].read()
        return body

    service = Service(SETTINGS, tiny, read_object=read)
    event = {"Records": [message(1, encoded)]}
    response = handle(event, Context(), service, place=PLACE, put=s3.put_object)

    assert response == {"batchItemFailures": []}
    stored = s3.get_object(Bucket="results", Key=f"classified/{key}.json")["Body"].read()
    assert json.loads(stored)["key"] == key
    assert json.loads(stored)["predictions"][0]["label"] == "red"


@pytest.mark.parametrize(
    "body",
    ["", "null", "[]", "3", "{}", '{"Records": 1}', '{"Records": [{}]}', '{"Records": [null]}',
     '{"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": 5}}}]}', "\ud800"],
)  # fmt: skip
def test_a_poisoned_message_goes_back_alone(tiny: Classifier, body: str) -> None:
    poison = {"messageId": "1", "body": body}

    written, again = respond(tiny, poison, message(2, "a.png"))

    assert (list(written), again) == (["classified/a.png.json"], ["1"])


def test_a_key_too_long_for_a_result_is_tried_again_and_ends_among_the_dead_letters(
    tiny: Classifier,
) -> None:
    key = "k" * 1020 + ".png"

    class Strict(Results):
        def put(self, *, Key: str, **more: Any) -> None:  # noqa: N803
            if len(Key.encode()) > 1024:
                raise ValueError("KeyTooLongError")
            super().put(Key=Key, **more)

    assert respond(tiny, message(1, key), message(2, "a.png"), results=Strict())[1] == ["1"]


def test_the_test_event_and_folders_have_no_uploads() -> None:
    test = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "uploads"}
    folder = {"s3": {"bucket": {"name": "uploads"}, "object": {"key": "2026/", "size": 0}}}

    assert list(uploads(json.dumps(test))) == []
    assert list(uploads(json.dumps({"Records": [folder]}))) == []


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("text.txt", "unsupported_image"),
        ("half.png", "undecodable_image"),
        ("huge.png", "too_large"),
    ],
)
def test_a_permanent_error_is_a_result_and_not_tried_again(
    tiny: Classifier, key: str, code: str
) -> None:
    written, again = respond(tiny, message(1, key))

    assert again == []
    assert written[f"classified/{key}.json"]["code"] == code


@pytest.mark.parametrize("key", ["throttled.png", "bug.png"])
def test_another_error_is_tried_again_and_gives_no_result(tiny: Classifier, key: str) -> None:
    assert respond(tiny, message(1, key)) == ({}, ["1"])


def test_only_the_failed_messages_are_tried_again(tiny: Classifier) -> None:
    broken = {"messageId": "3", "body": "no JSON"}

    written, again = respond(
        tiny, message(1, "a.png"), message(2, "throttled.png"), broken, message(4, "b.png")
    )

    assert list(written) == ["classified/a.png.json", "classified/b.png.json"]
    assert again == ["2", "3"]


def test_a_result_that_cannot_be_written_is_tried_again(tiny: Classifier) -> None:
    assert respond(tiny, message(1, "a.png"), results=Results(broken=True))[1] == ["1"]


def test_a_result_is_never_classified(tiny: Classifier) -> None:
    """Else a wrong notification would classify its own results without end."""
    result = message(1, "classified/a.png.json", bucket="results")

    assert respond(tiny, result) == ({}, [])


@mock_aws
@pytest.mark.usefixtures("_s3")
def test_the_handler_reads_and_writes_s3(capsys: pytest.CaptureFixture[str]) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="results")
    event = {"Records": [message(1, "classified/a.json", bucket="results"), message(2, "a.png")]}

    # The shipped model's settings allow no bucket, so the second upload is a permanent error.
    assert lambda_handler(event, Context()) == {"batchItemFailures": []}

    stored = s3.get_object(Bucket="results", Key="classified/a.png.json")["Body"].read()
    assert json.loads(stored)["code"] == "address_not_allowed"
    assert '"route": "direct"' in capsys.readouterr().out
