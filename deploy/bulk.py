"""Deploys deploy/bulk.yaml beside a deployed service: `make bulk`, or::

    python -m deploy.bulk --stack clothing-classifier ImageBucket=photos ResultBucket=answers

Looks first: the service has to be there, and its function has to be allowed to read the bucket.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from samtranslator.yaml_helper import yaml_parse

from deploy.preflight import Finding, rule_broken, show
from deploy.stack import REPOSITORY, Stop, command_line, read_command_line, to_overrides
from deploy.up import SAM

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TEMPLATE = "deploy/bulk.yaml"


def service(session: Any, stack: str) -> tuple[str, list[str]]:
    """Return the function's alias and the buckets that it may read.

    Raises:
        Stop: there is no such stack, or AWS cannot be asked.
    """
    try:
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
        outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
        parameters = {p["ParameterKey"]: p["ParameterValue"] for p in found["Parameters"]}
        return outputs["FunctionAlias"], parameters["ImageBuckets"].split(",")
    except (BotoCoreError, ClientError, KeyError) as error:
        raise Stop(
            f"The service's stack {stack} cannot be looked at ({error}). Deploy it first (`make "
            "deploy`), or name it: STACK=..."
        ) from error


def checked(given: Mapping[str, str], alias: str, buckets: list[str]) -> dict[str, str]:
    """Return all parameters of the bulk stack.

    Raises:
        Stop: one is missing, unknown or not allowed, or the function may not read the bucket.
    """
    declared = yaml_parse((REPOSITORY / TEMPLATE).read_text())["Parameters"]
    parameters = {"Function": alias, **given}
    for name, value in parameters.items():
        if name not in declared:
            raise Stop(f"There is no parameter {name}. Known: {', '.join(sorted(declared))}.")
        problem = rule_broken(declared[name], value)
        if problem:
            raise Stop(f"{name} {problem}. Received: {value!r}.")
    missing = [n for n, rule in declared.items() if "Default" not in rule and n not in parameters]
    if missing:
        raise Stop(f"Say PARAMS='{' '.join(f'{name}=...' for name in missing)}'.")
    if parameters["ImageBucket"] not in buckets:
        raise Stop(
            f"The function may not read the bucket {parameters['ImageBucket']}. First: make deploy "
            f"PARAMS='ImageBuckets={','.join([*filter(None, buckets), parameters['ImageBucket']])}'"
        )
    return parameters


def deploy_bulk(
    given: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> int:
    """Look, then deploy; returns an exit status."""
    alias, buckets = service(session, stack)
    parameters = checked(given, alias, buckets)
    command = [*SAM, "deploy", "--template", TEMPLATE, "--stack-name", f"{stack}-bulk"]
    command += ["--region", session.region_name]  # where the service was found
    command += ["--capabilities", "CAPABILITY_IAM", "--resolve-s3", "--confirm-changeset"]
    command += ["--no-fail-on-empty-changeset"]
    command += ["--parameter-overrides", to_overrides(parameters)]
    return run(command, cwd=REPOSITORY).returncode


def main(arguments: list[str] | None = None) -> int:
    """Deploy; see the module."""
    options = command_line("deploy_bulk", __doc__).parse_args(arguments)
    try:
        asked = read_command_line(options)
        return deploy_bulk(asked.given, stack=asked.stack, session=asked.session)
    except Stop as stop:
        show([Finding("stop", str(stop))])
        return 1


if __name__ == "__main__":
    sys.exit(main())
