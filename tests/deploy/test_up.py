"""`make deploy` up to the border of an account: what it runs, in which order, and what it asks."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from deploy.ask import ask_parameters, ask_target
from deploy.findings import Finding
from deploy.preflight import Account
from deploy.stack import TEMPLATE, DeployedStack, Target, describe, load_template
from deploy.stamp import stamp
from deploy.up import Tools, deploy, keep_images, sam_deploy_command
from tests.deploy.conftest import FakeSession, client_error, deployed_account, stack_description

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = TEMPLATE.read_text()


class FakeCommands:
    """``subprocess.run``. A command that contains the word ``fail`` returns 1."""

    def __init__(self, fail: str = "never", architecture: str = "amd64") -> None:
        self.ran: list[list[str]] = []
        self._fail = fail
        self._architecture = architecture

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.ran.append(command)
        status = int(self._fail in command)
        output = "" if status else f"{self._architecture} 300000000"
        return subprocess.CompletedProcess(command, status, output, "")

    @property
    def words(self) -> list[str]:
        return [next(w for w in ("build", "inspect", "deploy") if w in c) for c in self.ran]

    @property
    def overrides(self) -> list[str]:
        return [c[c.index("--parameter-overrides") + 1] for c in self.ran if "samcli" in c]


@dataclasses.dataclass
class Deployment:
    """The tools of a deployment, and what it did with them."""

    tools: Tools
    commands: FakeCommands
    checked: list[dict[str, str]]
    smoked: list[str]


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    built = tmp_path / "template.yaml"
    built.write_text(TEXT)
    commands, checked, smoked = FakeCommands(), [], []

    def check(parameters: dict[str, str], _: Account, **__: Any) -> list[Finding]:
        checked.append(dict(parameters))
        return [Finding("ok", "fine")]

    def smoke(_: Any, deployed: DeployedStack) -> int:
        smoked.append(deployed.name)
        return 0

    tools = Tools(
        run=commands,
        ask=None,
        check=check,
        smoke=smoke,
        config=tmp_path / "samconfig.toml",
        built=built,
    )
    return Deployment(tools, commands, checked, smoked)


def answers(*lines: str) -> Any:
    waiting: Iterator[str] = iter(lines)
    return lambda _: next(waiting)


def never(question: str) -> str:
    raise AssertionError(question)


def new_account() -> FakeSession:
    """Return an account whose stack exists once it was described for the third time."""
    missing = client_error("ValidationError", "s does not exist")
    return deployed_account(describe_stacks=iter([missing, stack_description()]))


# --- the order --------------------------------------------------------------------------------


def test_the_order_is_check_build_inspect_stamp_deploy(deployment: Deployment) -> None:
    session = deployed_account(parameters={"ApiAuth": "iam", "MemoryMb": "3008"})

    status = deploy(Target("clothes", given={"MemoryMb": "2048"}), session, deployment.tools)

    parameters = {"ApiAuth": "iam", "MemoryMb": "2048"}
    assert status == 0
    assert deployment.checked == [parameters]
    assert deployment.commands.words == ["build", "inspect", "deploy"]
    assert deployment.commands.overrides == ['ApiAuth="iam" MemoryMb="2048"'] * 2
    assert "--resolve-image-repos" in deployment.commands.ran[-1]  # SAM creates the repository
    assert deployment.tools.built.read_text() == stamp(TEXT, parameters)


def test_a_deployment_remembers_its_stack_and_region(deployment: Deployment) -> None:
    deploy(Target("clothes"), deployed_account(), deployment.tools)

    text = deployment.tools.config.read_text()
    assert 'stack_name = "clothes"' in text and 'region = "eu-central-1"' in text


@pytest.mark.parametrize("problem", ["preflight", "build", "architecture"])
def test_a_problem_before_the_deployment_leaves_aws_alone(
    deployment: Deployment, problem: str
) -> None:
    commands = FakeCommands(
        fail="build" if problem == "build" else "never",
        architecture="arm64" if problem == "architecture" else "amd64",
    )
    tools = dataclasses.replace(deployment.tools, run=commands)
    if problem == "preflight":
        stopped = [Finding("stop", "no credentials")]
        tools = dataclasses.replace(tools, check=lambda *_, **__: stopped)

    assert deploy(Target("clothes"), deployed_account(), tools) == 1
    assert "deploy" not in commands.words
    assert tools.built.read_text() == TEXT
    assert not tools.config.exists()


def test_an_x86_image_does_not_go_to_an_arm64_function(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    session = deployed_account(parameters={"Architecture": "arm64"})

    assert deploy(Target("clothes"), session, deployment.tools) == 1
    assert "built for amd64, and the function is Architecture=arm64" in capsys.readouterr().out


def test_after_a_rollback_the_deployment_carries_a_nonce(deployment: Deployment) -> None:
    deploy(Target("clothes"), deployed_account("UPDATE_ROLLBACK_COMPLETE"), deployment.tools)

    assert "DeploymentNonce" in deployment.commands.overrides[0]


def test_a_deployment_whose_name_cannot_be_written_succeeds(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = dataclasses.replace(deployment.tools, config=tmp_path)  # a folder

    assert deploy(Target("clothes"), deployed_account(), tools) == 0
    assert "not remembered" in capsys.readouterr().out


def test_a_failed_deployment_is_remembered_too(deployment: Deployment) -> None:
    """Its stack must be removed, and `make destroy` finds it in its region only."""
    tools = dataclasses.replace(deployment.tools, run=FakeCommands(fail="deploy"))

    assert deploy(Target("clothes"), new_account(), tools) == 1
    assert 'stack_name = "clothes"\nregion = "eu-central-1"' in tools.config.read_text()


def test_a_change_set_that_the_user_declined_is_no_deployment(deployment: Deployment) -> None:
    assert deploy(Target("s"), FakeSession(), deployment.tools) == 1
    assert deployment.smoked == []


# --- the first deployment ---------------------------------------------------------------------


def test_a_first_deployment_asks_then_checks_what_was_answered_and_ends_with_the_smoke_test(
    deployment: Deployment,
) -> None:
    # ApiAuth, ReservedConcurrency, AlarmEmail, the others?
    tools = dataclasses.replace(deployment.tools, ask=answers("iam", "", "me@example.com", "n"))

    assert deploy(Target("clothes"), new_account(), tools) == 0

    answered = {"ApiAuth": "iam", "ReservedConcurrency": "20", "AlarmEmail": "me@example.com"}
    assert deployment.checked == [{**answered, "ThrottleBurst": "20"}]
    assert deployment.smoked == ["clothes"]
    assert "--guided" not in deployment.commands.ran[-1]
    assert "--confirm-changeset" in deployment.commands.ran[-1]


@pytest.mark.parametrize(
    ("stack", "account"),
    [
        ("my_clothes", FakeSession()),
        ("clothes", FakeSession(describe_stacks=client_error("AccessDenied"))),
    ],
)
def test_no_question_comes_before_a_stop(
    deployment: Deployment, stack: str, account: FakeSession
) -> None:
    tools = dataclasses.replace(
        deployment.tools, ask=never, check=lambda _, found, **__: found.findings
    )

    assert deploy(Target(stack), account, tools) == 1
    assert deployment.commands.ran == []


def test_another_answer_than_the_proposed_ceiling_is_not_announced_as_chosen(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = dataclasses.replace(deployment.tools, ask=answers("iam", "5", "", "n"))

    assert deploy(Target("clothes"), new_account(), tools) == 0

    assert deployment.checked[0]["ReservedConcurrency"] == "5"
    printed = capsys.readouterr().out
    assert "ReservedConcurrency=20" not in printed and "ThrottleBurst=20 is chosen" in printed


def test_a_pipeline_is_asked_nothing(deployment: Deployment) -> None:
    assert deploy(Target("clothes"), new_account(), deployment.tools) == 0

    assert "--no-confirm-changeset" in deployment.commands.ran[-1]
    assert deployment.smoked == ["clothes"]


def test_a_failed_smoke_test_fails_a_first_deployment(deployment: Deployment) -> None:
    tools = dataclasses.replace(deployment.tools, smoke=lambda *_: 2)

    assert deploy(Target("clothes"), new_account(), tools) == 1


def test_a_later_deployment_asks_for_no_parameter(deployment: Deployment) -> None:
    tools = dataclasses.replace(deployment.tools, ask=never)

    assert deploy(Target("clothes"), deployed_account(), tools) == 0
    assert deployment.smoked == []


# --- the questions ----------------------------------------------------------------------------


def test_the_return_key_takes_what_is_offered(capsys: pytest.CaptureFixture[str]) -> None:
    target = ask_target(Target("clothes"), "eu-central-1", ask=answers("", ""))

    assert (target.stack, target.region) == ("clothes", "eu-central-1")
    parameters = ask_parameters({}, load_template(), named={}, ask=answers("", "", "", ""))
    assert parameters == {}
    assert "Who may call." in capsys.readouterr().out  # each question has its description


def test_an_answer_that_breaks_a_rule_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    ask = answers("everybody", "none", "", "", "")

    assert ask_parameters({}, load_template(), named={}, ask=ask) == {}
    assert "ApiAuth must be one of none, iam, jwt. Received: 'everybody'" in capsys.readouterr().out


def test_what_the_command_line_names_is_not_asked() -> None:
    named = {"ApiAuth": "iam", "AlarmEmail": "me@example.com"}
    ask = answers("5", "n")  # ReservedConcurrency, the others?

    assert ask_parameters(named, load_template(), named=named, ask=ask) == {
        **named,
        "ReservedConcurrency": "5",
    }


def test_the_other_parameters_are_asked_on_request() -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "y" if "See the other" in question else ""

    assert ask_parameters({}, load_template(), named={}, ask=ask) == {}
    named = {question.split()[0] for question in asked}
    jwt = {"JwtIssuer", "JwtAudience"}  # only with ApiAuth=jwt
    assert set(load_template()["Parameters"]) - jwt - {"DeploymentNonce"} <= named


# --- the images in ECR ------------------------------------------------------------------------


def kept(account: FakeSession) -> Finding:
    deployed = describe(account, "clothes")
    assert deployed
    return keep_images(account, deployed)


def test_a_repository_without_a_policy_gets_one() -> None:
    missing = boto3.client("ecr").exceptions.LifecyclePolicyNotFoundException(
        {"Error": {"Code": "LifecyclePolicyNotFoundException"}}, "GetLifecyclePolicy"
    )
    account = deployed_account(get_lifecycle_policy=missing, put_lifecycle_policy={})

    assert kept(account) == Finding("ok", "the repository repo keeps the newest 20 images")
    given = account.arguments("put_lifecycle_policy")
    assert given["repositoryName"] == "repo"
    (rule,) = json.loads(given["lifecyclePolicyText"])["rules"]
    assert (rule["selection"]["countNumber"], rule["action"]) == (20, {"type": "expire"})


def test_a_policy_that_exists_stays() -> None:
    account = deployed_account()

    assert kept(account) == Finding("ok", "the repository repo has a lifecycle policy")
    assert "put_lifecycle_policy" not in [name for name, _ in account.calls]


def test_a_repository_that_may_not_be_read_is_noted() -> None:
    assert kept(deployed_account(get_function=client_error("AccessDenied"))).level == "note"


# --- the command ------------------------------------------------------------------------------


def test_sam_keeps_no_answers() -> None:
    command = sam_deploy_command("s", {"A": "x y"}, "--more", region="eu-central-1", ask=True)

    assert {"--more", "--resolve-s3", "--confirm-changeset"} <= set(command)
    assert command[command.index("--region") + 1] == "eu-central-1"
    assert command[-2:] == ["--parameter-overrides", 'A="x y"']
