"""A batch from Step Functions' Distributed Map: many S3 objects, one result or error for each.

The event is what ItemBatcher makes of a listing (deploy/bulk.yaml)::

    {"BatchInput": {"bucket": "pictures"},
     "Items": [{"Key": "2026/1.jpg", "Size": 31712}, {"Key": "2026/", "Size": 0}]}

and the answer's ``results`` become lines of JSON in S3::

    {"bucket": "pictures", "key": "2026/1.jpg", "predictions": [...], "model": {...}}
    {"bucket": "pictures", "key": "2026/2.jpg", "error": {"code": "undecodable_image", ...}}

A picture that cannot be had or read is a line like the second. What concerns the whole batch is
raised instead, and the error's name tells Step Functions what to do: a ``RetryBatchError`` is
tried again, a ``RefusedBatchError`` would fail again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lambda_function.batch import run_batch
from lambda_function.errors import AddressNotAllowedError, FetchError
from lambda_function.fetching.response import ServerStatusError, UnusableResponseError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ITEMS = "Items"  # the key that tells such an event
# S3's answers about one object; 403 is also what a missing one gets without s3:ListBucket.
_OF_ONE_OBJECT = frozenset({301, 307, 403, 404})


class BatchError(Exception):
    """The batch as a whole has failed; never raised itself."""


class RetryBatchError(BatchError):
    """S3 was throttled or failed, or credentials are not there (yet): another try may do."""


class RefusedBatchError(BatchError):
    """The batch cannot be done as it is: the event, the bucket or the function's role is wrong."""


class Batch(NamedTuple):
    """What an event asks for.

    Attributes:
        bucket: that all objects are in.
        keys: of the objects, without the empty ones that stand for folders.
    """

    bucket: str
    keys: tuple[str, ...]


def read_event(event: dict[str, Any]) -> Batch:
    """Read a Distributed Map's event.

    Raises:
        RefusedBatchError: not of the module's form; says what is missing.
    """
    shared = event.get("BatchInput")
    bucket = shared.get("bucket") if isinstance(shared, dict) else None
    if not isinstance(bucket, str) or not bucket:
        raise RefusedBatchError("BatchInput.bucket must be the name of the objects' bucket.")
    items = event[ITEMS]
    if not isinstance(items, list) or not items:
        raise RefusedBatchError("Items must be a list of objects with Key and Size.")
    return Batch(bucket, tuple(_key(item) for item in items if not _is_folder(item)))


def classify_batch(
    batch: Batch,
    *,
    load: Callable[[str], bytes],
    classify: Callable[[bytes, float], dict[str, Any]],
    refuse: Callable[[Exception], dict[str, Any]],
    deadline: float,
) -> list[dict[str, Any]]:
    """Classify every object of a batch.

    Args:
        batch: the objects.
        load: returns the bytes behind an ``s3://`` address.
        classify: of (bytes, milliseconds of the download): the item's part of the result.
        refuse: turns what was wrong with one object into its part of the result.
        deadline: a ``time.monotonic()`` moment; objects not done by then are errors of their own.

    Returns:
        One result per key, in order.

    Raises:
        RetryBatchError: S3 or the credentials failed; nothing is said about any object.
        RefusedBatchError: the bucket is not allowed, or not one of several objects was readable.
    """
    gate = _Gate(load)

    def settle(error: Exception) -> dict[str, Any]:
        # A batch that is lost says nothing about its objects, so nothing is logged for them.
        return {} if gate.lost else refuse(error)

    def load_admitted(address: str, admit: Callable[[], None]) -> bytes:
        admit()
        return gate(address)

    addresses = [f"s3://{batch.bucket}/{key}" for key in batch.keys]
    parts = run_batch(
        addresses, load=load_admitted, classify=classify, refuse=settle, deadline=deadline
    )
    if gate.lost:
        raise gate.lost
    if len(parts) > 1 and gate.unreadable == len(parts):
        raise RefusedBatchError(
            f"None of {len(parts)} objects of the bucket {batch.bucket!r} could be read. May the "
            "function read it (the template's parameter ImageBuckets)?"
        )
    return [
        {"bucket": batch.bucket, "key": key, **part}
        for key, part in zip(batch.keys, parts, strict=True)
    ]


class _Gate:
    """Loads objects until one fails in a way that concerns all; then the rest fail at once.

    Attributes:
        lost: why the batch is lost, or None.
        unreadable: how many objects S3 did not give.
    """

    def __init__(self, load: Callable[[str], bytes]) -> None:
        self.lost: BatchError | None = None
        self.unreadable = 0
        self._load = load

    def __call__(self, address: str) -> bytes:
        if self.lost:
            raise self.lost
        try:
            return self._load(address)
        except AddressNotAllowedError as error:
            self.lost = RefusedBatchError(
                f"{error.detail} The template's parameter ImageBuckets lists those that are."
            )
            raise
        except UnusableResponseError:
            raise  # S3 gave what it holds: an empty object, or one stored with an encoding
        except FetchError as error:
            self.unreadable += 1
            if _status(error) not in _OF_ONE_OBJECT:
                self.lost = RetryBatchError(error.detail)
            raise


def _status(error: FetchError) -> int | None:
    """Return the status that S3 answered with, or None where there was no answer."""
    told: Sequence[BaseException | None] = (error, error.__cause__)
    return next((e.server_status for e in told if isinstance(e, ServerStatusError)), None)


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
