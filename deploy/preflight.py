"""Check for problems that would make the deployment fail: `make preflight`, or::

    python -m deploy.preflight --stack clothes MemoryMb=3008 ApiAuth=iam

Nothing is created or changed. `make deploy` runs the same checks first, with the same parameters.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy import account_checks, local_checks
from deploy.findings import CheckFailed, Finding, run_check, run_command, show
from deploy.local_checks import Run, with_defaults
from deploy.stack import (
    DeployedStack,
    Target,
    command_line,
    describe,
    effective_parameters,
    load_template,
    open_session,
    read_target,
)
from lambda_function import SHIPPED_MODEL

CHOSEN_BECAUSE = {
    "ReservedConcurrency": "the ceiling of its bill. PARAMS='ReservedConcurrency=0' removes it.",
    "ThrottleRate": "the API refuses more with 429 before Lambda would refuse them with 503.",
    "ThrottleBurst": "the API refuses more at once before Lambda would.",
}


@dataclasses.dataclass(frozen=True)
class Account:
    """What the checks before the parameters found in the AWS account.

    Attributes:
        findings: one for each check.
        deployed: the stack, or None if it is new or cannot be read.
        quota: Lambda's concurrency, or why it is not known.
        partition: of the region, such as ``"aws"`` or ``"aws-cn"``.
        is_reachable: whether AWS accepted the credentials.
    """

    findings: list[Finding]
    deployed: DeployedStack | None = None
    quota: account_checks.Quota | str = "not asked"
    partition: str = "aws"
    is_reachable: bool = False


def look_at_account(session: Any, stack: str) -> Account:
    """Check credentials, region, the stack and its alias.

    A name that is unfit for a new stack is named wherever AWS does not show a stack of that name.

    Args:
        session: a ``boto3.Session``.
        stack: name of the stack.
    """
    name = run_check(local_checks.check_stack_name, stack)
    findings = [run_check(account_checks.check_credentials, session)]
    if findings[-1].level != "ok":
        return Account([*findings, name])
    findings.append(run_check(account_checks.check_region, session))
    if findings[-1].level == "stop":
        return Account([*findings, name])
    try:
        deployed = describe(session, stack)
    except CheckFailed as failed:
        return Account([*findings, Finding("stop", str(failed)), name], is_reachable=True)
    findings.append(run_check(account_checks.check_stack, stack, deployed))
    if deployed is None:
        findings.append(name)
    elif findings[-1].level == "ok":
        findings.append(run_check(account_checks.check_alias, session, deployed))
    return Account(
        findings,
        deployed,
        quota=account_checks.read_quota(session, deployed),
        partition=account_checks.partition_of(session),
        is_reachable=True,
    )


def choose_parameters(
    target: Target, account: Account, template: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the parameters to deploy with, and those of them that were chosen here.

    A new stack gets a ceiling of concurrent requests, if the account allows one and nobody named
    it. Without a ceiling a stranger decides about the bill of an open API. The API lets no more
    requests through than the function can run.

    Args:
        target: the command line.
        account: what the checks found.
        template: template.yaml, parsed.
    """
    parameters = effective_parameters(target, account.deployed, template["Parameters"])
    if not account.is_reachable or account.deployed is not None:
        return parameters, {}
    proposed = account_checks.propose_ceiling(
        account.quota, with_defaults({}, template), parameters.get("ReservedConcurrency", "")
    )
    chosen = {name: value for name, value in proposed.items() if name not in parameters}
    return {**parameters, **chosen}, chosen


def notes_on_chosen(chosen: Mapping[str, str], parameters: Mapping[str, str]) -> list[Finding]:
    """Return a note on each chosen parameter that the user has not changed since.

    Args:
        chosen: of ``choose_parameters``.
        parameters: to deploy with.
    """
    return [
        Finding("note", f"{name}={value} is chosen for this new stack: {CHOSEN_BECAUSE[name]}")
        for name, value in chosen.items()
        if parameters.get(name) == value
    ]


def check_all(
    parameters: Mapping[str, str],
    account: Account,
    *,
    model: Path = SHIPPED_MODEL,
    run: Run = subprocess.run,
) -> list[Finding]:
    """Run the checks of this machine and of the parameters.

    Args:
        parameters: those that differ from the template's defaults.
        account: what ``look_at_account`` found.
        model: the artifact that the image will hold.
        run: ``subprocess.run``, or a test's.
    """
    template = load_template()
    fits = run_check(local_checks.check_parameters, parameters, template)
    findings = [
        run_check(local_checks.check_model, model),
        run_check(local_checks.check_docker, local_checks.base_image(), run=run),
        *account.findings,
        fits,
    ]
    if fits.level != "ok":
        return findings
    effective = with_defaults(parameters, template)
    findings.append(
        run_check(
            lambda: (
                local_checks.check_provisioned_change(effective, account.deployed)
                or "no change of provisioned concurrency during a canary"
            )
        )
    )
    if effective["ApiAuth"] == "jwt":
        findings.append(run_check(local_checks.check_issuer, effective["JwtIssuer"]))
    if account.partition != "aws":
        findings.append(run_check(local_checks.check_partition, effective, account.partition))
    if account.is_reachable:
        findings.append(run_check(account_checks.check_concurrency, account.quota, effective))
    bill = _bill(effective, account.quota)
    notes = [*local_checks.notes_on_parameters(effective), bill]
    return [*findings, *(Finding("note", note) for note in notes)]


def _bill(parameters: Mapping[str, str], quota: account_checks.Quota | str) -> str:
    if not isinstance(quota, str):
        return local_checks.bill_at_worst(
            parameters, concurrency=quota.total, reservable=quota.reservable
        )
    usual = account_checks.USUAL_QUOTA
    bill = local_checks.bill_at_worst(parameters, concurrency=usual, reservable=usual)
    return f"{bill} The account's quota is not known, so this takes the usual {usual:,} at once."


def main(arguments: list[str] | None = None) -> int:
    """Run the checks, print them, and return 1 if something would make the deployment fail."""
    options = command_line("preflight", __doc__).parse_args(arguments)

    def run() -> int:
        target = read_target(options)
        account = look_at_account(open_session(target.region), target.stack)
        parameters, chosen = choose_parameters(target, account, load_template())
        findings = check_all(parameters, account)
        return 0 if show([*findings, *notes_on_chosen(chosen, parameters)]) else 1

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
