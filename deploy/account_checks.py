"""Checks in the AWS account: credentials, region, the stack, its alias, and quotas.

Every function only reads. An answer that AWS refuses becomes a sentence, never a traceback.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, UnknownRegionError

from deploy.findings import CheckFailed, Finding, short_reason
from deploy.stack import NO_REGION, DeployedStack
from lambda_function.fetching.s3 import NO_CREDENTIALS

# An account keeps 10, 50 or 100 for functions without a reservation. No API tells which. Accounts
# with the usual quota of 1,000 and more keep 100.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-concurrency.html
USUAL_QUOTA, UNRESERVED_USUALLY, UNRESERVED_AT_LEAST = 1000, 100, 10
FEW_AT_ONCE = 50  # new accounts begin with 10
USUAL_REQUEST_S = 0.4  # with the download of an image
CEILING = 20  # proposed: it serves 50 such requests a second
CAN_BE_UPDATED = {
    "CREATE_COMPLETE",
    "UPDATE_COMPLETE",
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
}
STUCK = {
    "CREATE_FAILED": "its creation failed. Run `make destroy STACK={stack}`, then deploy again",
    "ROLLBACK_COMPLETE": "its first deployment failed, so it cannot be updated. "
    "Run `make destroy STACK={stack}`",
    "ROLLBACK_FAILED": "it cannot be updated. Run `make destroy STACK={stack}`",
    "DELETE_FAILED": "its deletion failed. Look at its events in the CloudFormation console",
    "UPDATE_FAILED": "an update stopped half-way. Roll it back: `aws cloudformation rollback-stack "
    "--stack-name {stack}`",
    "UPDATE_ROLLBACK_FAILED": "its rollback failed. Correct the reason in its events, then run "
    "`aws cloudformation continue-update-rollback --stack-name {stack}`",
    "IMPORT_ROLLBACK_FAILED": "an import's rollback failed. Look at its events in the console",
}


@dataclasses.dataclass(frozen=True)
class Quota:
    """Lambda's concurrency of the account.

    Attributes:
        total: requests that the account runs at once.
        free: the part that no function has reserved, without what this stack has.
    """

    total: int
    free: int

    @property
    def reservable(self) -> int:
        """The highest reservation that the account allows for certain."""
        keeps = UNRESERVED_USUALLY if self.total >= USUAL_QUOTA else min(self.total, 50)
        return max(0, self.free - keeps)


def check_credentials(session: Any) -> str:
    """Check that AWS accepts the credentials, and say who they are."""
    if not session.region_name:
        raise CheckFailed(NO_REGION)
    try:
        identity = session.client("sts").get_caller_identity()
    except NoCredentialsError as error:
        raise CheckFailed(NO_CREDENTIALS) from error
    except ClientError as error:
        raise CheckFailed(f"AWS refused the credentials ({short_reason(error)}).") from error
    except (BotoCoreError, ValueError) as error:
        raise CheckFailed(
            f"AWS cannot be reached: {str(error).rstrip('.')}. Check the network, the region "
            f"{session.region_name!r} and AWS_ENDPOINT_URL."
        ) from error
    return f"account {identity['Account']} as {identity['Arn'].rpartition(':')[2]}"


def partition_of(session: Any) -> str:
    """Return the partition of the session's region: ``"aws"``, ``"aws-cn"``, ``"aws-us-gov"``."""
    try:
        return str(session.get_partition_for_region(session.region_name))
    except UnknownRegionError:
        return "aws"


def check_region(session: Any) -> str | Finding:
    """Check that Lambda exists in the region."""
    region, partition = session.region_name, partition_of(session)
    known = session.get_available_regions("lambda", partition_name=partition)
    if region not in known:
        raise CheckFailed(
            f"Lambda is not known in the region {region!r}. Known: {', '.join(known)}."
        )
    if partition != "aws":
        return Finding(
            "note",
            f"The region {region} is in the partition {partition}. See docs/deploy-reference.md, "
            "Other partitions. Nobody has deployed there yet.",
        )
    return f"region {region}"


def check_stack(stack: str, deployed: DeployedStack | None) -> str:
    """Check that the stack can be created or updated now."""
    if deployed is None:
        return f"stack {stack} is new"
    status = deployed.status
    if status in STUCK:
        raise CheckFailed(f"The stack {stack} is in {status}: {STUCK[status].format(stack=stack)}.")
    if status.endswith("_IN_PROGRESS"):
        raise CheckFailed(f"The stack {stack} is busy ({status}). Wait until it is done.")
    if status not in CAN_BE_UPDATED:
        raise CheckFailed(f"The stack {stack} is in {status}. Look at its events in the console.")
    return f"stack {stack} exists ({status}) and will be updated"


