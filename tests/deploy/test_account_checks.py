"""Checks in the account, one at a time."""

from __future__ import annotations

import botocore.session
import pytest
from botocore.exceptions import EndpointConnectionError, NoCredentialsError

from deploy import account_checks as checks
from deploy.account_checks import Quota
from deploy.findings import CheckFailed, Finding
from deploy.local_checks import with_defaults
from deploy.stack import DeployedStack, describe, load_template
from tests.deploy.conftest import FakeSession, client_error, deployed_account, stack_description

DEFAULTS = with_defaults({}, load_template())
UNREACHABLE = EndpointConnectionError(endpoint_url="https://sts.example")


def stack(status: str = "UPDATE_COMPLETE", **parameters: str) -> DeployedStack:
    return DeployedStack("s", status, parameters, {})


def test_the_account_is_named() -> None:
    assert checks.check_credentials(FakeSession()) == "account 123456789012 as user/me"


@pytest.mark.parametrize(
    ("account", "sentence"),
    [
        (FakeSession(region=None), "No region is chosen. Set AWS_REGION"),
        (FakeSession(region=""), "No region is chosen"),
        (FakeSession(get_caller_identity=NoCredentialsError()), "No AWS credentials were found"),
        (
            FakeSession(get_caller_identity=client_error("ExpiredToken", "The token is expired")),
            "refused the credentials .ExpiredToken: The token is expired",
        ),
        (FakeSession(get_caller_identity=UNREACHABLE), "AWS cannot be reached: .*sts.example"),
        (
            FakeSession(get_caller_identity=ValueError("Invalid endpoint: https://sts..com")),
            "AWS cannot be reached: Invalid endpoint",
        ),
    ],
)
def test_credentials_that_do_not_work_are_a_sentence(account: FakeSession, sentence: str) -> None:
    with pytest.raises(CheckFailed, match=sentence):
        checks.check_credentials(account)


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ("cn-north-1", "in the partition aws-cn"),
        ("us-gov-west-1", "in the partition aws-us-gov"),
    ],
)
def test_a_region_of_another_partition_is_noted(region: str, sentence: str) -> None:
    found = checks.check_region(FakeSession(region=region))

    assert isinstance(found, Finding)
    assert found.level == "note"
    assert sentence in found.text and "Other partitions" in found.text


def test_a_region_without_lambda_stops() -> None:
    with pytest.raises(CheckFailed, match=r"not known in the region 'mars-north-1'.*eu-central-1"):
        checks.check_region(FakeSession(region="mars-north-1"))


# --- the stack --------------------------------------------------------------------------------

# As AWS's description of its API lists them.
STATUSES = (
    botocore.session.get_session().get_service_model("cloudformation").shape_for("StackStatus").enum
)
FINE = {
    "CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
}  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_only_a_complete_stack_can_be_updated(status: str) -> None:
    if status in FINE:
        assert status in checks.check_stack("s", stack(status))
        return
    with pytest.raises(CheckFailed, match=status):
        checks.check_stack("s", stack(status))


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        ("ROLLBACK_COMPLETE", "make destroy STACK=s"),
        ("UPDATE_ROLLBACK_FAILED", "continue-update-rollback --stack-name s"),
        ("UPDATE_IN_PROGRESS", "Wait until it is done"),
    ],
)
def test_a_stuck_stack_has_a_remedy(status: str, remedy: str) -> None:
    with pytest.raises(CheckFailed, match=remedy):
        checks.check_stack("s", stack(status))


# --- the alias --------------------------------------------------------------------------------


def checked_alias(account: FakeSession) -> str | Finding:
    deployed = describe(account, "clothes")
    assert deployed
    return checks.check_alias(account, deployed)


def test_an_alias_at_the_stack_s_version_passes() -> None:
    assert checked_alias(deployed_account()) == "alias live is at version 7"


def test_a_version_that_was_moved_by_hand_stops_with_the_command_that_moves_it_back() -> None:
    with pytest.raises(CheckFailed) as stopped:
        checked_alias(deployed_account(alias_version="5"))

    assert "at version 5, and the stack's version is 7" in str(stopped.value)
    assert "--function-name clothes-Function-1 --name live --function-version 7" in str(
        stopped.value
    )


