"""A batch from Step Functions' Distributed Map: many S3 objects, one result or error for each.

ItemBatcher makes this event of a listing (deploy/bulk.yaml)::

    {"BatchInput": {"bucket": "images"},
     "Items": [{"Key": "2026/1.jpg", "Size": 31712}, {"Key": "2026/", "Size": 0}]}

The response's ``results`` become lines of JSON in S3::

    {"bucket": "images", "key": "2026/1.jpg", "predictions": [...], "model": {...}}
    {"bucket": "images", "key": "2026/2.jpg", "error": {"code": "undecodable_image", ...}}

An image that cannot be fetched or decoded is a line like the second. An error that concerns the
whole batch is raised. Its name tells Step Functions what to do: a ``RetryBatchError`` is tried
again, a ``RefusedBatchError`` would fail again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_function.errors import AddressNotAllowedError, FetchError
from lambda_function.fetching.errors import ServerStatusError, UnusableResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ITEMS = "Items"  # the key that tells such an event
# S3's statuses about one object. A missing one also gets 403 without s3:ListBucket.
_STATUSES_OF_ONE_OBJECT = frozenset({301, 307, 403, 404})


class BatchError(Exception):
    """The batch as a whole has failed. The base, never raised itself."""


class RetryBatchError(BatchError):
    """S3 was throttled or failed, or credentials are missing (yet). Another try may succeed."""


class RefusedBatchError(BatchError):
    """The batch would fail again: the event, the bucket or the function's role is wrong."""


class Batch(NamedTuple):
    """The objects that an event names.

    Attributes:
        bucket: that all objects are in.
        keys: of the objects, without the empty ones that stand for folders.
    """

    bucket: str
    keys: tuple[str, ...]


def read_bulk_event(event: dict[str, Any]) -> Batch:
    """Read a Distributed Map's event.

    Raises:
        RefusedBatchError: the event has another form. The message says what is missing.
    """
    shared = event.get("BatchInput")
    bucket = shared.get("bucket") if isinstance(shared, dict) else None
    if not isinstance(bucket, str) or not bucket:
        raise RefusedBatchError("BatchInput.bucket must be the name of the objects' bucket.")
    items = event[ITEMS]
    if not isinstance(items, list) or not items:
        raise RefusedBatchError("Items must be a list of objects with Key and Size.")
    return Batch(bucket, tuple(_key(item) for item in items if not _is_folder(item)))


def classify_objects(
    batch: Batch,
    *,
    fetch: Callable[[str], bytes],
    classify: Callable[[bytes, float], dict[str, Any]],
    on_error: Callable[[Exception], dict[str, Any]],
    deadline: float,
    parallel: int,
) -> list[dict[str, Any]]:
    """Classify every object of a batch.

    Args:
        batch: the objects.
        fetch: returns the bytes that an ``s3://`` URL names.
        classify: of (bytes, milliseconds of the download). Returns the object's part of the result.
        on_error: turns the error of one object into its part of the result.
        deadline: a ``time.monotonic()`` moment. Later objects get an error of their own.
        parallel: most objects in memory or on their way at once.

    Returns:
        One result per key, in order.

    Raises:
        RetryBatchError: S3 or the credentials failed. No object has a result.
        RefusedBatchError: the bucket is not allowed, or none of several objects was readable.
    """
    from lambda_function.batches.batch import run_batch  # as in predictions

    guard = FatalErrorGuard(fetch)

    def on_item_error(error: Exception) -> dict[str, Any]:
        # A failed batch has no results, so its objects are not logged.
        return {} if guard.fatal else on_error(error)

    parts = run_batch(
        [f"s3://{batch.bucket}/{key}" for key in batch.keys],
        fetch=guard.fetch,
        classify=classify,
        on_error=on_item_error,
        deadline=deadline,
        parallel=parallel,
    )
    if guard.fatal:
        raise guard.fatal
    if len(parts) > 1 and guard.unreadable == len(parts):
        raise RefusedBatchError(
            f"None of {len(parts)} objects of the bucket {batch.bucket!r} could be read. May the "
            "function read it (the template's parameter ImageBuckets)?"
        )
    return [
        {"bucket": batch.bucket, "key": key, **part}
        for key, part in zip(batch.keys, parts, strict=True)
    ]


class FatalErrorGuard:
    """Fetches objects until one error concerns the whole batch. Then the rest fails at once.

    Attributes:
        fatal: the error that ended the batch, or None.
        unreadable: how many objects S3 refused.
    """

    def __init__(self, fetch: Callable[[str], bytes]) -> None:
        self.fatal: BatchError | None = None
        self.unreadable = 0
        self._fetch = fetch

    def fetch(self, url: str) -> bytes:
        """Return an object's bytes.

        Raises:
            BatchError: an earlier error has ended the batch.
            ServiceError: of this object.
        """
        if self.fatal:
            raise self.fatal
        try:
            return self._fetch(url)
        except AddressNotAllowedError as error:
            self.fatal = RefusedBatchError(
                f"{error.detail} The template's parameter ImageBuckets lists the allowed ones."
            )
            raise
        except UnusableResponseError:
            raise  # S3 sent what it holds: an empty object, or one stored with an encoding
        except FetchError as error:
            self.unreadable += 1
            if _status(error) not in _STATUSES_OF_ONE_OBJECT:
                self.fatal = RetryBatchError(error.reason)
            raise


def _status(error: FetchError) -> int | None:
    """Return the status that S3 sent, or None if it sent no response."""
    chain: Sequence[BaseException | None] = (error, error.__cause__)
    return next((e.server_status for e in chain if isinstance(e, ServerStatusError)), None)


def _is_folder(item: Any) -> bool:
    """Return whether this is the empty object that the S3 console makes for a folder."""
    return (
        isinstance(item, dict) and str(item.get("Key", "")).endswith("/") and not item.get("Size")
    )


def _key(item: Any) -> str:
    key = item.get("Key") if isinstance(item, dict) else None
    if not isinstance(key, str) or not key:
        raise RefusedBatchError(f"Every item must have a Key. Received: {str(item)[:80]}.")
    return key
