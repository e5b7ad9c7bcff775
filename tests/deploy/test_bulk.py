"""`make bulk`: what it deploys beside a service, and how it repeats lost batches."""

from __future__ import annotations

import io
import json
import shlex
from typing import Any

import boto3
import pytest
from botocore.exceptions import ReadTimeoutError
from moto import mock_aws

from deploy.findings import CheckFailed
from deploy.side.bulk import READ_TIMEOUT_S, deploy_bulk, retry
from deploy.stack import load_template
from tests.deploy.conftest import (
    ALIAS,
    FakeSession,
    client_error,
    deployed_account,
    stack_description,
    stacks,
)
from tests.deploy.test_up import FakeCommands

BUCKETS = {"ImageBucket": "photos", "ResultBucket": "results"}
STATES = "arn:aws:states:eu-central-1:123456789012"
MAP_RUN = f"{STATES}:mapRun:s-bulk/Batches:0123-abcd"


def service(buckets: str = "photos", bulk: Any = None, **parameters: str) -> FakeSession:
    found = stack_description(parameters={"ImageBuckets": buckets, **parameters})
    return deployed_account(describe_stacks=stacks(s=found, s_bulk=bulk))


def given_to_sam(commands: FakeCommands) -> dict[str, str]:
    (overrides,) = commands.overrides
    return dict(word.split("=", 1) for word in shlex.split(overrides))


def test_it_is_deployed_with_alias_and_mail_of_the_service() -> None:
    commands = FakeCommands()

    status = deploy_bulk(
        BUCKETS, stack="s", session=service("other,photos", AlarmEmail="a@b.c"), run=commands
    )

    (command,) = commands.ran
    assert status == 0
    assert command[command.index("--stack-name") + 1] == "s-bulk"
    assert command[command.index("--region") + 1] == "eu-central-1"
    expected = {**BUCKETS, "Function": ALIAS, "AlarmEmail": "a@b.c", "BatchSize": "40"}
    assert expected.items() <= given_to_sam(commands).items()
    assert "--confirm-changeset" in command


def test_a_pipeline_is_asked_nothing() -> None:
    commands = FakeCommands()

    deploy_bulk(BUCKETS, stack="s", session=service(), ask=False, run=commands)

    assert "--no-confirm-changeset" in commands.ran[0]


def test_what_nobody_names_keeps_its_value() -> None:
    standing = {**BUCKETS, "Function": "old", "BatchSize": "7", "AlarmEmail": "mine@b.c"}
    bulk = stack_description(parameters=standing, outputs={})
    commands = FakeCommands()

    deploy_bulk({}, stack="s", session=service(bulk=bulk, AlarmEmail="a@b.c"), run=commands)

    expected = {**standing, "Function": ALIAS}
    assert expected.items() <= given_to_sam(commands).items()


def test_a_bulk_stack_that_is_stuck_stops() -> None:
    stuck = stack_description("ROLLBACK_COMPLETE", outputs={})

    with pytest.raises(CheckFailed, match=r"s-bulk is in ROLLBACK_COMPLETE.*STACK=s-bulk"):
        deploy_bulk(BUCKETS, stack="s", session=service(bulk=stuck), run=FakeCommands())


@pytest.mark.parametrize(
    ("given", "buckets", "sentence"),
    [
        (BUCKETS, "", "make deploy STACK=s PARAMS='ImageBuckets=photos'"),
        (BUCKETS, "other", "PARAMS='ImageBuckets=other,photos'"),
        ({"ImageBucket": "photos"}, "photos", "ResultBucket=..."),
        ({**BUCKETS, "BatchSize": "0"}, "photos", "BatchSize must be a whole number, 1 to 200"),
        ({**BUCKETS, "Batch": "1"}, "photos", "no parameter Batch"),
    ],
)
def test_a_problem_stops_before_anything_is_created(
    given: dict[str, str], buckets: str, sentence: str
) -> None:
    commands = FakeCommands()

    with pytest.raises(CheckFailed, match=sentence):
        deploy_bulk(given, stack="s", session=service(buckets), run=commands)
    assert commands.ran == []


def test_without_a_service_it_says_what_to_do() -> None:
    with pytest.raises(CheckFailed, match="make deploy"):
        deploy_bulk(BUCKETS, stack="s", session=FakeSession())


