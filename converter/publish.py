"""`python -m converter publish FILE --to s3://bucket/prefix`: immutable names, `latest` last.

    prefix/<name>-<version>-<sha256>.tflite    the artifact; its name always means this content
    prefix/<name>-<version>-<sha256>.json      manifest: SHA-256, size, model, the gate's figures
    prefix/latest.json                         the newest manifest once more

`latest.json` is written when everything that it names is there and was read back, so that an
interrupted upload leaves the old one in place. Only what passed the parity gate is published: the
gate's report, ``<file>.parity.json``, must stand beside the file and speak of these very bytes, so
that a damaged file is noticed too. A function takes the artifact itself through
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
        PublishError: destination malformed, no passed gate's report of this file, or the upload
            failed; the message says where it stood.
        MetadataError, ArtifactError: the file is not one that the handler could serve.
        OSError: the file cannot be read.
    """
    bucket, prefix = _parse(destination)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    report = _passed_gate(path, digest)
    metadata = Classifier(content).metadata
    stem = f"{prefix}{_safe(metadata.name)}-{_safe(metadata.version)}-{digest}"
    manifest = _to_json(
        {
            "uri": f"s3://{bucket}/{stem}.tflite",
            "sha256": digest,
            "bytes": len(content),
            "model": metadata.to_dict(),
            "gate": {"images": report["images"], "figures": report["figures"]},
        }
    )
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
        pointer = "may have moved" if key.endswith(LATEST) else "is as it was"
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
                f"{place} could not be written: {error}. `latest` {pointer}; publish again."
            ) from error
        stored = found.get("ChecksumSHA256"), found["ContentLength"]
        # Servers other than Amazon's may keep no checksum; they still have checked it.
        if stored not in ((checksum, len(body)), (None, len(body))):
            raise PublishError(
                f"{place} is not what was sent: expected {len(body):,} bytes, SHA-256 {checksum}. "
                f"Received: {stored[1]:,} bytes, {stored[0]}. `latest` {pointer}; publish again."
            )


def _passed_gate(path: Path, digest: str) -> dict[str, Any]:
    """Return the parity gate's report of a file with this SHA-256."""
    file = path.with_suffix(".parity.json")
    try:
        report = json.loads(file.read_text())
        found, passed = report["artifact_sha256"], report["passed"]
        _ = report["images"], report["figures"]
    except FileNotFoundError as error:
        raise PublishError(
            f"{file.name} is missing beside {path.name}: only what passed the parity gate is "
            "published. `python -m converter MODEL.keras --recipe NAME` writes both."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PublishError(f"{file.name} is no report of the parity gate: {error!r}") from error
    if found != digest:
        raise PublishError(
            f"{path.name} is not the file that passed the gate: {file.name} says SHA-256 {found}, "
            f"the file has {digest}"
        )
    if passed is not True:
        raise PublishError(f"{file.name} says that {path.name} failed the parity gate")
    return dict(report)


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
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("s3")
    except BotoCoreError as error:  # a profile or region that is not there
        raise PublishError(f"S3 cannot be asked: {error}") from error
