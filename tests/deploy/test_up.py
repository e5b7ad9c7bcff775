"""`make deploy` up to the border of an account: what would be run, in which order, with what."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from samtranslator.yaml_helper import yaml_parse

from deploy import up as deploying
from deploy.bulk import deploy_bulk
from deploy.preflight import Finding
from deploy.stack import Kept, Stop, deployed_parameters, merged, read_kept
from deploy.stack import main as say_stack
from deploy.up import deploy, sam_deploy_command, stamp
from tests.support.template import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = (REPOSITORY / "template.yaml").read_text()
CONFIG = """
version = 0.1
[default.deploy.parameters]
stack_name = "clothes"
parameter_overrides = "MemoryMb=\\"3008\\" AlarmEmail=\\"me@example.com\\""
"""


class Commands:
    """Stands for subprocess.run; `fail` is a word of the command that does."""

    def __init__(self, fail: str = "never") -> None:
        self.ran: list[list[str]] = []
        self._fail = fail

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.ran.append(command)
        status = int(self._fail in command)
        return subprocess.CompletedProcess(command, status, "" if status else "300000000", "")

    @property
    def words(self) -> list[str]:
        return [next(w for w in ("build", "inspect", "deploy") if w in c) for c in self.ran]


class Session:
    """An account with one stack, or none."""

    region_name = "eu-central-1"

    def __init__(
        self, parameters: dict[str, str] | None = None, status: str = "UPDATE_COMPLETE"
    ) -> None:
        self._parameters = parameters
        self._status = status

    def client(self, _: str) -> Session:
        return self

    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        if self._parameters is None:
            raise ClientError({"Error": {"Message": "does not exist"}}, "DescribeStacks")
        pairs = self._parameters.items()
        listed = [{"ParameterKey": key, "ParameterValue": value} for key, value in pairs]
        return {"Stacks": [{"Parameters": listed, "StackStatus": self._status}]}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    built = tmp_path / "template.yaml"
    built.write_text(TEMPLATE)
    return {"config": tmp_path / "samconfig.toml", "built": built}


def fine(*_: Any, **__: Any) -> list[Finding]:
    return [Finding("ok", "fine")]


def bad(*_: Any, **__: Any) -> list[Finding]:
    return [Finding("stop", "no credentials")]


def test_stamp_changes_the_description_with_the_parameters_and_nothing_else() -> None:
    one, same, other = (stamp(TEMPLATE, p) for p in ({"A": "1"}, {"A": "1"}, {"A": "2"}))
    assert one == same != other
    template = yaml_parse(one)
    description = template["Resources"]["Function"]["Properties"].pop("Description")
    assert description.startswith("Classifies images of clothing (parameters ")
    original = yaml_parse(TEMPLATE)
    del original["Resources"]["Function"]["Properties"]["Description"]
    assert template == original


def test_a_stamped_description_publishes_a_version() -> None:
    import boto3
    from samtranslator.parser.parser import Parser
    from samtranslator.translator.translator import Translator

    from tests.support.template import PSEUDO

    def version(parameters: dict[str, str]) -> str:
        session = boto3.Session(region_name="eu-central-1")
        template = yaml_parse(stamp(TEMPLATE, parameters))
        values = {k: str(p["Default"]) for k, p in template["Parameters"].items()}
        made = Translator({}, Parser(), boto_session=session).translate(
            template, {**PSEUDO, **values, **parameters}
        )
        (name,) = [n for n, r in made["Resources"].items() if r["Type"] == "AWS::Lambda::Version"]
        return name

    assert version({"MemoryMb": "1769"}) != version({"MemoryMb": "3008"})
    assert version({"MemoryMb": "3008"}) == version({"MemoryMb": "3008"})


def test_a_template_without_the_description_is_not_deployed_unstamped() -> None:
    with pytest.raises(Stop, match="0 descriptions"):
        stamp("Resources: {}", {})


def test_kept_answers_are_read_as_sam_writes_them(tmp_path: Path) -> None:
    path = tmp_path / "samconfig.toml"
    assert read_kept(path) == Kept(None, None, {})
    path.write_text(CONFIG)
    answers = {"MemoryMb": "3008", "AlarmEmail": "me@example.com"}
    assert read_kept(path) == Kept("clothes", None, answers)
    path.write_text('[default.deploy.parameters]\nparameter_overrides = ["A=1", "B=2"]\n')
    assert read_kept(path).parameters == {"A": "1", "B": "2"}
    path.write_text('[default.deploy.parameters]\nregion = "eu-west-1"\n')
    assert read_kept(path) == Kept(None, "eu-west-1", {})
    path.write_text("[default.build.parameters]\ncached = true\n")
    assert read_kept(path) == Kept(None, None, {})
    path.write_text("no toml")
    with pytest.raises(Stop, match=r"samconfig\.toml cannot be read"):
        read_kept(path)


def test_what_is_said_wins_over_the_stack_and_that_over_the_first_answers() -> None:
    kept = Kept("clothes", None, {"ApiAuth": "none", "MemoryMb": "1769"})
    declared = ["ApiAuth", "MemoryMb", "ImageBuckets"]
    deployed = {"ApiAuth": "iam", "ImageBuckets": "photos", "MemoryMb": "3008", "Gone": "1"}
    given = {"MemoryMb": "3538"}
    assert merged(given, deployed, kept, declared) == {
        "ApiAuth": "iam", "ImageBuckets": "photos", "MemoryMb": "3538"
    }  # fmt: skip
    assert merged(given, None, kept, declared) == {"ApiAuth": "none", "MemoryMb": "3538"}
    assert merged({"Typo": "1"}, None, Kept(None, None, {}), declared) == {"Typo": "1"}  # preflight


def test_a_stack_that_was_only_reviewed_is_not_there_yet() -> None:
    assert deployed_parameters(Session({"A": "1"}), "s") == {"A": "1"}
    assert deployed_parameters(Session({"A": "1"}, "REVIEW_IN_PROGRESS"), "s") is None
    assert deployed_parameters(Session(), "s") is None


def test_the_stack_deployed_from_here_is_the_one_that_is_destroyed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "samconfig.toml"
    path.write_text(CONFIG + 'region = "eu-west-1"\n')
    monkeypatch.setattr("deploy.stack.read_kept", lambda: read_kept(path))
    say_stack([])
    say_stack(["--stack", "clothes-bulk"])
    assert capsys.readouterr().out.splitlines() == [
        "--stack-name clothes --region eu-west-1",
        "--stack-name clothes-bulk --region eu-west-1",
    ]


def test_first_deployment_is_guided_and_later_ones_ask_for_nothing_new() -> None:
    assert "--guided" in sam_deploy_command("s", {}, guided=True)
    # Else SAM asks for a repository, keeps it, and refuses it beside the later runs' option.
    assert "--resolve-image-repos" in sam_deploy_command("s", {}, guided=True)
    later = sam_deploy_command("s", {"A": "x y"}, guided=False)
    assert "--guided" not in later
    assert {"--confirm-changeset", "--resolve-image-repos"} <= set(later)
    assert later[-2:] == ["--parameter-overrides", 'A="x y"']


def test_order_is_preflight_build_stamp_deploy(files: dict[str, Path]) -> None:
    files["config"].write_text(CONFIG)
    commands, seen = Commands(), []

    def findings(parameters: dict[str, str], **_: Any) -> list[Finding]:
        seen.append(dict(parameters))
        return fine()

    status = deploy(
        {"MemoryMb": "2048"},
        stack="s",
        session=Session({"ApiAuth": "iam", "MemoryMb": "3008"}),
        run=commands,
        findings=findings,
        **files,
    )
    assert status == 0
    effective = {"ApiAuth": "iam", "MemoryMb": "2048"}  # the stack's, not the first answers
    assert seen == [effective]
    assert commands.words == ["build", "inspect", "deploy"]
    assert commands.ran[-1][-1] == commands.ran[0][-1] == 'ApiAuth="iam" MemoryMb="2048"'
    assert files["built"].read_text() == stamp(TEMPLATE, effective)


def test_another_machine_leaves_a_stack_s_parameters_alone(files: dict[str, Path]) -> None:
    commands = Commands()
    session = Session({"ApiAuth": "jwt", "ReservedConcurrency": "20"})
    assert deploy({}, stack="s", session=session, run=commands, findings=fine, **files) == 0
    command = commands.ran[-1]
    assert "--guided" not in command  # it would offer the template's defaults
    assert command[-1] == 'ApiAuth="jwt" ReservedConcurrency="20"'
    assert command[command.index("--region") + 1] == "eu-central-1"


def test_a_pipeline_is_asked_nothing(files: dict[str, Path]) -> None:
    for session in (Session(), Session({"ApiAuth": "iam"})):
        commands = Commands()
        files["built"].write_text(TEMPLATE)
        deploy({}, stack="s", session=session, ask=False, run=commands, findings=fine, **files)
        command = commands.ran[-1]
        assert "--no-confirm-changeset" in command
        assert "--guided" not in command


def test_the_first_deployment_asks(files: dict[str, Path]) -> None:
    commands = Commands()
    assert deploy({}, stack="s", session=Session(), run=commands, findings=fine, **files) == 0
    assert "--guided" in commands.ran[-1]


@pytest.mark.parametrize("answer", [bad, fine], ids=["preflight", "build"])
def test_nothing_half_done(files: dict[str, Path], answer: Any) -> None:
    commands = Commands(fail="build")
    assert deploy({}, stack="s", session=Session(), run=commands, findings=answer, **files) == 1
    assert "deploy" not in commands.words
    assert files["built"].read_text() == TEMPLATE


def test_an_image_whose_size_cannot_be_asked_is_deployed_all_the_same(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    commands = Commands(fail="inspect")
    assert deploy({}, stack="s", session=Session(), run=commands, findings=fine, **files) == 0
    assert commands.words[-1] == "deploy" and "image of" not in capsys.readouterr().out


def test_the_description_is_the_template_s() -> None:
    template = yaml_parse(TEMPLATE)
    assert template["Resources"]["Function"]["Properties"]["Description"] == deploying.DESCRIPTION


# --- bulk -----------------------------------------------------------------------------------

ALIAS = "arn:aws:lambda:eu-central-1:123456789012:function:clothes-Function-1:live"
BUCKETS = {"ImageBucket": "pictures", "ResultBucket": "results"}


class Service:
    """An account whose stack has been deployed, with these buckets to read."""

    region_name = "eu-central-1"

    def __init__(self, buckets: str) -> None:
        self._buckets = buckets

    def client(self, _: str) -> Service:
        return self

    def describe_stacks(self, *, StackName: str) -> dict[str, Any]:  # noqa: N803 - boto3's
        outputs = [{"OutputKey": "FunctionAlias", "OutputValue": ALIAS}]
        parameters = [{"ParameterKey": "ImageBuckets", "ParameterValue": self._buckets}]
        return {"Stacks": [{"Outputs": outputs, "Parameters": parameters}]}


def test_bulk_is_deployed_with_the_service_s_alias() -> None:
    commands = Commands()
    assert deploy_bulk(BUCKETS, stack="s", session=Service("other,pictures"), run=commands) == 0
    (command,) = commands.ran
    assert command[command.index("--stack-name") + 1] == "s-bulk"
    assert command[command.index("--region") + 1] == "eu-central-1"
    overrides = command[command.index("--parameter-overrides") + 1]
    assert overrides == f'Function="{ALIAS}" ImageBucket="pictures" ResultBucket="results"'


@pytest.mark.parametrize(
    ("given", "buckets", "sentence"),
    [
        (BUCKETS, "", "PARAMS='ImageBuckets=pictures'"),
        (BUCKETS, "other", "PARAMS='ImageBuckets=other,pictures'"),
        ({"ImageBucket": "pictures"}, "pictures", "ResultBucket=..."),
        ({**BUCKETS, "BatchSize": "0"}, "pictures", "BatchSize must be a whole number, 1 to 200"),
        ({**BUCKETS, "Batch": "1"}, "pictures", "no parameter Batch"),
    ],
)
def test_bulk_stops_before_anything_is_created(
    given: dict[str, str], buckets: str, sentence: str
) -> None:
    commands = Commands()
    with pytest.raises(Stop, match=sentence):
        deploy_bulk(given, stack="s", session=Service(buckets), run=commands)
    assert commands.ran == []


def test_bulk_without_a_service_stops_with_what_to_do() -> None:
    with pytest.raises(Stop, match="make deploy"):
        deploy_bulk(BUCKETS, stack="s", session=Session())
