"""Each call to AWS refused in turn, for every command: the command ends with a sentence."""

from __future__ import annotations

import dataclasses
import io
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import EndpointConnectionError

from deploy import smoke, up
from deploy.destroy import destroy
from deploy.findings import run_command
from deploy.preflight import check_all
from deploy.side.bulk import deploy_bulk, retry
from deploy.side.events import deploy_events
from deploy.stack import TEMPLATE, Target, describe
from tests.conftest import TINY_MODEL
from tests.deploy.conftest import (
    ALIAS,
    FakeSession,
    client_error,
    deployed_account,
    stack_description,
    stacks,
)
from tests.deploy.test_local_checks import FakeDocker
from tests.deploy.test_up import FakeCommands

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUCKETS = {"ImageBucket": "photos", "ResultBucket": "results"}
STATES = "arn:aws:states:eu-central-1:1"
PROBLEMS = {
    "denied": client_error("AccessDeniedException", "You are not authorised.\nAsk somebody."),
    "unreachable": EndpointConnectionError(endpoint_url="https://x.example"),
}


def account() -> FakeSession:
    """Return an account with a service and both stacks beside it, where everything works."""
    lost = b'[{"Input": "{\\"Items\\": [{\\"Key\\": \\"1.jpg\\"}]}"}]'
    manifest = b'{"ResultFiles": {"FAILED": [{"Key": "FAILED_0.json"}]}}'

    def get_object(Key: str, **_: Any) -> Any:  # noqa: N803 - boto3's name
        return {"Body": io.BytesIO(manifest if Key.endswith("manifest.json") else lost)}

    def invoke(**_: Any) -> Any:
        return {"Payload": io.BytesIO(b'{"results": []}')}

    bulk = {**BUCKETS, "ResultPrefix": "classified", "Function": ALIAS}
    return deployed_account(
        describe_stacks=stacks(
            s=stack_description(parameters={"ImageBuckets": "photos"}),
            s_bulk=stack_description(
                parameters=bulk, outputs={"StateMachine": f"{STATES}:stateMachine:s-bulk"}
            ),
            s_events=stack_description(
                parameters={**BUCKETS, "ImageUri": "image"}, outputs={"QueueArn": "arn"}
            ),
        ),
        describe_execution={"status": "SUCCEEDED", "redriveStatus": "NOT_REDRIVABLE"},
        list_map_runs={"mapRuns": [{"mapRunArn": "a:b"}]},
        get_object=get_object,
        put_object={},
        invoke=invoke,
        get_bucket_notification_configuration={},
        put_bucket_notification_configuration={},
    )


def run_deploy(session: Any, folder: Path) -> int:
    (folder / "template.yaml").write_text(TEMPLATE.read_text())
    tools = dataclasses.replace(
        up.Tools(),
        run=FakeCommands(),
        ask=None,
        check=lambda parameters, account, run: check_all(
            parameters, account, model=TINY_MODEL, run=FakeDocker()
        ),
        smoke=lambda *_: 0,
        config=folder / "samconfig.toml",
        built=folder / "template.yaml",
    )
    return up.deploy(Target("s"), session, tools)


def run_smoke(session: Any, _: Path) -> int:
    deployed = describe(session, "s")
    assert deployed
    return smoke.smoke_stack(session, dataclasses.replace(deployed, outputs={}))


COMMANDS: dict[str, Callable[[Any, Path], int]] = {
    "deploy": run_deploy,
    "smoke": run_smoke,
    "bulk": lambda session, _: deploy_bulk({}, stack="s", session=session, run=FakeCommands()),
    "retry": lambda session, _: retry("run", stack="s", session=session),
    "events": lambda session, _: deploy_events({}, stack="s", session=session, run=FakeCommands()),
    "destroy": lambda session, _: destroy("s-events", session, ask=None, run=FakeCommands()),
}


def calls_of(name: str, folder: Path) -> list[str]:
    session = account()
    COMMANDS[name](session, folder)
    return sorted({call for call, _ in session.calls})


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_refused_call_ends_a_command_with_a_sentence(
    name: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = calls_of(name, tmp_path)
    assert calls
    for call in calls:
        session = account()
        session.prepared[call] = PROBLEMS[problem]
        capsys.readouterr()

        status = run_command(lambda s=session: COMMANDS[name](s, tmp_path))

        printed = capsys.readouterr().out
        assert status in (0, 1), call
        assert printed.strip(), call
        assert all(line == line.rstrip() for line in printed.splitlines()), call
        if status == 0:  # then the call was not essential, and the output says what it could not do
            assert "AccessDenied" in printed or "x.example" in printed, (call, printed)


def test_every_command_works_in_an_account_that_refuses_nothing(tmp_path: Path) -> None:
    results = {name: command(account(), tmp_path) for name, command in COMMANDS.items()}
    assert results == {**dict.fromkeys(COMMANDS, 0), "smoke": 1}  # which has no endpoint here
