"""All checks together, in many accounts: every problem is a sentence, never a traceback."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
    TokenRetrievalError,
)

from deploy.findings import show
from deploy.preflight import check_all, choose_parameters, look_at_account, notes_on_chosen
from deploy.stack import Target, load_template
from tests.conftest import TINY_MODEL
from tests.deploy.conftest import FakeSession, client_error, deployed_account, stack_description
from tests.deploy.test_local_checks import FakeDocker

TEMPLATE = load_template()
UNREACHABLE = EndpointConnectionError(endpoint_url="https://x.example")
IDENTITY_PROBLEMS: dict[str, Any] = {
    "no credentials": NoCredentialsError(),
    "half": PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"),
    "expired": client_error("ExpiredToken", "The security token is expired"),
    "sso": TokenRetrievalError(provider="sso", error_msg="expired"),
    "unreachable": UNREACHABLE,
    "timeout": ConnectTimeoutError(endpoint_url="https://x.example"),
    "tls": SSLError(endpoint_url="https://x.example", error="self-signed"),
    "endpoint": ValueError("Invalid endpoint: https://sts..amazonaws.com"),
}
LATER_PROBLEMS: dict[str, Any] = {
    "denied": client_error("AccessDenied", "not authorised to perform"),
    "throttled": client_error("Throttling", "Rate exceeded"),
    "unreachable": UNREACHABLE,
}
OPERATIONS = ("describe_stacks", "get_account_settings", "get_alias", "describe_stack_resources")
STUCK = (
    *("ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "UPDATE_IN_PROGRESS", "DELETE_FAILED", "ODD"),
)
QUOTAS = {
    "10": (10, 10), "50": (50, 50), "100": (100, 100), "1000": (1000, 1000), "used": (1000, 100),
}  # fmt: skip


def accounts() -> dict[str, FakeSession]:
    """Return accounts by name: all that a review of real ones named."""
    found = {"new": FakeSession(), "deployed": deployed_account()}
    for region in (None, "", "mars-north-1", "cn-north-1", "us-gov-west-1"):
        found[f"region {region}"] = FakeSession(region=region)
    for name, problem in IDENTITY_PROBLEMS.items():
        found[f"identity {name}"] = FakeSession(get_caller_identity=problem)
    for operation, (name, problem) in itertools.product(OPERATIONS, LATER_PROBLEMS.items()):
        found[f"{operation} {name}"] = deployed_account(**{operation: problem})
    for status in STUCK:
        found[f"stack {status}"] = deployed_account(status)
    for name, (total, free) in QUOTAS.items():
        limits = {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": free}
        settings = {"AccountLimit": limits}
        found[f"new, quota {name}"] = FakeSession(get_account_settings=settings)
        found[f"deployed, quota {name}"] = deployed_account(get_account_settings=settings)
    found["moved by hand"] = deployed_account(alias_version="5")
    found["only a change set"] = FakeSession(
        describe_stacks=stack_description("REVIEW_IN_PROGRESS")
    )
    found["no outputs"] = deployed_account(describe_stacks=stack_description(outputs={}))
    found["no version"] = deployed_account(describe_stack_resources={"StackResources": []})
    return found


def checked(account: FakeSession, **given: str) -> list[Any]:
    found = look_at_account(account, "clothes")
    target = Target("clothes", given=given)
    parameters, chosen = choose_parameters(target, found, TEMPLATE)
    findings = check_all(parameters, found, model=TINY_MODEL, run=FakeDocker())
    return [*findings, *notes_on_chosen(chosen, parameters)]


@pytest.mark.parametrize("name", accounts())
@pytest.mark.parametrize("given", [{}, {"ReservedConcurrency": "20", "ApiAuth": "iam"}])
def test_every_account_gives_sentences(name: str, given: dict[str, str]) -> None:
    for finding in checked(accounts()[name], **given):
        assert finding.level in ("ok", "note", "stop")
        assert finding.text
        assert "Traceback" not in finding.text
        if finding.level == "stop":
            assert finding.text.endswith((".", "'"))


@pytest.mark.parametrize(
    "name",
    [
        *(f"identity {name}" for name in IDENTITY_PROBLEMS),
        *(f"stack {status}" for status in STUCK),
        *("moved by hand", "no outputs", "region None", "region mars-north-1"),
    ],
)
def test_a_deployment_that_would_fail_is_stopped(name: str) -> None:
    assert [finding for finding in checked(accounts()[name]) if finding.level == "stop"]


@pytest.mark.parametrize(
    "name",
    [
        *("new", "deployed", "only a change set", "get_alias denied"),
        *("region cn-north-1", "region us-gov-west-1"),
    ],
)
def test_a_deployment_that_works_is_not_stopped(name: str) -> None:
    assert show(checked(accounts()[name], ApiAuth="iam"))


def test_every_problem_is_listed_and_not_only_the_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = look_at_account(FakeSession(get_caller_identity=NoCredentialsError()), "s")
    findings = check_all(
        {"MemoryMb": "1"}, found, model=TINY_MODEL.with_name("none"), run=FakeDocker({"version": 1})
    )

    assert not show(findings)
    assert capsys.readouterr().out.count("STOP") == 4


@pytest.mark.parametrize(
    "account",
    [
        *("new", "identity no credentials", "region None", "region mars-north-1"),
        "describe_stacks denied",
    ],
)
def test_a_name_that_no_stack_can_have_is_named_without_an_account_too(account: str) -> None:
    findings = look_at_account(accounts()[account], "bad name!").findings

    (stop,) = [f.text for f in findings if f.level == "stop" and "'bad name!'" in f.text]
    assert "letters, digits and hyphens" in stop


def test_a_stack_that_exists_keeps_its_long_name() -> None:
    assert show(look_at_account(deployed_account(), "a" * 100).findings)


# --- the ceiling ------------------------------------------------------------------------------


def chosen(account: FakeSession, **given: str) -> dict[str, str]:
    found = look_at_account(account, "clothes")
    return choose_parameters(Target("clothes", given=given), found, TEMPLATE)[0]


def test_a_new_stack_gets_a_ceiling() -> None:
    assert chosen(FakeSession()) == {"ReservedConcurrency": "20", "ThrottleBurst": "20"}


def test_a_ceiling_that_was_named_or_is_deployed_stays() -> None:
    assert chosen(FakeSession(), ReservedConcurrency="0", ThrottleBurst="9") == {
        "ReservedConcurrency": "0",
        "ThrottleBurst": "9",
    }
    assert chosen(deployed_account(parameters={"ReservedConcurrency": "0"})) == {
        "ReservedConcurrency": "0"
    }


@pytest.mark.parametrize(
    ("reserved", "throttle"),
    [
        ("5", {"ThrottleRate": "12", "ThrottleBurst": "5"}),  # 5 at once, of 0.4 s each
        ("500", {}),  # so the template's 20 a second and 40 at once fit
        ("0", {}),
        ("many", {"ThrottleBurst": "20"}),  # its own check stops it
    ],
)
def test_the_throttle_follows_a_ceiling_that_was_named(
    reserved: str, throttle: dict[str, str]
) -> None:
    expected = {"ReservedConcurrency": reserved, **throttle}
    assert chosen(FakeSession(), ReservedConcurrency=reserved) == expected


def test_an_account_that_can_reserve_nothing_gets_no_ceiling() -> None:
    assert chosen(accounts()["new, quota 10"]) == {"ThrottleBurst": "10"}


def test_a_choice_that_the_user_changed_is_not_announced() -> None:
    proposed = {"ReservedConcurrency": "20", "ThrottleBurst": "20"}
    answered = {"ReservedConcurrency": "5", "ThrottleBurst": "20"}

    (note,) = notes_on_chosen(proposed, answered)
    assert note.text.startswith("ThrottleBurst=20 is chosen")


def bill(account: FakeSession, **given: str) -> str:
    (note,) = [f.text for f in checked(account, **given) if "The bill at worst" in f.text]
    return note


def test_the_bill_is_that_of_this_account() -> None:
    """By hand: 86,400 s at 1,769/1,024 GB and 0.0000166667 USD are 2.4877 USD for each call."""
    ten = bill(accounts()["new, quota 10"])
    assert "10 run at once" in ten and "up to 25 USD a day" in ten
    fifty = bill(accounts()["new, quota 50"])
    assert "50 run at once" in fifty and "up to 124 USD a day" in fifty
    assert "ReservedConcurrency=10" not in fifty  # which this account cannot reserve

    unknown = bill(accounts()["get_account_settings denied"])
    assert "580 run at once" in unknown and "takes the usual 1,000" in unknown

    twenty = bill(accounts()["new"])
    assert "20 run at once" in twenty and "up to 50 USD a day" in twenty
    assert "ReservedConcurrency=10 would limit it to 25" in twenty


def test_a_protected_api_has_a_bill_too() -> None:
    assert "its callers" in bill(accounts()["new"], ApiAuth="iam")


def test_buckets_of_another_partition_stop_until_the_template_names_it() -> None:
    stops = [
        f.text
        for f in checked(accounts()["region cn-north-1"], ImageBuckets="photos")
        if f.level == "stop"
    ]
    assert len(stops) == 1
    assert "ImageBuckets=photos needs arn:aws-cn:s3 instead of arn:aws:s3" in stops[0]


# --- the command ------------------------------------------------------------------------------
