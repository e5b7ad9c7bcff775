"""`make events`: the stack that it deploys, and the bucket's notification."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from moto import mock_aws

from deploy.bucket_notification import add_notification, remove_notification
from deploy.findings import CheckFailed
from deploy.side.events import deploy_events
from deploy.stack import DeployedStack
from tests.deploy.conftest import (
    FakeSession,
    client_error,
    deployed_account,
    stack_description,
    stacks,
)
from tests.deploy.test_bulk import given_to_sam
from tests.deploy.test_up import FakeCommands

BUCKETS = {"ImageBucket": "uploads", "ResultBucket": "results"}
QUEUE = "arn:aws:sqs:eu-central-1:123456789012:queue"
PARAMETERS = {**BUCKETS, "ImagePrefix": "2026/"}
STACK = DeployedStack("s-events", "CREATE_COMPLETE", PARAMETERS, {"QueueArn": QUEUE})
MODEL = f"s3://models/clothing-{'0f' * 32}.tflite"


def events_stack(status: str = "UPDATE_COMPLETE", **parameters: str) -> Any:
    return stack_description(status, {**BUCKETS, **parameters}, {"QueueArn": QUEUE})


def service(*, events: Any = None, after: Any = None, **parameters: str) -> FakeSession:
    """Return an account with a service.

    Args:
        events: the events stack before the deployment, or None.
        after: the events stack afterwards.
        parameters: of the service.
    """
    standing = {"Architecture": "arm64", "AlarmEmail": "a@b.c", **parameters}
    descriptions = iter([events, after or events_stack()])

    def describe_stacks(StackName: str) -> Any:  # noqa: N803 - boto3's name
        if StackName == "s-events":
            return stacks(s_events=next(descriptions))(StackName)
        return stacks(s=stack_description(parameters=standing))(StackName)

    return deployed_account(
        describe_stacks=describe_stacks,
        get_bucket_notification_configuration={},
        put_bucket_notification_configuration={},
    )


def notified(session: FakeSession) -> list[tuple[str, list[Any]]]:
    """Return (bucket, notifications) of each change."""
    return [
        (given["Bucket"], given["NotificationConfiguration"]["QueueConfigurations"])
        for name, given in session.calls
        if name == "put_bucket_notification_configuration"
    ]


def test_it_runs_the_service_s_image_and_model_with_its_processor_and_mail() -> None:
    commands, session = FakeCommands(), service(ModelUri=MODEL, MinScore="0.3")

    assert deploy_events(BUCKETS, stack="s", session=session, run=commands) == 0

    (command,) = commands.ran
    assert command[command.index("--stack-name") + 1] == "s-events"
    expected = {
        **BUCKETS,
        "ImageUri": "1.dkr.ecr.eu-central-1.amazonaws.com/repo:t",
        "Architecture": "arm64",
        "AlarmEmail": "a@b.c",
        "ModelUri": MODEL,
        "MinScore": "0.3",
    }
    assert expected.items() <= given_to_sam(commands).items()
    assert [bucket for bucket, _ in notified(session)] == ["uploads"]


def test_what_nobody_names_keeps_its_value_and_the_image_is_the_newest() -> None:
    standing = events_stack(ImagePrefix="in/", ImageUri="old", AlarmEmail="mine@b.c")
    commands, session = FakeCommands(), service(events=standing, after=standing)

    assert deploy_events({}, stack="s", session=session, run=commands) == 0

    given = given_to_sam(commands)
    assert (given["ImagePrefix"], given["AlarmEmail"]) == ("in/", "mine@b.c")
    assert given["ImageUri"] == "1.dkr.ecr.eu-central-1.amazonaws.com/repo:t"


def test_the_loop_check_sees_what_the_stack_has() -> None:
    """The command line names neither prefix, and their defaults would be fine together."""
    standing = events_stack(ImageBucket="one", ResultBucket="one", ImagePrefix="in/")
    session = service(events=standing)

    with pytest.raises(CheckFailed, match="would be classified as uploads of 'in/'"):
        deploy_events({"ResultPrefix": "in/out/"}, stack="s", session=session, run=FakeCommands())


def test_the_notification_is_that_of_the_deployed_stack() -> None:
    """Who declines the change set keeps the stack, whatever the command line said."""
    standing = events_stack(ImagePrefix="in/")
    session = service(events=standing, after=standing)

    deploy_events({"ImagePrefix": "other/"}, stack="s", session=session, run=FakeCommands())

    ((_, (notification,)),) = notified(session)
    assert notification["Filter"]["Key"]["FilterRules"][0]["Value"] == "in/"


@pytest.mark.parametrize(
    ("prefix", "filtered"),
    [
        ("2026/in-1_a.b/", "2026/in-1_a.b/"),
        ("my photos/", "my+photos/"),
        ("a+b=c/", "a%2Bb%3Dc/"),
        ("Fu\u00df/", "Fu%C3%9F/"),
    ],
)
def test_a_prefix_of_special_characters_is_encoded_as_s3_asks(prefix: str, filtered: str) -> None:
    standing = events_stack(ImagePrefix=prefix)
    session = service(events=standing, after=standing)

    deploy_events({}, stack="s", session=session, run=FakeCommands())

    ((_, (notification,)),) = notified(session)
    assert notification["Filter"]["Key"]["FilterRules"][0]["Value"] == filtered


def test_another_bucket_takes_the_notification_from_the_one_before() -> None:
    session = service(events=events_stack(ImageBucket="before"), after=events_stack())

    deploy_events(BUCKETS, stack="s", session=session, run=FakeCommands())

    (before, gone), (now, added) = notified(session)
    assert (before, gone, now, len(added)) == ("before", [], "uploads", 1)


def test_a_declined_change_set_is_no_deployment(capsys: pytest.CaptureFixture[str]) -> None:
    session = service(after=stack_description("REVIEW_IN_PROGRESS", outputs={}))

    assert deploy_events(BUCKETS, stack="s", session=session, run=FakeCommands()) == 1
    assert "Nothing was deployed" in capsys.readouterr().out
    assert notified(session) == []


def test_an_events_stack_that_is_stuck_stops() -> None:
    session = service(events=events_stack("UPDATE_ROLLBACK_FAILED"))

    with pytest.raises(CheckFailed, match="continue-update-rollback --stack-name s-events"):
        deploy_events(BUCKETS, stack="s", session=session, run=FakeCommands())


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
        (
            {**BUCKETS, "ImagePrefix": "写真/"},
            "must be of characters that a role's policy can hold",
        ),
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
    assert notified(session) == []


@mock_aws
def test_other_notifications_of_the_bucket_stay() -> None:
    s3 = boto3.client("s3")
    where = {"LocationConstraint": "eu-central-1"}
    s3.create_bucket(Bucket="uploads", CreateBucketConfiguration=where)
    other = {"Id": "other", "QueueArn": QUEUE, "Events": ["s3:ObjectRemoved:*"]}
    s3.put_bucket_notification_configuration(
        Bucket="uploads", NotificationConfiguration={"QueueConfigurations": [other]}
    )

    def notifications() -> list[Any]:
        found = s3.get_bucket_notification_configuration(Bucket="uploads")
        queues: list[Any] = found["QueueConfigurations"]
        return queues

    for _ in range(2):  # a second deployment changes nothing
        add_notification(boto3, PARAMETERS, STACK)
    assert [queue["Id"] for queue in notifications()] == ["other", "s-events"]
    assert notifications()[1]["Events"] == ["s3:ObjectCreated:*"]
    (rule,) = notifications()[1]["Filter"]["Key"]["FilterRules"]
    assert (rule["Name"].lower(), rule["Value"]) == ("prefix", "2026/")

    remove_notification(boto3, STACK)
    assert [queue["Id"] for queue in notifications()] == ["other"]


def test_a_bucket_that_refuses_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    refusing: Any = FakeSession(
        get_bucket_notification_configuration=client_error("NoSuchBucket", "no such bucket")
    )

    with pytest.raises(CheckFailed, match=r"bucket uploads takes no notification: NoSuchBucket"):
        add_notification(refusing, PARAMETERS, STACK)
    remove_notification(refusing, STACK)
    assert "may keep the notification s-events" in capsys.readouterr().out


def test_a_bucket_that_is_not_there_stops_before_anything_is_created() -> None:
    session, commands = service(), FakeCommands()
    session.prepared["get_bucket_notification_configuration"] = client_error("NoSuchBucket")

    with pytest.raises(CheckFailed, match="of the bucket uploads cannot be read: NoSuchBucket"):
        deploy_events(BUCKETS, stack="s", session=session, run=commands)
    assert commands.ran == []


def test_an_image_that_may_not_be_read_is_a_sentence() -> None:
    session = service()
    session.prepared["get_function"] = client_error("AccessDeniedException", "not you")

    with pytest.raises(CheckFailed, match="image cannot be read: AccessDeniedException: not you"):
        deploy_events(BUCKETS, stack="s", session=session, run=FakeCommands())
