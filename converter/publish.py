"""`python -m converter publish FILE --to s3://bucket/prefix`: immutable names, `latest` last.

    prefix/<name>-<version>-<sha256>.tflite    the artifact; its name always means this content
    prefix/<name>-<version>-<sha256>.json      manifest: SHA-256, size, what the model is
    prefix/latest.json                         the newest manifest once more

`latest.json` is written when everything that it names is there and was read back, so that an
interrupted upload leaves the old one in place. A function takes the artifact itself through
``MODEL_URI=s3://bucket/prefix/<name>-<version>-<sha256>.tflite``, and checks the SHA-256.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from converter.errors import PublishError
from lambda_function.classifier import Classifier
from lambda_function.metadata import ModelMetadata

LATEST = "latest.json"
_DESTINATION = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclasses.dataclass(frozen=True)
class Published:
    """Where everything is.

    Attributes:
        model_uri: of the artifact; fit for the function's ``MODEL_URI``.
        manifest_uri: of its description.
        latest_uri: of the pointer.
    """

    model_uri: str
    manifest_uri: str
    latest_uri: str


def publish(path: Path, destination: str, *, client: Any = None) -> Published:
    """Upload an artifact under a name made of its content, then move ``latest`` to it.

    Args:
        path: a ``.tflite`` file with embedded metadata.
        destination: ``s3://bucket/prefix``.
        client: boto3's S3 client; default: one from the environment's configuration.

    Returns:
        The addresses. Publishing the same file again changes nothing but ``latest``.

    Raises:
        PublishError: destination malformed, or the upload failed; the message says where it stood.
        MetadataError, ArtifactError: the file is not one that the handler could serve.
        OSError: the file cannot be read.
    """
    bucket, prefix = _parse(destination)
    content = path.read_bytes()
    metadata = Classifier(content).metadata
    digest = hashlib.sha256(content).hexdigest()
    stem = f"{prefix}{_safe(metadata.name)}-{_safe(metadata.version)}-{digest}"
    manifest = _to_json(_manifest(bucket, f"{stem}.tflite", content, metadata))
    uploads = [
        (f"{stem}.tflite", content, "application/octet-stream"),
        (f"{stem}.json", manifest, "application/json"),
        (f"{prefix}{LATEST}", manifest, "application/json"),
    ]
    store = _Store(client or _default_client(), bucket)
    for key, body, content_type in uploads:
        store.put(key, body, content_type)
    model, description, latest = (f"s3://{bucket}/{key}" for key, _, _ in uploads)
    return Published(model, description, latest)


class _Store:
    """One bucket; every upload is checked by its server, and read back by its digest."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, body: bytes, content_type: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        checksum = base64.b64encode(hashlib.sha256(body).digest()).decode()
        place = f"s3://{self._bucket}/{key}"
        try:
            self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ChecksumSHA256=checksum,  # S3 refuses the object if it arrives changed
            )
            found = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except (BotoCoreError, ClientError) as error:
            raise PublishError(
                f"{place} could not be written: {error}. `latest` is as it was; publish again."
            ) from error
        if found["ContentLength"] != len(body):
            raise PublishError(
                f"{place} is not what was sent: expected {len(body):,} bytes. "
                f"Received: {found['ContentLength']:,}. `latest` is as it was."
            )


def _manifest(bucket: str, key: str, content: bytes, metadata: ModelMetadata) -> dict[str, Any]:
    return {
        "uri": f"s3://{bucket}/{key}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "model": metadata.to_dict(),
    }


def _to_json(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _parse(destination: str) -> tuple[str, str]:
    """Return the bucket, and the prefix with a slash at its end (or empty)."""
    match = _DESTINATION.fullmatch(destination)
    if not match:
        raise PublishError(f"--to must read s3://bucket/prefix. Received: {destination!r}")
    prefix = (match["prefix"] or "").strip("/")
    return match["bucket"], f"{prefix}/" if prefix else ""


def _safe(text: str) -> str:
    return _UNSAFE.sub("-", text)


def _default_client() -> Any:
    import boto3

    return boto3.client("s3")
