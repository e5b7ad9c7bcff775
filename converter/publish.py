"""`python -m converter publish FILE --to s3://bucket/prefix`: upload an artifact to S3.

    prefix/<name>-<version>-<sha256>.tflite    the artifact
    prefix/<name>-<version>-<sha256>.json      manifest: SHA-256, size, model, the gate's figures
    prefix/latest.json                         the newest manifest once more

`latest.json` is written last, when all that it names was read back. An interrupted upload leaves
the old one in place. Only what passed the parity gate is published. The gate's report must stand
beside the file as ``<file>.parity.json`` and hold the file's SHA-256, so a damaged file is noticed
too. A function takes the artifact through ``MODEL_URI`` and checks the SHA-256 in its name.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from converter.errors import PublishError
from lambda_function import SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.fetching.s3 import NO_CREDENTIALS
from training.files import file_name, read_json

LATEST = "latest.json"
_DESTINATION = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")


def main(arguments: list[str]) -> int:
    """Upload one artifact and print its address."""
    parser = argparse.ArgumentParser(prog="python -m converter publish")
    parser.add_argument("file", type=Path, nargs="?", default=SHIPPED_MODEL)
    parser.add_argument("--to", required=True, help="s3://bucket/prefix")
    options = parser.parse_args(arguments)
    print(f"MODEL_URI={publish(options.file, options.to)}")
    return 0


def publish(path: Path, destination: str, *, client: Any = None) -> str:
    """Upload an artifact under a name made of its content, then move ``latest`` to it.

    Args:
        path: a ``.tflite`` file with embedded metadata.
        destination: ``s3://bucket/prefix``.
        client: boto3's S3 client. Default: one from the environment's configuration.

    Returns:
        The artifact's address, for the function's ``MODEL_URI``. Publishing the same file again
        changes nothing but ``latest``.

    Raises:
        PublishError: the destination is malformed, the file has no report of a passed gate, or
            the upload failed.
        MetadataError, ArtifactError: the handler could not serve the file.
        OSError: the file cannot be read.
    """
    bucket, prefix = _parse(destination)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    report = passed_gate(path, digest)
    metadata = Classifier(content).metadata
    name, version = file_name(metadata.name, "model"), file_name(metadata.version, "0")
    stem = f"{prefix}{name}-{version}-{digest}"
    uri = f"s3://{bucket}/{stem}.tflite"
    manifest = _encode(
        {
            "uri": uri,
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
    return uri


class _Store:
    """One bucket. Its server checks every upload, and the digest is read back."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, key: str, body: bytes, content_type: str) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

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
        except NoCredentialsError as error:
            raise PublishError(NO_CREDENTIALS) from error
        except (BotoCoreError, ClientError) as error:
            raise PublishError(
                f"{place} could not be written: {error}. `latest` {pointer}; publish again."
            ) from error
        stored = found.get("ChecksumSHA256"), found["ContentLength"]
        # Servers other than Amazon's may keep no checksum. They still have checked it.
        if stored not in ((checksum, len(body)), (None, len(body))):
            raise PublishError(
                f"{place} is not what was sent: expected {len(body):,} bytes, SHA-256 {checksum}. "
                f"Received: {stored[1]:,} bytes, {stored[0]}. `latest` {pointer}; publish again."
            )


def passed_gate(path: Path, digest: str) -> dict[str, Any]:
    """Return the parity gate's report of a file with this SHA-256.

    Raises:
        PublishError: it is missing, of another file, or of a gate that failed.
    """
    file = path.with_suffix(".parity.json")
    try:
        report = read_json(file)
        found, passed = report["artifact_sha256"], report["passed"]
        _ = report["images"], report["figures"]
    except FileNotFoundError as error:
        raise PublishError(
            f"{file.name} is missing beside {path.name}: only what passed the parity gate is "
            "served. `make import` (a file from elsewhere) or `make convert` (a run) writes both."
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


def _encode(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _parse(destination: str) -> tuple[str, str]:
    """Return the bucket, and the prefix with a slash at its end (or empty)."""
    match = _DESTINATION.fullmatch(destination)
    if not match:
        raise PublishError(f"--to must read s3://bucket/prefix. Received: {destination!r}")
    prefix = (match["prefix"] or "").strip("/")
    return match["bucket"], f"{prefix}/" if prefix else ""


def _default_client() -> Any:
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.client("s3")
    except BotoCoreError as error:  # a profile or region that is not there
        raise PublishError(f"S3 cannot be asked: {error}") from error