# --- lost batches -----------------------------------------------------------------------------


def batch(*keys: str) -> dict[str, Any]:
    items = [{"Key": key, "Size": 1} for key in keys]
    return {"BatchInput": {"bucket": "photos"}, "Items": items}


class Run(FakeSession):
    """A run whose result folder is in moto's S3."""

    def __init__(self, *lost: dict[str, Any], redrive: str = "NOT_REDRIVABLE", **more: Any) -> None:
        super().__init__(
            describe_stacks=stack_description(
                parameters={
                    **{"ResultBucket": "results", "ResultPrefix": "classified"},
                    "Function": ALIAS,
                },
                outputs={"StateMachine": f"{STATES}:stateMachine:s-bulk"},
            ),
            describe_execution={"status": "SUCCEEDED", "redriveStatus": redrive},
            list_map_runs={"mapRuns": [{"mapRunArn": MAP_RUN}]},
            redrive_execution={},
            **more,
        )
        self.s3 = boto3.client("s3")
        self.s3.create_bucket(
            Bucket="results", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
        folder = "classified/0123-abcd/"
        failed = [{"Input": json.dumps(one), "Status": "FAILED"} for one in lost]
        files = [{"Key": f"{folder}FAILED_0.json", "Size": 1}] if lost else []
        self.put(f"{folder}manifest.json", {"ResultFiles": {"FAILED": files}})
        self.put(f"{folder}FAILED_0.json", failed)

    def put(self, key: str, content: Any) -> None:
        self.s3.put_object(Bucket="results", Key=key, Body=json.dumps(content).encode())

    def client(self, name: str, config: Any = None) -> Any:
        return self.s3 if name == "s3" else super().client(name, config)


@mock_aws
def test_lost_images_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(batch("1.jpg", "2.jpg"), batch("3.jpg"), redrive="REDRIVABLE")

    assert retry("run-1", stack="s", session=run) == 0

    printed = capsys.readouterr().out
    assert "2 batches with 3 images were lost." in printed
    assert "  1.jpg\n  2.jpg\n  3.jpg\n" in printed


@mock_aws
def test_a_failed_run_is_redriven() -> None:
    run = Run(batch("1.jpg"), redrive="REDRIVABLE")

    retry("run-1", stack="s", session=run)

    assert run.arguments("redrive_execution") == {
        "executionArn": f"{STATES}:execution:s-bulk:run-1"
    }


@mock_aws
def test_the_lost_batches_of_a_finished_run_are_classified_from_here() -> None:
    def invoke(FunctionName: str, Payload: str) -> dict[str, Any]:  # noqa: N803 - boto3's names
        assert FunctionName == ALIAS
        results = [{"key": item["Key"], "predictions": []} for item in json.loads(Payload)["Items"]]
        return {"Payload": io.BytesIO(json.dumps({"results": results}).encode())}

    run = Run(batch("1.jpg", "2.jpg"), batch("3.jpg"), invoke=invoke)

    assert retry("run-1", stack="s", session=run) == 0
    # template.yaml lets a function run for 280 s, and boto3 would give up after 60 and send again.
    config = run.configs["lambda"]
    assert (
        config.read_timeout
        == READ_TIMEOUT_S
        > load_template()["Parameters"]["TimeoutSeconds"]["MaxValue"] + 20
    )
    assert config.retries == {"total_max_attempts": 1}

    written = run.s3.get_object(Bucket="results", Key="classified/0123-abcd/RETRIED.jsonl")
    lines = written["Body"].read().decode().splitlines()
    assert [json.loads(line)["key"] for line in lines] == ["1.jpg", "2.jpg", "3.jpg"]


@mock_aws
def test_a_batch_that_is_lost_again_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    failed = {"FunctionError": "Unhandled", "Payload": io.BytesIO(b'{"errorType": "RetryBatch"}')}
    run = Run(batch("1.jpg"), invoke=failed)

    assert retry("run-1", stack="s", session=run) == 1
    assert "lost again: 1 images from 1.jpg on" in capsys.readouterr().out


@mock_aws
def test_a_run_without_losses_needs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert retry("run-1", stack="s", session=Run()) == 0
    assert "0 batches with 0 images" in capsys.readouterr().out


@mock_aws
@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"describe_execution": {"status": "RUNNING"}}, "not over"),
        ({"list_map_runs": {"mapRuns": []}}, "ended before its first batch"),
        ({"describe_stacks": stack_description(outputs={})}, "no stack s-bulk"),
        (
            {"describe_execution": client_error("ExecutionDoesNotExist", "Not there")},
            "ExecutionDoesNotExist: Not there. RETRY is the name of a run",
        ),
        ({"list_map_runs": client_error("AccessDeniedException")}, "AccessDenied"),
    ],
)
def test_a_run_that_cannot_be_repeated_says_why(changed: dict[str, Any], sentence: str) -> None:
    run = Run(batch("1.jpg"))
    run.prepared.update(changed)

    with pytest.raises(CheckFailed, match=sentence):
        retry("run-1", stack="s", session=run)


