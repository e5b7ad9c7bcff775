"""Objects from S3: images that ``s3://`` URLs name, and the model that ``MODEL_URI`` names.

boto3 finds the credentials, the endpoint (``AWS_ENDPOINT_URL_S3`` included) and signs the
request; the bytes come through ``fetch``. So one downloader holds the deadline, the limit of
bytes and the bound on memory for both; boto3's own reader starts its timeout anew with every
byte that arrives. Importing boto3 takes a quarter of a second, so it happens on the first call.

A missing object, a missing bucket and one that this function may not read get the same error.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from typing import Any

from lambda_function.errors import (
    AddressNotAllowedError,
    BadRequestError,
    DeadlineError,
    FetchError,
    ServiceError,
)
from lambda_function.fetching.client import FetchLimits, fetch_image
from lambda_function.fetching.response import ServerStatusError
from lambda_function.fetching.urls import parse_url

IMAGE_TIMEOUT_S = 10.0  # where the caller has no deadline
MODEL_TIMEOUT_S = 20.0  # a cold start: Lambda itself allows init 10 s, then starts it over
MAX_MODEL_BYTES = 512 * 1024**2  # 512 MiB; this project's models have 22 to 84 MB
RETRY_PAUSES_S = (0.2, 0.4)  # S3 asks for repetition when it answers 500 or 503

_URI = re.compile(r"[sS]3://(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)
_SHA256 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_NOT_THERE = frozenset({301, 307, 400, 401, 403, 404})
_clients: dict[str | None, Any] = {}
_clients_lock = threading.Lock()


class ModelDownloadError(RuntimeError):
    """The model that ``MODEL_URI`` names cannot be had, or is not what its name says."""


def read_object(
    uri: str, *, buckets: frozenset[str], max_bytes: int, deadline: float | None = None
) -> bytes:
    """Read an image's bytes.

    Args:
        uri: ``s3://bucket/key``; the key is taken as it stands, unescaped.
        buckets: that images may come from.
        max_bytes: of the object.
        deadline: a moment of ``time.monotonic()``; ``IMAGE_TIMEOUT_S`` from now by default.

    Raises:
        BadRequestError: not of that form.
        AddressNotAllowedError: the bucket is not in the list.
        TooLargeError: more than ``max_bytes``.
        UnsupportedImageError: the object is a web page.
        FetchError: not there, not readable for this function, or S3 failed.
        DeadlineError: it was not done in time.
    """
    bucket, key = _parse(uri)
    if bucket not in buckets:
        raise AddressNotAllowedError("The URL's bucket is not one that images are read from.")
    if deadline is None:
        deadline = time.monotonic() + IMAGE_TIMEOUT_S
    return _download(bucket, key, max_bytes, deadline)


def download_model(uri: str, *, timeout_s: float = MODEL_TIMEOUT_S) -> bytes:
    """Download a model under an immutable name, and check that it is the one.

    Args:
        uri: ``s3://bucket/key`` whose key holds the SHA-256 of the content in hexadecimal, as in
            ``s3://models/clothing-1.2.0-<64 digits>.tflite``.
        timeout_s: for everything.

    Raises:
        ModelDownloadError: the name holds no SHA-256, the object cannot be read, or its content
            has another SHA-256. The message says which.
    """
    try:
        bucket, key = _parse(uri)
        expected = _sha256_in(uri, key)
        model = _download(bucket, key, MAX_MODEL_BYTES, time.monotonic() + timeout_s)
    except ServiceError as error:
        raise ModelDownloadError(f"MODEL_URI={uri} cannot be read: {error.detail}") from error
    found = hashlib.sha256(model).hexdigest()
    if found != expected:
        raise ModelDownloadError(
            f"MODEL_URI={uri} is not what its name says. Expected SHA-256: {expected}. "
            f"Received: {found}, {len(model):,} bytes. Upload the model again."
        )
    return model


def _parse(uri: str) -> tuple[str, str]:
    match = _URI.fullmatch(uri)
    try:
        if match and 0 < len(match["key"].encode()) <= 1024:  # bytes of UTF-8: S3's own limit
            return match["bucket"], match["key"]
    except UnicodeEncodeError:
        pass
    raise BadRequestError("An S3 address must read s3://bucket/key.")


def _sha256_in(uri: str, key: str) -> str:
    found: list[str] = _SHA256.findall(key)
    if len(found) != 1:
        raise ModelDownloadError(
            f"MODEL_URI={uri} must hold the model's SHA-256, 64 hexadecimal digits, in its key, "
            f"so that a name always means the same model. Found: {len(found)} of them."
        )
    return found[0].lower()


def _download(bucket: str, key: str, max_bytes: int, deadline: float) -> bytes:
    region: str | None = None
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            return _get(bucket, key, region, max_bytes, deadline)
        except ServerStatusError as error:
            last = pause_s is None or time.monotonic() + pause_s >= deadline
            elsewhere = _other_region(error, region)
            if elsewhere and not last:
                region = elsewhere
            elif error.server_status in _NOT_THERE:
                raise _not_there() from error
            elif error.server_status < 500 or last:
                raise
            else:
                time.sleep(pause_s or 0)
    raise AssertionError("the last attempt returns or raises")


def _other_region(error: ServerStatusError, region: str | None) -> str | None:
    """Return where the bucket is, if S3 says that it is not where it was asked for."""
    found: str | None = error.server_headers.get("x-amz-bucket-region")
    return found if found != _client(region).meta.region_name else None


def _get(bucket: str, key: str, region: str | None, max_bytes: int, deadline: float) -> bytes:
    timeout_s = deadline - time.monotonic()
    if timeout_s <= 0:
        raise _too_slow()
    url = _signed_url(bucket, key, region, expires_s=max(60, int(timeout_s) + 1))
    limits = FetchLimits(
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        max_redirects=0,
        trusted_hosts=frozenset({parse_url(url).host_and_port}),  # ours: an endpoint may be private
    )
    try:
        return fetch_image(url, limits, deadline=deadline)
    except (AddressNotAllowedError, BadRequestError) as error:
        raise FetchError("S3 cannot be reached.") from error


def _signed_url(bucket: str, key: str, region: str | None, *, expires_s: int) -> str:
    from botocore.exceptions import BotoCoreError

    try:
        url: str = _client(region).generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_s
        )
    except (BotoCoreError, ValueError) as error:  # no credentials; a name or region that cannot be
        raise _not_there() from error
    return url


def _client(region: str | None) -> Any:
    """Return the signer for a region; it never opens a connection to S3 itself."""
    with _clients_lock:  # made once, by whichever thread comes first
        if region not in _clients:
            import boto3
            from botocore.config import Config

            config = Config(signature_version="s3v4", connect_timeout=2, read_timeout=2)
            _clients[region] = boto3.session.Session().client(
                "s3", region_name=region, config=config
            )
        return _clients[region]


def _not_there() -> FetchError:
    return FetchError("There is no such S3 object, or this function may not read it.")


def _too_slow() -> DeadlineError:
    return DeadlineError("The object was not there in time; S3 was too slow.")
