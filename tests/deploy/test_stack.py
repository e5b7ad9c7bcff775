"""Which stack and which parameters a command means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from deploy.findings import CheckFailed
from deploy.image.names import default_name
from deploy.stack import (
    STACK_FILES,
    DeployedStack,
    Target,
    command_line,
    describe,
    effective_parameters,
    load_template,
    open_session,
    read_parameters,
    read_target,
    remember,
    to_overrides,
)
from tests.deploy.conftest import FakeSession, client_error, deployed_account, stack_description

if TYPE_CHECKING:
    from pathlib import Path


def target_of(*words: str, config: Path, folder: Path) -> Target:
    options = command_line("up", None).parse_args([*words])
    return read_target(options, config=config, folder=folder)


def test_words_become_parameters() -> None:
    assert read_parameters(["A=1", 'B="x y" C=a=b']) == {"A": "1", "B": "x y", "C": "a=b"}


@pytest.mark.parametrize("words", [["oops"], ["=1"], ['A="1']])
def test_words_of_another_form_are_refused(words: list[str]) -> None:
    with pytest.raises(CheckFailed, match=r"Name=value|cannot be read"):
        read_parameters(words)


def test_overrides_keep_spaces_and_refuse_what_sam_would_change() -> None:
    assert to_overrides({"A": "x y", "B": ""}) == 'A="x y" B=""'
    with pytest.raises(CheckFailed, match="A must have no quote"):
        to_overrides({"A": 'x"y'})


def test_without_anything_the_default_stack_is_meant(tmp_path: Path) -> None:
    target = target_of(config=tmp_path / "none", folder=tmp_path)

    assert (target.stack, target.region, target.is_remembered) == (
        default_name(),
        None,
        False,
    )


def test_the_last_deployment_from_here_is_remembered(tmp_path: Path) -> None:
    config = tmp_path / "samconfig.toml"
    remember(Target("clothes"), "eu-west-1", config)

    target = target_of("MemoryMb=3008", config=config, folder=tmp_path)

    assert (target.stack, target.region, target.is_remembered) == ("clothes", "eu-west-1", True)
    assert target.given == {"MemoryMb": "3008"}


def test_somebody_s_own_samconfig_is_not_overwritten(tmp_path: Path) -> None:
    config = tmp_path / "samconfig.toml"
    own = '[default.deploy.parameters]\nstack_name = "mine"\ntags = "team=shop"\n'
    config.write_text(own)

    remember(Target("clothes"), "eu-west-1", config)

    assert config.read_text() == own
    assert target_of(config=config, folder=tmp_path).stack == "mine"


@pytest.mark.parametrize(
    ("name", "region"),
    [("clothes-bulk", "eu-west-1"), ("clothes-events", "eu-west-1"), ("clothes-2", None)],
)
def test_the_remembered_region_is_that_of_its_stack_and_of_those_beside_it(
    tmp_path: Path, name: str, region: str | None
) -> None:
    config = tmp_path / "samconfig.toml"
    remember(Target("clothes"), "eu-west-1", config)

    assert target_of("--stack", name, config=config, folder=tmp_path).region == region


def test_a_stack_file_names_stack_region_and_parameters(tmp_path: Path) -> None:
    (tmp_path / "dev.toml").write_text(
        'stack = "clothing-dev"\nregion = "eu-west-1"\n[parameters]\nThrottleRate = 5\n'
        'ImageBuckets = ["a", "b"]\n'
    )

    target = target_of("--stack", "dev", "A=1", config=tmp_path / "none", folder=tmp_path)

    from_file = {"ThrottleRate": "5", "ImageBuckets": "a,b"}
    assert target == Target("clothing-dev", "eu-west-1", {"A": "1"}, from_file, True)


@pytest.mark.parametrize("name", ["dev", "prod"])
def test_the_stack_files_of_this_repository_fit_the_template(name: str) -> None:
    from deploy.local_checks import check_parameters

    target = target_of("--stack", name, config=STACK_FILES / "none", folder=STACK_FILES)

    assert target.stack == f"{default_name()}-{name}"
    assert check_parameters(target.from_file, load_template())


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "samconfig.toml").write_text("no toml")

    with pytest.raises(CheckFailed, match=r"samconfig\.toml cannot be read"):
        target_of(config=tmp_path / "samconfig.toml", folder=tmp_path)


@pytest.mark.parametrize("text", ["default = 1", "[default]\ndeploy = []", "\xff"])
def test_a_file_of_another_form_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "samconfig.toml").write_bytes(text.encode("latin-1"))

    with pytest.raises(CheckFailed, match=r"samconfig\.toml"):
        target_of(config=tmp_path / "samconfig.toml", folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters = 3", "parameters must be a table. Received: 3"),
        ('ApiAuth = "iam"\n[parameters]', "ApiAuth is not known. Known: stack, region"),
        ('[Parameters]\nApiAuth = "iam"', "Parameters is not known"),
        ("region = 5", "region must be a text in quotes. Received: 5"),
    ],
)
def test_a_stack_file_of_another_form_is_named(tmp_path: Path, text: str, said: str) -> None:
    """A parameter that was left out without a word could open a protected API."""
    (tmp_path / "dev.toml").write_text(text)

    with pytest.raises(CheckFailed, match=rf"dev\.toml: {said}"):
        target_of("--stack", "dev", config=tmp_path / "none", folder=tmp_path)


def test_command_line_wins_over_file_and_file_over_stack() -> None:
    deployed = DeployedStack(
        "s", "UPDATE_COMPLETE", {"A": "1", "B": "1", "C": "1", "Gone": "1"}, {}
    )
    target = Target("s", None, {"A": "3"}, {"A": "2", "B": "2"})

    assert effective_parameters(target, deployed, ["A", "B", "C"]) == {"A": "3", "B": "2", "C": "1"}
    assert effective_parameters(target, None, ["A"]) == {"A": "3", "B": "2"}


def test_an_unknown_parameter_is_kept_for_the_check_that_names_it() -> None:
    assert effective_parameters(Target("s", None, {"Typo": "1"}), None, ["A"]) == {"Typo": "1"}


# --- AWS --------------------------------------------------------------------------------------


def test_a_stack_is_described_with_parameters_outputs_and_function() -> None:
    deployed = describe(deployed_account(parameters={"ApiAuth": "iam"}), "clothes")

    assert deployed is not None
    assert (deployed.status, deployed.parameters) == ("UPDATE_COMPLETE", {"ApiAuth": "iam"})
    assert deployed.function == "clothes-Function-1"


@pytest.mark.parametrize(
    "account",
    [FakeSession(), FakeSession(describe_stacks=stack_description("REVIEW_IN_PROGRESS"))],
    ids=["none", "only a change set"],
)
def test_a_stack_that_was_never_created_is_none(account: FakeSession) -> None:
    assert describe(account, "s") is None


def test_without_a_region_no_stack_is_asked_for() -> None:
    with pytest.raises(CheckFailed, match=r"^No region is chosen\. Set AWS_REGION"):
        describe(FakeSession(region=None), "s")


def test_a_stack_that_may_not_be_read_is_a_sentence() -> None:
    account = FakeSession(describe_stacks=client_error("AccessDenied", "you may not"))

    with pytest.raises(
        CheckFailed, match=r"s cannot be read: AccessDenied: you may not.*The deployer's rights"
    ):
        describe(account, "s")


@pytest.mark.parametrize(
    ("variables", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-west-1"),  # boto3 does not read it
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, "eu-west-2"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1"}, "eu-west-1"),
    ],
)
def test_the_region_is_the_one_of_either_variable(variables: dict[str, str], region: str) -> None:
    assert open_session(environ=variables).region_name == region


def test_the_region_of_the_stack_wins() -> None:
    environ = {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}

    assert open_session("eu-west-3", environ).region_name == "eu-west-3"


def test_two_regions_are_refused() -> None:
    with pytest.raises(CheckFailed, match=r"AWS_REGION=a and AWS_DEFAULT_REGION=b .* Unset one"):
        open_session(environ={"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b"})


def test_a_profile_that_does_not_exist_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "typo")

    with pytest.raises(CheckFailed, match="There is no AWS profile 'typo'"):
        open_session(environ={"AWS_PROFILE": "typo"})
