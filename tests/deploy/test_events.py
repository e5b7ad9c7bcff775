"""`make events`: the stack that it deploys, and the bucket's notification."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from moto import mock_aws

from deploy.events import add_notification, deploy_events
from deploy.findings import CheckFailed
from deploy.stack import DeployedStack
from tests.deploy.conftest import FakeSession, client_error, deployed_account, stack_description
from tests.deploy.test_up import FakeCommands

BUCKETS = {"ImageBucket": "uploads", "ResultBucket": "results"}
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:queue"
PARAMETERS = {**BUCKETS, "ImagePrefix": "2026/"}
STACK = DeployedStack("s-events", "CREATE_COMPLETE", {}, {"QueueArn": QUEUE})


def service(**parameters: str) -> FakeSession:
    standing = {"Architecture": "arm64", "AlarmEmail": "a@b.c", **parameters}
    outputs = {"FunctionAlias": "arn:aws:lambda:r:1:function:f:live", "QueueArn": QUEUE}
    return deployed_account(
        describe_stacks=stack_description(parameters=standing, outputs=outputs),
        get_bucket_notification_configuration={},
        put_bucket_notification_configuration={},
    )


def test_it_runs_the_service_s_image_with_its_processor_and_mail() -> None:
    commands, session = FakeCommands(), service()

    assert deploy_events(BUCKETS, stack="s", session=session, run=commands) == 0

    (command,) = commands.ran
    assert command[command.index("--stack-name") + 1] == "s-events"
    assert commands.overrides == [
        'ImageUri="1.dkr.ecr.eu-central-1.amazonaws.com/repo:t" Architecture="arm64" '
        'AlarmEmail="a@b.c" ImageBucket="uploads" ResultBucket="results"'
    ]
    given = session.arguments("put_bucket_notification_configuration")
    assert given["Bucket"] == "uploads"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ImageBucket": "uploads"}, "ResultBucket=..."),
        ({"ImageBucket": "one", "ResultBucket": "one"}, "would be classified as uploads"),
        (
            {"ImageBucket": "one", "ResultBucket": "one", "ImagePrefix": "classified/in/"},
            "would be left out",
        ),
        ({**BUCKETS, "ResultPrefix": "x"}, "must end with a slash"),
        ({**BUCKETS, "Typo": "1"}, "no parameter Typo"),
    ],
)
def test_a_problem_stops_before_anything_is_created(given: dict[str, str], sentence: str) -> None:
    commands = FakeCommands()

    with pytest.raises(CheckFailed, match=sentence):
        deploy_events(given, stack="s", session=service(), run=commands)
    assert commands.ran == []


def test_one_bucket_serves_both_if_the_prefixes_differ() -> None:
    given = {"ImageBucket": "one", "ResultBucket": "one", "ImagePrefix": "uploads/"}

    assert deploy_events(given, stack="s", session=service(), run=FakeCommands()) == 0


def test_a_failed_deployment_adds_no_notification() -> None:
    session = service()

    assert deploy_events(BUCKETS, stack="s", session=session, run=FakeCommands("deploy")) == 1
    assert "put_bucket_notification_configuration" not in [name for name, _ in session.calls]


@mock_aws
def test_other_notifications_of_the_bucket_stay() -> None:
    s3 = boto3.client("s3")
    where = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket="uploads", CreateBucketConfiguration=where)
    other = {"Id": "other", "QueueArn": QUEUE, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket="uploads", NotificationConfiguration={"QueueConfigurations": [other]}
    )

    for _ in range(2):  # a second deployment changes nothing
        add_notification(boto3, PARAMETERS, STACK)

    found = s3.get_bucket_notification_configuration(Bucket="uploads")["QueueConfigurations"]
    assert [queue["Id"] for queue in found] == ["other", "s-events"]
    assert found[1]["Events"] == ["s3:ObjectCreated:*"]
    (rule,) = found[1]["Filter"]["Key"]["FilterRules"]
    assert (rule["Name"].lower(), rule["Value"]) == ("prefix", "2026/")


def test_a_bucket_that_refuses_is_a_sentence() -> None:
    refusing: Any = FakeSession(
        get_bucket_notification_configuration=client_error("NoSuchBucket", "no such bucket")
    )

    with pytest.raises(CheckFailed, match=r"The bucket uploads takes no notification: .*NoSuchB"):
        add_notification(refusing, PARAMETERS, STACK)
