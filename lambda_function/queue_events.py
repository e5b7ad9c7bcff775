"""Classify images that were uploaded to S3: the handler of deploy/events.yaml.

A bucket's notification goes to a queue, and Lambda sends the queue's messages here::

    {"Records": [{"messageId": "1", "body": "{\\"Records\\": [{\\"s3\\": {...}}]}"}]}

Each image gives one JSON object in the result bucket, under the key of the image and ``.json``. It
is the body that a direct invoke returns: a prediction, or a problem that another try would repeat.
A message whose images may succeed later is reported as failed, so that the queue sends it again.
After five tries it goes to the dead-letter queue. A message that succeeded is not sent again.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from lambda_function import app, logs

if TYPE_CHECKING:
    from lambda_function.service import Service

TEST_EVENT = "s3:TestEvent"  # S3 sends one when the notification is made
# Statuses of an image that will not change: not an image, too large, damaged.
PERMANENT = frozenset({400, 413, 415, 422})
Put = Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class ResultPlace:
    """Where results go.

    Attributes:
        bucket: of the results.
        prefix: of their keys, with a slash at its end.
    """

    bucket: str
    prefix: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> ResultPlace:
        """Read RESULT_BUCKET and RESULT_PREFIX.

        Raises:
            KeyError: RESULT_BUCKET is not set.
        """
        return cls(environ["RESULT_BUCKET"], environ.get("RESULT_PREFIX", "classified/"))

    def key(self, bucket: str, key: str) -> str | None:
        """Return the key of an image's result, or None if the image is a result itself."""
        if bucket == self.bucket and key.startswith(self.prefix):
            return None  # else every result would give another one
        return f"{self.prefix}{key}.json"


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Classify the uploads that an SQS event names.

    Args:
        event: of an SQS trigger.
        context: Lambda's.

    Returns:
        ``{"batchItemFailures": [...]}`` with the messages to send again.
    """
    import boto3

    place = ResultPlace.from_environment(os.environ)
    put = boto3.client("s3").put_object
    return handle(event, context, app.process_service(), place=place, put=put)


def handle(
    event: dict[str, Any], context: Any, service: Service, *, place: ResultPlace, put: Put
) -> dict[str, Any]:
    """Respond to an SQS event, with everything that ``lambda_handler`` uses as arguments.

    Args:
        event: of an SQS trigger.
        context: Lambda's, or anything with ``get_remaining_time_in_millis``.
        service: the loaded model and the ways to an image.
        place: where results go.
        put: boto3's ``put_object``.
    """
    failures = []
    for record in event["Records"]:
        try:
            done = [
                _classify(bucket, key, context, service, place=place, put=put)
                for bucket, key in uploads(record["body"])
            ]
        except Exception as error:  # of this message. The others go on
            logs.write_line(
                json.dumps({"message_id": record["messageId"], "exception": repr(error)})
            )
            done = [False]
        if not all(done):
            failures.append({"itemIdentifier": record["messageId"]})
    return {"batchItemFailures": failures}


def uploads(body: str) -> Iterator[tuple[str, str]]:
    """Yield (bucket, key) of the objects that a message names. Folders and tests have none.

    Args:
        body: of the message, an S3 notification. Keys are form-encoded in it.

    Raises:
        ValueError, KeyError, AttributeError: the message is no S3 notification.
    """
    notification = json.loads(body)
    if notification.get("Event") == TEST_EVENT:
        return
    for record in notification["Records"]:
        stored = record["s3"]["object"]
        if not stored["key"].endswith("/") or stored.get("size"):
            yield record["s3"]["bucket"]["name"], unquote_plus(stored["key"])


def _classify(
    bucket: str, key: str, context: Any, service: Service, *, place: ResultPlace, put: Put
) -> bool:
    """Classify one object and write its result. Return whether it is settled."""
    result_key = place.key(bucket, key)
    if result_key is None:
        return True
    body = app.handle({"url": f"s3://{bucket}/{key}"}, context, service)
    if "predictions" not in body and body.get("status") not in PERMANENT:
        return False
    result = {"bucket": bucket, "key": key, **body}
    put(
        Bucket=place.bucket,
        Key=result_key,
        Body=json.dumps(result, ensure_ascii=False).encode(),
        ContentType="application/json",
    )
    return True
