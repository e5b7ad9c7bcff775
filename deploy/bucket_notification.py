"""The notification by which a bucket tells an events stack about uploads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote_plus

from botocore.exceptions import BotoCoreError, ClientError

from deploy.findings import CheckFailed, short_reason
from deploy.stack import DeployedStack


def check_bucket(session: Any, bucket: str) -> None:
    """Check that the bucket exists and that its notifications may be read.

    Raises:
        CheckFailed: it does not, with the reason.
    """
    try:
        session.client("s3").get_bucket_notification_configuration(Bucket=bucket)
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(
            f"The notifications of the bucket {bucket} cannot be read: {short_reason(error)}. "
            "Correct ImageBucket, or the rights."
        ) from error


def add_notification(session: Any, parameters: Mapping[str, str], deployed: DeployedStack) -> None:
    """Let the bucket tell the queue about new objects. Other notifications of the bucket stay.

    Args:
        session: a ``boto3.Session``.
        parameters: all of deploy/events.yaml.
        deployed: the events stack. Its name is the notification's id.

    Raises:
        CheckFailed: the bucket refused, with its reason.
    """
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-how-to-filtering.html says
    # that a filter has + for a space, and other special characters percent-encoded.
    prefix = quote_plus(parameters["ImagePrefix"], safe="/")
    ours = {
        "Id": deployed.name,
        "QueueArn": deployed.outputs["QueueArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
    }
    bucket = parameters["ImageBucket"]
    try:
        _replace_notification(session, bucket, deployed.name, [ours])
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(
            f"The stack {deployed.name} is deployed, and the bucket {bucket} takes no "
            f"notification: {short_reason(error)}. Correct that, then run make events again."
        ) from error


def remove_notification(session: Any, deployed: DeployedStack) -> None:
    """Remove the notification of an events stack from its bucket, and print what was done.

    Args:
        session: a ``boto3.Session``.
        deployed: the events stack.
    """
    bucket = deployed.parameters["ImageBucket"]
    try:
        _replace_notification(session, bucket, deployed.name, [])
    except (BotoCoreError, ClientError) as error:
        print(
            f"The bucket {bucket} may keep the notification {deployed.name} "
            f"({short_reason(error)}). Remove it in the S3 console (Properties)."
        )
    else:
        print(f"The bucket {bucket} has no notification {deployed.name} any more.")


def _replace_notification(
    session: Any, bucket: str, name: str, queues: list[dict[str, Any]]
) -> None:
    s3 = session.client("s3")
    found = s3.get_bucket_notification_configuration(Bucket=bucket)
    kept = {key: value for key, value in found.items() if key != "ResponseMetadata"}
    others = [q for q in kept.get("QueueConfigurations", []) if q.get("Id") != name]
    s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={**kept, "QueueConfigurations": [*others, *queues]},
    )
