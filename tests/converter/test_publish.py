"""Publishing to S3, on moto's server: immutable names, and `latest` last or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError

from converter.errors import PublishError
from converter.publish import passed_gate, publish
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.fetching.s3 import NO_CREDENTIALS, download_model
from lambda_function.metadata import MetadataError
from tests.support.aws import invent_account, moto_server
from tests.support.converter import with_metadata
from tests.support.paths import TESTS

MODEL = TESTS / "data" / "tiny.tflite"
SHA256 = hashlib.sha256(MODEL.read_bytes()).hexdigest()
STEM = f"models/tiny-1.2.3-{SHA256}"


@pytest.fixture(scope="module")
def moto():
    with moto_server() as address:
        yield address


@pytest.fixture
def client(moto, monkeypatch):
    invent_account(monkeypatch, AWS_ENDPOINT_URL=moto)
    client = boto3.client("s3")
    client.create_bucket(Bucket="shelf")
    yield client
    for key in keys(client):
        client.delete_object(Bucket="shelf", Key=key)
    client.delete_bucket(Bucket="shelf")


def gated(path: Path, **changes) -> Path:
    """Put the report of a passed gate beside a file, as the converter does."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    report = {"artifact_sha256": digest, "passed": True, "images": "9 images", "figures": {}}
    path.with_suffix(".parity.json").write_text(json.dumps({**report, **changes}))
    return path


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The small model, which passed the gate."""
    return gated(Path(shutil.copy(MODEL, tmp_path / "tiny.tflite")))


class Breaking:
    """boto3's client, whose connection breaks at one upload (counted from 1)."""

    def __init__(self, client, at: int) -> None:
        self._client = client
        self._left = at

    def put_object(self, **request):
        self._left -= 1
        if self._left == 0:
            answer = {"Error": {"Code": "SlowDown", "Message": "Please reduce your request rate."}}
            raise ClientError(answer, "PutObject")
        return self._client.put_object(**request)

    def head_object(self, **request):
        return self._client.head_object(**request)


def keys(client) -> list[str]:
    return [entry["Key"] for entry in client.list_objects_v2(Bucket="shelf").get("Contents", [])]


def read(client, key: str) -> bytes:
    return client.get_object(Bucket="shelf", Key=key)["Body"].read()


def newer(tmp_path: Path) -> Path:
    path = tmp_path / "newer.tflite"
    path.write_bytes(with_metadata(MODEL.read_bytes(), version="1.3.0"))
    return gated(path)


def test_names_hold_the_hash_of_the_content_and_latest_is_the_manifest(client, tiny):
    published = publish(tiny, "s3://shelf/models/")

    assert keys(client) == ["models/latest.json", f"{STEM}.json", f"{STEM}.tflite"]
    assert published == f"s3://shelf/{STEM}.tflite"
    assert read(client, f"{STEM}.tflite") == MODEL.read_bytes()
    manifest = json.loads(read(client, "models/latest.json"))
    assert read(client, "models/latest.json") == read(client, f"{STEM}.json")
    assert manifest["uri"] == published
    assert manifest["sha256"] == SHA256
    assert manifest["bytes"] == MODEL.stat().st_size
    assert manifest["model"]["labels"] == ["red", "green", "blue", "dark"]
    assert manifest["gate"] == {"images": "9 images", "figures": {}}


def test_the_handler_downloads_a_published_model(client, tiny):
    published = publish(tiny, "s3://shelf/models")

    model = download_model(published)

    assert Classifier(model).metadata.version == "1.2.3"


def test_the_prefix_may_be_empty(client, tiny):
    publish(tiny, "s3://shelf")

    assert "latest.json" in keys(client)


def test_publishing_again_changes_nothing(client, tiny):
    publish(tiny, "s3://shelf/models")
    before = {key: read(client, key) for key in keys(client)}

    publish(tiny, "s3://shelf/models")

    assert {key: read(client, key) for key in keys(client)} == before


