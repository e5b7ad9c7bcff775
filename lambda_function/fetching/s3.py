"""Objects from S3: images that ``s3://`` URLs name, and the model that ``MODEL_URI`` names.

boto3 finds the credentials and the endpoint (``AWS_ENDPOINT_URL_S3`` included) and signs the
request. ``client`` downloads the bytes, so that one downloader holds the deadline and the limit of
bytes for both. boto3's own reader starts its timeout anew with every byte that arrives. Importing
boto3 takes a quarter of a second, so it happens on the first call.

Missing objects, missing buckets and objects that this function may not read return the same error.
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
from lambda_function.fetching.errors import ServerStatusError
from lambda_function.fetching.urls import parse_s3_uri, parse_url

MODEL_TIMEOUT_S = 20.0  # of a cold start. Lambda allows init 10 s, then repeats it
MAX_MODEL_BYTES = 512 * 1024**2  # 512 MiB. This project's models have 22 to 84 MB
NO_CREDENTIALS = (
    "No AWS credentials were found. Run `aws configure` or `aws sso login`, or set AWS_PROFILE."
)
RETRY_PAUSES_S = (0.2, 0.4)  # S3 asks clients to retry after 500 and 503

_SHA256 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
_NOT_FOUND = frozenset({301, 307, 400, 401, 403, 404})
_clients: dict[str | None, Any] = {}
_clients_lock = threading.Lock()


class ModelDownloadError(RuntimeError):
    """The model of ``MODEL_URI`` cannot be read, or has another SHA-256 than its name says."""


def read_object(uri: str, *, buckets: frozenset[str], max_bytes: int, deadline: float) -> bytes:
    """Read an image's bytes.

    Args:
        uri: ``s3://bucket/key``. The key is taken as it is, without unescaping.
        buckets: that images may come from.
        max_bytes: of the object.
        deadline: a moment of ``time.monotonic()``.

    Returns:
        1 to ``max_bytes`` bytes. They may or may not be an image.

    Raises:
        BadRequestError: the address has another form.
        AddressNotAllowedError: the bucket is not in the list.
        TooLargeError: more than ``max_bytes``.
        UnsupportedImageError: the object is a web page.
        FetchError: the object does not exist, this function may not read it, S3 failed, or there
            are no credentials.
        DeadlineError: the object did not arrive in time.
    """
    bucket, key = parse_s3_uri(uri)
    if bucket not in buckets:
        raise AddressNotAllowedError("The URL's bucket is not one that images are read from.")
    return _download(bucket, key, max_bytes, deadline)


def download_model(uri: str, *, timeout_s: float = MODEL_TIMEOUT_S) -> bytes:
    """Download a model and compare its SHA-256 with the one in its name.

    Args:
        uri: ``s3://bucket/key`` whose key holds the SHA-256 of the content in hexadecimal, as in
            ``s3://models/clothing-1.2.0-<64 digits>.tflite``.
        timeout_s: for everything.

    Returns:
        The model.

    Raises:
        ModelDownloadError: the name holds no SHA-256, the object cannot be read, or its content
            has another SHA-256. The message says which.
    """
    try:
        bucket, key = parse_s3_uri(uri)
        expected = _sha256_in(uri, key)
        model = _download(bucket, key, MAX_MODEL_BYTES, time.monotonic() + timeout_s)
    except ServiceError as error:
        raise ModelDownloadError(f"MODEL_URI={uri} cannot be read: {error.reason}") from error
    received = hashlib.sha256(model).hexdigest()
    if received != expected:
        raise ModelDownloadError(
            f"MODEL_URI={uri} is not what its name says. Expected SHA-256: {expected}. "
            f"Received: {received}, {len(model):,} bytes. Upload the model again."
        )
    return model


def _sha256_in(uri: str, key: str) -> str:
    digests: list[str] = _SHA256.findall(key)
    if len(digests) != 1:
        raise ModelDownloadError(
            f"MODEL_URI={uri} must hold the model's SHA-256, 64 hexadecimal digits, in its key, "
            f"so that a name always means the same model. Received: {len(digests)} of them."
        )
    return digests[0].lower()


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
            elif error.server_status in _NOT_FOUND:
                raise _not_found(error) from error
            elif error.server_status < 500 or last:
                raise
            else:
                time.sleep(pause_s or 0)
    raise AssertionError("the last attempt returns or raises")


def _other_region(error: ServerStatusError, region: str | None) -> str | None:
    """Return the bucket's region if it is not the one that was asked."""
    named: str | None = error.server_headers.get("x-amz-bucket-region")
    return named if named != _client(region).meta.region_name else None


def _get(bucket: str, key: str, region: str | None, max_bytes: int, deadline: float) -> bytes:
    timeout_s = deadline - time.monotonic()
    if timeout_s <= 0:
        raise DeadlineError("The object did not arrive in time. S3 was too slow.")
    url = _signed_url(bucket, key, region, expires_s=max(60, int(timeout_s) + 1))
    limits = FetchLimits(
        max_bytes=max_bytes,
        timeout_s=timeout_s,
        max_redirects=0,
        trusted_hosts=frozenset({parse_url(url).host_and_port}),  # an endpoint may be private
    )
    try:
        return fetch_image(url, limits, deadline=deadline)
    except (AddressNotAllowedError, BadRequestError) as error:
        raise FetchError("S3 cannot be reached.") from error


def _signed_url(bucket: str, key: str, region: str | None, *, expires_s: int) -> str:
    from botocore.exceptions import BotoCoreError, NoCredentialsError

    try:
        url: str = _client(region).generate_presigned_url(
            "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=expires_s
        )
    except NoCredentialsError as error:
        sentence = "The service cannot read from S3. Its log tells the operator why."
        raise FetchError(sentence, reason=NO_CREDENTIALS) from error
    except (BotoCoreError, ValueError) as error:  # an invalid name or region
        raise _not_found(error) from error
    return url


def _client(region: str | None) -> Any:
    """Return the signer for a region. It never opens a connection to S3 itself."""
    with _clients_lock:  # made once, by the first thread
        if region not in _clients:
            import boto3
            from botocore.config import Config

            config = Config(signature_version="s3v4", connect_timeout=2, read_timeout=2)
            _clients[region] = boto3.session.Session().client(
                "s3", region_name=region, config=config
            )
        return _clients[region]


def _not_found(error: Exception) -> FetchError:
    sentence = "There is no such S3 object, or this function may not read it."
    return FetchError(sentence, reason=f"{sentence} {error}")
