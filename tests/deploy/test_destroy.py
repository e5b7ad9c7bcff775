"""`make destroy`: what goes first, what it asks, and what it takes along."""

from __future__ import annotations

from typing import Any

import pytest

from deploy.destroy import destroy
from deploy.findings import CheckFailed
from tests.deploy.conftest import FakeSession, client_error, stack_description, stacks
from tests.deploy.test_up import FakeCommands, answers

EVENTS = stack_description(
    parameters={"ImageUri": "image", "ImageBucket": "uploads"}, outputs={"QueueArn": "arn"}
)


def account(**descriptions: Any) -> FakeSession:
    ours = {"Id": "s-events", "QueueArn": "arn", "Events": ["s3:ObjectCreated:*"]}
    return FakeSession(
        describe_stacks=stacks(**descriptions),
        get_bucket_notification_configuration={"QueueConfigurations": [ours]},
        put_bucket_notification_configuration={},
    )


def test_it_asks_and_then_removes_the_stack() -> None:
    commands = FakeCommands()

    assert destroy("s", account(s=stack_description()), ask=answers("y"), run=commands) == 0

    assert commands.ran[0][1:] == [
        "-m", "samcli", "delete", "--stack-name", "s", "--region", "eu-central-1", "--no-prompts",
    ]  # fmt: skip


@pytest.mark.parametrize("answer", ["", "n", "yes please"])
def test_another_answer_removes_nothing(answer: str) -> None:
    commands, session = FakeCommands(), account(s_events=EVENTS)

    assert destroy("s-events", session, ask=answers(answer), run=commands) == 1
    assert commands.ran == []
    assert "put_bucket_notification_configuration" not in [name for name, _ in session.calls]


@pytest.mark.parametrize("side", ["s_bulk", "s_events"])
def test_a_service_that_another_stack_needs_stays(side: str) -> None:
    session, commands = account(s=stack_description(), **{side: EVENTS}), FakeCommands()

    with pytest.raises(CheckFailed, match=f"make destroy STACK={side.replace('_', '-')}"):
        destroy("s", session, ask=None, run=commands)
    assert commands.ran == []


def test_an_events_stack_takes_the_notification_of_its_bucket_along() -> None:
    session, commands = account(s_events=EVENTS), FakeCommands()

    assert destroy("s-events", session, ask=None, run=commands) == 0

    given = session.arguments("put_bucket_notification_configuration")
    assert given["NotificationConfiguration"]["QueueConfigurations"] == []
    assert len(commands.ran) == 1


def test_a_notification_that_stays_is_named_and_the_stack_goes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    session, commands = account(s_events=EVENTS), FakeCommands()
    session.prepared["get_bucket_notification_configuration"] = client_error("AccessDenied")

    assert destroy("s-events", session, ask=None, run=commands) == 0
    assert "Remove it in the S3 console" in capsys.readouterr().out


def test_a_stack_that_cloudformation_does_not_describe_is_left_to_sam() -> None:
    """A declined first change set leaves an image repository behind."""
    commands = FakeCommands()

    assert destroy("s", account(), ask=answers("y"), run=commands) == 0
    assert len(commands.ran) == 1


def test_the_status_of_sam_is_the_status() -> None:
    assert destroy("s", account(), ask=None, run=FakeCommands("delete")) == 1
