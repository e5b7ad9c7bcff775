"""Batches from Step Functions' Distributed Map, through the real handler, and with moto's S3."""

from __future__ import annotations

import gzip
import json
import time
from email.message import Message
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from lambda_function import app
from lambda_function.batches.bulk import Batch, RefusedBatchError, RetryBatchError, read_bulk_event
from lambda_function.errors import FetchError, TooLargeError
from lambda_function.fetching import s3
from lambda_function.fetching.errors import ServerStatusError
from lambda_function.service import Service
from lambda_function.settings import Settings
from tests.conftest import Api, encode_image, recorded
from tests.support.aws import invent_account, moto_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lambda_function.classifier import Classifier

SETTINGS = Settings(image_buckets=frozenset({"images"}))
OBJECTS = {"s3://images/red.png": "red", "s3://images/sub dir/blue+é.png": "blue"}


def event(*keys: str, bucket: Any = "images") -> dict[str, Any]:
    return {"BatchInput": {"bucket": bucket}, "Items": [{"Key": k, "Size": 9} for k in keys]}


def make_api(
    tiny: Classifier, read: Callable[..., bytes] = s3.read_object, *, remaining_s: float = 30.0
) -> Api:
    return Api(Service(SETTINGS, tiny, read_object=read), remaining_s=remaining_s)


def stored(uri: str, **_: Any) -> bytes:
    """Stand for s3.read_object over OBJECTS: a missing object gets S3's response."""
    if uri in OBJECTS:
        return encode_image(OBJECTS[uri])
    if uri.endswith("text.txt"):
        return b"no image at all"
    if uri.endswith("huge.png"):
        raise TooLargeError("too large")
    raise not_there(403)


def server_status(status: int) -> ServerStatusError:
    return ServerStatusError(status, Message())


def not_there(status: int) -> FetchError:
    error = FetchError("There is no such S3 object, or this function may not read it.")
    error.__cause__ = server_status(status)
    return error


# --- the event ------------------------------------------------------------------------------


def test_documented_event_is_read_and_the_empty_folder_keys_left_out() -> None:
    batch = read_bulk_event(recorded("step_functions_batch"))
    assert batch == Batch("images", ("2026/red.png", "2026/sub dir/blue+é.png", "2026/file/"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"Items": [{"Key": "a", "Size": 1}]},
        {"Items": [{"Key": "a", "Size": 1}], "BatchInput": None},
        {"Items": [{"Key": "a", "Size": 1}], "BatchInput": {"bucket": 7}},
        {"Items": [{"Key": "a", "Size": 1}], "BatchInput": {"bucket": ""}},
        event() | {"Items": "a"},
        event() | {"Items": []},
        event() | {"Items": ["a"]},
        event() | {"Items": [{"Size": 1}]},
        event() | {"Items": [{"Key": 7}]},
        event() | {"Items": [{"Key": ""}]},
    ],
)
def test_an_event_of_another_form_is_refused_with_a_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedBatchError, match=r"must be|must have"):
        read_bulk_event(wrong)


# --- results --------------------------------------------------------------------------------


def test_every_object_gets_a_result_or_an_error_in_order(tiny: Classifier) -> None:
    api = make_api(tiny, stored)
    keys = ["red.png", "gone.png", "text.txt", "sub dir/blue+é.png", "huge.png"]
    results = api.invoke(event(*keys))["results"]
    assert [(result["bucket"], result["key"]) for result in results] == [
        ("images", key) for key in keys
    ]
    best = [r["predictions"][0]["label"] if "predictions" in r else None for r in results]
    assert best == ["red", None, None, "blue", None]
    codes = [r["error"]["code"] if "error" in r else None for r in results]
    assert codes == [None, "fetch_failed", "unsupported_image", None, "too_large"]
    assert len(results[0]["predictions"]) == 4
    assert results[0]["model"] == {"name": "tiny", "version": tiny.metadata.version}
    assert set(results[0]) == {"bucket", "key", "predictions", "model"}
    json.dumps(results, allow_nan=False)


def test_a_batch_of_folders_has_no_results(tiny: Classifier) -> None:
    folders = {"BatchInput": {"bucket": "images"}, "Items": [{"Key": "2026/", "Size": 0}]}
    assert make_api(tiny, stored).invoke(folders) == {"results": []}


def test_the_log_line_counts_items_and_labels_and_names_reasons(tiny: Classifier) -> None:
    api = make_api(tiny, stored)
    api.invoke(event("red.png", "sub dir/blue+é.png", "gone.png", "gone too.png"))
    (line,) = api.lines
    assert (line["route"], line["items"], line["items_done"]) == ("bulk", 4, 2)
    assert line["ServerError"] == 0
    assert line["labels"] == {"red": 1, "blue": 1}
    assert line["reasons"] == [f"{not_there(403).detail} (ServerStatusError)"]  # once


