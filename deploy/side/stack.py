"""What bulk runs (bulk.py) and uploads (events.py) share: parameters and the command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.account_checks import check_stack
from deploy.findings import CheckFailed
from deploy.local_checks import check_rules, with_defaults
from deploy.stack import DeployedStack, describe, load_template


def find_service(session: Any, stack: str) -> DeployedStack:
    """Return the service's stack.

    Raises:
        CheckFailed: there is no such stack, or it has no function.
    """
    deployed = describe(session, stack)
    if deployed is None or not deployed.function:
        raise CheckFailed(
            f"There is no service in the stack {stack}. Deploy it first (`make deploy`), or name "
            "it: STACK=..."
        )
    return deployed


def find_side_stack(session: Any, name: str) -> DeployedStack | None:
    """Return a stack beside the service's, or None if it is new.

    Raises:
        CheckFailed: the stack cannot be updated now.
    """
    deployed = describe(session, name)
    check_stack(name, deployed)
    return deployed


def complete_parameters(
    template: Path,
    *,
    given: Mapping[str, str],
    of_service: Mapping[str, str],
    deployed: DeployedStack | None,
    alarm_email: str,
) -> dict[str, str]:
    """Return all parameters of a side stack.

    The command line wins over the service, and the service over the deployed stack. So a parameter
    that nobody names keeps its value.

    Args:
        template: of the side stack.
        given: of the command line.
        of_service: parameters that must fit the service.
        deployed: the side stack, or None if it is new.
        alarm_email: of the service. A new side stack takes it.

    Raises:
        CheckFailed: a parameter is missing, unknown or not allowed.
    """
    declared = load_template(template)["Parameters"]
    kept = deployed.parameters if deployed else {"AlarmEmail": alarm_email}
    parameters = {
        **{name: value for name, value in kept.items() if name in declared},
        **of_service,
        **given,
    }
    check_rules(parameters, load_template(template))
    missing = [n for n, rule in declared.items() if "Default" not in rule and n not in parameters]
    if missing:
        raise CheckFailed(f"Set PARAMS='{' '.join(f'{name}=...' for name in missing)}'.")
    return with_defaults(parameters, load_template(template))