@mock_aws
def test_a_run_is_named_by_its_arn_too() -> None:
    run = Run(batch("1.jpg"), redrive="REDRIVABLE")
    execution = f"{STATES}:execution:s-bulk:run-1"

    assert retry(execution, stack="s", session=run) == 0
    assert run.arguments("redrive_execution") == {"executionArn": execution}


@mock_aws
def test_batches_that_never_began_are_lost_too(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(batch("1.jpg"), redrive="REDRIVABLE")
    folder = "classified/0123-abcd/"
    files = {"FAILED": [{"Key": f"{folder}FAILED_0.json"}], "PENDING": [{"Key": f"{folder}P.json"}]}
    run.put(f"{folder}manifest.json", {"ResultFiles": files})
    run.put(f"{folder}P.json", [{"Input": json.dumps(batch("2.jpg"))}])

    retry("run-1", stack="s", session=run)

    assert "2 batches with 2 images were lost." in capsys.readouterr().out


@mock_aws
@pytest.mark.parametrize(
    "manifest", [{}, [], {"ResultFiles": {}}, {"ResultFiles": {"FAILED": [{"Key": "none"}]}}]
)
def test_results_that_cannot_be_read_stop_a_repetition_but_no_redrive(manifest: Any) -> None:
    run = Run(batch("1.jpg"))
    run.put("classified/0123-abcd/manifest.json", manifest)

    with pytest.raises(CheckFailed, match="s3://results/classified/0123-abcd/ cannot be read"):
        retry("run-1", stack="s", session=run)

    run.prepared["describe_execution"] = {"status": "FAILED", "redriveStatus": "REDRIVABLE"}
    assert retry("run-1", stack="s", session=run) == 0


@mock_aws
def test_a_redrive_that_aws_refuses_is_a_sentence() -> None:
    run = Run(batch("1.jpg"), redrive="REDRIVABLE")
    run.prepared["redrive_execution"] = client_error("AccessDeniedException", "not you")

    with pytest.raises(CheckFailed, match="cannot be redriven: AccessDeniedException: not you"):
        retry("run-1", stack="s", session=run)


@mock_aws
@pytest.mark.parametrize(
    ("response", "said"),
    [
        (client_error("TooManyRequestsException", "Rate exceeded"), "TooManyRequestsException"),
        (ReadTimeoutError(endpoint_url="https://lambda.example"), "Read timeout"),
        ({"Payload": io.BytesIO(b"no JSON")}, "JSONDecodeError"),
        ({"Payload": io.BytesIO(b'{"status": 400}')}, "no results"),
        ({"Payload": io.BytesIO(b"[]")}, "no results"),
    ],
)
def test_a_call_that_fails_loses_its_batch_and_not_the_others(
    response: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    good = {"Payload": io.BytesIO(b'{"results": [{"key": "2.jpg"}]}')}
    run = Run(batch("1.jpg"), batch("2.jpg"), invoke=iter([response, good]))

    assert retry("run-1", stack="s", session=run) == 1

    printed = capsys.readouterr().out
    assert "lost again: 1 images from 1.jpg on" in printed and said in printed
    assert "Wrote 1 results" in printed


@mock_aws
def test_results_that_cannot_be_written_are_a_sentence() -> None:
    run = Run(batch("1.jpg"), invoke={"Payload": io.BytesIO(b'{"results": []}')})
    run.s3.put_object = lambda **_: (_ for _ in ()).throw(client_error("AccessDenied", "no"))

    with pytest.raises(CheckFailed, match=r"results cannot be written to s3://results/.*Denied"):
        retry("run-1", stack="s", session=run)