def check_alias(session: Any, deployed: DeployedStack) -> str | Finding:
    """Check that the alias is where the last deployment left it.

    After a manual `update-alias` CodeDeploy refuses every deployment with
    INVALID_LAMBDA_CONFIGURATION (https://github.com/aws/serverless-application-model/issues/291).
    """
    if not deployed.function:
        raise CheckFailed(
            f"The stack {deployed.name} is not this service: it has no output FunctionAlias. "
            "Choose another name: STACK=..."
        )
    try:
        alias = session.client("lambda").get_alias(FunctionName=deployed.function, Name="live")
        resources = session.client("cloudformation").describe_stack_resources(
            StackName=deployed.name
        )["StackResources"]
    except (BotoCoreError, ClientError) as error:
        return Finding("note", f"the alias live cannot be checked ({short_reason(error)})")
    at_alias = alias["FunctionVersion"]
    if (alias.get("RoutingConfig") or {}).get("AdditionalVersionWeights"):
        raise CheckFailed(
            f"The alias live has two versions ({at_alias} and another). A deployment is under way, "
            "or somebody set weights by hand. Wait, or remove them: `aws lambda update-alias "
            f"--function-name {deployed.function} --name live --routing-config "
            "AdditionalVersionWeights={}`."
        )
    of_stack = [
        r["PhysicalResourceId"].rpartition(":")[2]
        for r in resources
        if r["ResourceType"] == "AWS::Lambda::Version" and r.get("PhysicalResourceId")
    ]
    if of_stack and at_alias not in of_stack:
        raise CheckFailed(
            f"The alias live is at version {at_alias}, and the stack's version is {of_stack[-1]}. "
            "Somebody moved it by hand, and CodeDeploy refuses to deploy then. Move it back: `aws "
            f"lambda update-alias --function-name {deployed.function} --name live "
            f"--function-version {of_stack[-1]}`. If that version is broken, deploy the fix at "
            "once with PARAMS='DeploymentStyle=AllAtOnce'."
        )
    return f"alias live is at version {at_alias}"


def read_quota(session: Any, deployed: DeployedStack | None) -> Quota | str:
    """Return the account's concurrency, or why it cannot be read."""
    try:
        limits = session.client("lambda").get_account_settings()["AccountLimit"]
    except (BotoCoreError, ClientError) as error:
        return short_reason(error)
    own = deployed.parameters.get("ReservedConcurrency", "") if deployed else ""
    free = limits["UnreservedConcurrentExecutions"] + (int(own) if own.isdecimal() else 0)
    return Quota(limits["ConcurrentExecutions"], free)


def check_concurrency(quota: Quota | str, parameters: Mapping[str, str]) -> Finding:
    """Compare reserved and provisioned concurrency with the account's.

    Args:
        quota: what ``read_quota`` returned.
        parameters: all of the template's.
    """
    if isinstance(quota, str):
        return Finding("note", f"Lambda's quotas cannot be read ({quota}).")
    reserved = int(parameters["ReservedConcurrency"])
    provisioned = int(parameters["ProvisionedConcurrency"])
    left = quota.free - reserved
    usual = quota.total >= USUAL_QUOTA
    if reserved and left < (UNRESERVED_USUALLY if usual else UNRESERVED_AT_LEAST):
        raise CheckFailed(
            f"ReservedConcurrency={reserved} is too much. Of {quota.total} at once {quota.free} "
            f"are not reserved, and Lambda keeps {'100' if usual else '10 or more'} of those. "
            f"At most {quota.reservable} can be reserved."
        )
    if provisioned > (reserved or quota.total):
        limit = f"ReservedConcurrency={reserved}" if reserved else f"the account's {quota.total}"
        raise CheckFailed(f"ProvisionedConcurrency={provisioned} is more than {limit}.")
    if not reserved and provisioned > quota.reservable:
        raise CheckFailed(
            f"ProvisionedConcurrency={provisioned} is too much. The account allows "
            f"{quota.reservable} (of {quota.total} at once {quota.free} are not reserved)."
        )
    if reserved > quota.reservable:
        return Finding(
            "note",
            f"ReservedConcurrency={reserved} leaves {left}. Lambda keeps 10, 50 or 100 by account, "
            "so the deployment may fail.",
        )
    if quota.total < FEW_AT_ONCE:
        return Finding(
            "note",
            f"this account runs {quota.total} requests at once. Service Quotas raises that on "
            "request.",
        )
    return Finding("ok", f"{quota.total} requests at once, {quota.free} of them not reserved")


def propose_ceiling(
    quota: Quota | str, defaults: Mapping[str, str], reserved: str = ""
) -> dict[str, str]:
    """Return the parameters that keep a new stack's bill below a ceiling.

    Args:
        quota: what ``read_quota`` returned.
        defaults: all parameters of the template.
        reserved: ReservedConcurrency, if the user names it.

    Returns:
        Only what differs from the defaults. Nothing where the quota is not known.
    """
    if isinstance(quota, str):
        return {}
    ceiling = int(reserved) if reserved.isdecimal() else min(CEILING, quota.reservable)
    at_once = ceiling or quota.total
    proposed = {
        "ReservedConcurrency": ceiling,
        "ThrottleRate": min(int(defaults["ThrottleRate"]), int(at_once / USUAL_REQUEST_S) or 1),
        "ThrottleBurst": min(int(defaults["ThrottleBurst"]), at_once or 1),
    }
    return {name: str(value) for name, value in proposed.items() if str(value) != defaults[name]}