def test_objects_beyond_the_deadline_are_errors_of_their_own(tiny: Classifier) -> None:
    def slow(uri: str, **_: Any) -> bytes:
        time.sleep(0.2)
        return encode_image("red")

    api = make_api(tiny, slow, remaining_s=1.4)  # one second is kept for the response
    results = api.invoke(event(*(f"{i}.png" for i in range(20))))["results"]
    codes = [result["error"]["code"] for result in results if "error" in result]
    assert len(results) == 20
    assert 0 < len(codes) < 20
    assert set(codes) == {"deadline_exceeded"}


def test_a_single_object_that_is_gone_is_an_error_not_a_lost_batch(tiny: Classifier) -> None:
    (result,) = make_api(tiny, stored).invoke(event("gone.png"))["results"]
    assert result["error"]["code"] == "fetch_failed"


# --- lost batches ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        server_status(503),  # S3's SlowDown, after read_object's own attempts
        server_status(500),
        server_status(429),
        not_there(400),  # ExpiredToken
        not_there(401),
        FetchError("S3 cannot be reached."),
    ],
    ids=["503", "500", "429", "400", "401", "unreachable"],
)
def test_throttling_and_credentials_lose_the_batch_for_another_try(
    tiny: Classifier, failure: FetchError
) -> None:
    calls = []

    def read(uri: str, **_: Any) -> bytes:
        calls.append(uri)
        if len(calls) == 3:
            raise failure
        return encode_image("red")

    api = make_api(tiny, read)
    with pytest.raises(RetryBatchError):
        api.invoke(event(*(f"{i}.png" for i in range(30))))
    assert len(calls) < 12  # the rest was not even asked for
    (line,) = api.lines
    assert line["code"] == "RetryBatchError"
    assert line["ServerError"] == 0


def test_a_bucket_that_is_not_listed_refuses_the_batch(tiny: Classifier) -> None:
    with pytest.raises(RefusedBatchError, match="ImageBuckets"):
        make_api(tiny).invoke(event("a.png", "b.png", bucket="private"))


def test_a_role_that_may_read_nothing_refuses_the_batch(tiny: Classifier) -> None:
    with pytest.raises(RefusedBatchError, match="None of 2 objects"):
        make_api(tiny, stored).invoke(event("gone1.png", "gone2.png"))


def test_the_handler_raises_errors_for_step_functions(
    tiny: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "process_service", lambda: Service(SETTINGS, tiny, read_object=stored))
    with pytest.raises(RefusedBatchError):
        app.lambda_handler({"Items": []}, None)
    assert app.lambda_handler(event("red.png"), None)["results"][0]["key"] == "red.png"


# --- S3 -------------------------------------------------------------------------------------


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """moto's S3 with a bucket ``images``, where boto3 finds it."""
    with moto_server() as address:
        invent_account(monkeypatch, AWS_ENDPOINT_URL_S3=address)
        s3._clients.clear()
        client = boto3.client("s3")
        client.create_bucket(Bucket="images")
        yield client
        client.close()
        s3._clients.clear()


def test_a_listing_of_s3_is_classified_through_the_real_reader(
    tiny: Classifier, bucket: Any
) -> None:
    contents = {
        "2026/": b"",
        "2026/red.png": encode_image("red"),
        "2026/sub dir/blue+é.png": encode_image("blue"),
        "2026/text.txt": b"no image",
        "2026/_SUCCESS": b"",
    }
    for key, body in contents.items():
        bucket.put_object(Bucket="images", Key=key, Body=body)
    for key, body, encoding in (
        ("2026/x.png", gzip.compress(encode_image("lime")), "gzip"),
        ("2026/y.png", encode_image("red"), "base64"),
        ("2026/z.png", encode_image("red"), "gzip"),  # it is not packed
    ):
        bucket.put_object(Bucket="images", Key=key, Body=body, ContentEncoding=encoding)
    listed = bucket.list_objects_v2(Bucket="images", Prefix="2026/")["Contents"]
    items = [{"Key": item["Key"], "Size": item["Size"]} for item in listed]
    items.append({"Key": "2026/deleted.png", "Size": 1})
    body = make_api(tiny).invoke({"BatchInput": {"bucket": "images"}, "Items": items})
    outcome = {
        result["key"]: result["error"]["code"]
        if "error" in result
        else result["predictions"][0]["label"]
        for result in body["results"]
    }
    assert outcome == {
        "2026/red.png": "red",
        "2026/sub dir/blue+é.png": "blue",
        "2026/text.txt": "unsupported_image",
        "2026/_SUCCESS": "fetch_failed",  # nothing is wrong with S3: the batch is not lost
        "2026/x.png": "green",
        "2026/y.png": "red",
        "2026/z.png": "fetch_failed",
        "2026/deleted.png": "fetch_failed",
    }


def test_missing_credentials_lose_the_batch_for_another_try(
    tiny: Classifier, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    boto3.setup_default_session()
    with pytest.raises(RetryBatchError, match="No AWS credentials were found"):
        make_api(tiny).invoke(event("a.png"))
    boto3.DEFAULT_SESSION = None