def test_an_alias_with_two_versions_stops() -> None:
    alias = {"FunctionVersion": "7", "RoutingConfig": {"AdditionalVersionWeights": {"8": 0.1}}}

    with pytest.raises(CheckFailed, match="two versions"):
        checked_alias(deployed_account(get_alias=alias))


def test_an_alias_that_may_not_be_read_is_noted() -> None:
    found = checked_alias(deployed_account(get_alias=client_error("AccessDeniedException")))

    assert isinstance(found, Finding)
    assert found.level == "note"


# --- concurrency ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quota", "reserved", "provisioned", "level"),
    [
        (Quota(1000, 1000), 0, 0, "ok"),
        (Quota(1000, 1000), 900, 0, "ok"),  # 100 stay
        (Quota(10, 10), 0, 0, "note"),  # few at once
        (Quota(50, 50), 0, 0, "ok"),
        (Quota(400, 400), 380, 0, "note"),  # 20 stay: enough in some accounts
        (Quota(1000, 1000), 20, 20, "ok"),
        ("AccessDenied", 900, 0, "note"),
    ],
)
def test_concurrency_that_the_account_may_have_passes(
    quota: Quota | str, reserved: int, provisioned: int, level: str
) -> None:
    parameters = DEFAULTS | {
        "ReservedConcurrency": str(reserved),
        "ProvisionedConcurrency": str(provisioned),
    }

    assert checks.check_concurrency(quota, parameters).level == level


@pytest.mark.parametrize(
    ("quota", "reserved", "provisioned", "sentence"),
    [
        (Quota(1000, 1000), 901, 0, "ReservedConcurrency=901 is too much.*At most 900"),
        (Quota(1000, 500), 500, 0, "ReservedConcurrency=500 is too much"),
        (Quota(10, 10), 5, 0, "keeps 10 or more"),
        (Quota(1000, 1000), 5, 6, "ProvisionedConcurrency=6 is more than ReservedConcurrency=5"),
        (Quota(10, 10), 0, 20, "ProvisionedConcurrency=20 is more than the account's 10"),
        (
            Quota(1000, 1000),
            *(0, 950, "ProvisionedConcurrency=950 is too much.*allows 900"),
        ),
    ],
)
def test_concurrency_that_the_account_cannot_have_stops(
    quota: Quota, reserved: int, provisioned: int, sentence: str
) -> None:
    parameters = DEFAULTS | {
        "ReservedConcurrency": str(reserved),
        "ProvisionedConcurrency": str(provisioned),
    }

    with pytest.raises(CheckFailed, match=sentence):
        checks.check_concurrency(quota, parameters)


def test_what_the_stack_has_reserved_itself_is_free_for_it() -> None:
    limits = {"ConcurrentExecutions": 1000, "UnreservedConcurrentExecutions": 500}
    account = FakeSession(get_account_settings={"AccountLimit": limits})

    assert checks.read_quota(account, stack(ReservedConcurrency="500")) == Quota(1000, 1000)
    assert checks.read_quota(account, None) == Quota(1000, 500)
    assert checks.read_quota(account, stack(ReservedConcurrency="odd")) == Quota(1000, 500)


@pytest.mark.parametrize(
    ("quota", "ceiling"),
    [
        (Quota(1000, 1000), {"ReservedConcurrency": "20", "ThrottleBurst": "20"}),
        (Quota(1000, 110), {"ReservedConcurrency": "10", "ThrottleBurst": "10"}),
        (Quota(1000, 102), {"ReservedConcurrency": "2", "ThrottleRate": "5", "ThrottleBurst": "2"}),
        (Quota(50, 50), {}),  # the default throttle lets less through
        (Quota(10, 10), {"ThrottleBurst": "10"}),  # nothing can be reserved
        ("denied", {}),
    ],
)
def test_the_proposed_ceiling_fits_the_account(quota: Quota | str, ceiling: dict[str, str]) -> None:
    assert checks.propose_ceiling(quota, DEFAULTS) == ceiling


def test_a_stack_of_something_else_is_not_updated() -> None:
    account = deployed_account(describe_stacks=stack_description(outputs={"QueueArn": "arn"}))

    with pytest.raises(CheckFailed, match="clothes is not this service"):
        checked_alias(account)