@pytest.mark.parametrize(
    ("broken_upload", "pointer"),
    # that an answer is missing does not say whether the last object was written
    [(1, "is as it was"), (2, "is as it was"), (3, "may have moved")],
)
def test_an_interrupted_upload_leaves_the_old_latest(
    client, tiny, tmp_path, broken_upload, pointer
):
    publish(tiny, "s3://shelf/models")
    before = read(client, "models/latest.json")

    with pytest.raises(PublishError, match=rf"SlowDown.*`latest` {pointer}; publish again"):
        publish(newer(tmp_path), "s3://shelf/models", client=Breaking(client, broken_upload))

    assert read(client, "models/latest.json") == before
    assert download_model(json.loads(before)["uri"]) == MODEL.read_bytes()

    # and the same command, once more, goes through
    publish(newer(tmp_path), "s3://shelf/models")
    latest = json.loads(read(client, "models/latest.json"))
    assert latest["model"]["version"] == "1.3.0"
    assert len(keys(client)) == 5  # both versions and the pointer


class Garbling:
    """boto3's client, whose server says of the last upload that it holds something else."""

    def __init__(self, client) -> None:
        self._client = client

    def put_object(self, **request):
        return self._client.put_object(**request)

    def head_object(self, **request):
        return {**self._client.head_object(**request), "ChecksumSHA256": "c29tZXRoaW5nIGVsc2U="}


def test_a_stored_checksum_that_differs_is_an_error(client, tiny):
    with pytest.raises(PublishError, match=r"not what was sent: .*Received: 2,115 bytes, c29t"):
        publish(tiny, "s3://shelf/models", client=Garbling(client))

    assert keys(client) == [f"{STEM}.tflite"]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (None, r"tiny\.parity\.json is missing beside tiny\.tflite: only what passed"),
        ({"artifact_sha256": "ab" * 32}, f"says SHA-256 {'ab' * 32}, the file has {SHA256}"),
        ({"passed": False}, r"says that tiny\.tflite failed the parity gate"),
        ({"passed": "yes"}, r"failed the parity gate"),
        ("[]", r"is no report of the parity gate"),
        ("{", r"is no report of the parity gate"),
    ],
)
def test_a_file_without_a_passed_gate_is_not_published(client, tiny, report, message):
    beside = tiny.with_suffix(".parity.json")
    if report is None:
        beside.unlink()
    elif isinstance(report, str):
        beside.write_text(report)
    else:
        gated(tiny, **report)
    with pytest.raises(PublishError, match=message) as caught:
        publish(tiny, "s3://shelf/models")
    assert "\n" not in str(caught.value)
    assert keys(client) == []


def test_a_file_damaged_after_the_gate_is_not_published(client, tiny):
    content = bytearray(tiny.read_bytes())
    content[600] ^= 1  # loads all the same, and answers a little differently
    tiny.write_bytes(content)

    with pytest.raises(PublishError, match=r"not the file that passed the gate"):
        publish(tiny, "s3://shelf/models")


def test_the_shipped_model_may_be_published():
    digest = hashlib.sha256(SHIPPED_MODEL.read_bytes()).hexdigest()

    assert passed_gate(SHIPPED_MODEL, digest)["passed"] is True


def test_a_missing_bucket_is_one_sentence(client, tiny):
    with pytest.raises(PublishError, match="NoSuchBucket"):
        publish(tiny, "s3://nobody-has-this/models")


def test_without_credentials_the_sentence_says_how_to_get_some(client, tiny, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    with pytest.raises(PublishError, match=f"^{NO_CREDENTIALS}$"):
        publish(tiny, "s3://shelf/models")


@pytest.mark.parametrize("destination", ["models", "s3://", "https://shelf/models", "s3://UP/x"])
def test_a_malformed_destination_is_refused_before_a_file_is_read(destination):
    with pytest.raises(PublishError, match="must read s3://bucket/prefix"):
        publish(Path("/nowhere"), destination)


def test_a_file_that_the_handler_cannot_serve_is_not_published(client, tmp_path):
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(MODEL.read_bytes()[:-100])

    with pytest.raises(MetadataError):
        publish(gated(cut), "s3://shelf/models")
    assert keys(client) == []


def test_unusual_characters_of_a_name_do_not_reach_the_key(client, tmp_path):
    path = tmp_path / "odd.tflite"
    path.write_bytes(with_metadata(MODEL.read_bytes(), name="my model/é", version="1 beta"))

    uri = publish(gated(path), "s3://shelf/models")

    assert uri.startswith("s3://shelf/models/my-model-1-beta-")
    assert download_model(uri) == path.read_bytes()
