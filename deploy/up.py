"""Check, build and deploy: `make deploy`, or::

    python -m deploy.up --stack clothes MemoryMb=3008 AlarmEmail=me@example.com

A first deployment asks for name, region and parameters. It ends with the smoke test, because AWS
runs no check before traffic when the alias is created. Later deployments change the parameters that
they name, leave the others as the stack has them, and ask only whether to go ahead. With ``--yes``
nothing is asked.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy import smoke
from deploy.ask import Ask, ask_parameters, ask_target
from deploy.findings import Finding, run_check, run_command, short_reason, show
from deploy.local_checks import Run, check_image, with_defaults
from deploy.preflight import (
    Account,
    check_all,
    choose_parameters,
    look_at_account,
    notes_on_chosen,
)
from deploy.stack import (
    CONFIG,
    DeployedStack,
    Target,
    command_line,
    describe,
    load_template,
    open_session,
    read_target,
    remember,
    to_overrides,
)
from deploy.stamp import nonce_for, stamp
from lambda_function import REPOSITORY

SAM = [sys.executable, "-m", "samcli"]
BUILT = REPOSITORY / ".aws-sam" / "build" / "template.yaml"
KEPT_IMAGES = 20  # in the ECR repository. A rollback needs the one before


@dataclasses.dataclass(frozen=True)
class Tools:
    """What a deployment calls, so that a test can replace it.

    Attributes:
        run: ``subprocess.run``.
        ask: ``input``, or None to ask nothing.
        look: ``look_at_account``.
        check: ``check_all``.
        smoke: sends requests to a deployed stack and returns the number of failures.
        config: samconfig.toml.
        built: what `sam build` writes.
    """

    run: Run = subprocess.run
    ask: Ask | None = input
    look: Callable[[Any, str], Account] = look_at_account
    check: Callable[..., list[Finding]] = check_all
    smoke: Callable[[Any, DeployedStack], int] = smoke.smoke_stack
    config: Path = CONFIG
    built: Path = BUILT


def sam_deploy_command(
    stack: str, parameters: Mapping[str, str], *options: str, region: str, ask: bool
) -> list[str]:
    """Return the command that uploads what a stack needs and updates it.

    Args:
        stack: name of the stack.
        parameters: all that differ from the template's defaults.
        options: of this stack, for ``sam deploy``.
        region: of the stack.
        ask: whether SAM shows the changes and asks to go ahead.
    """
    command = [*SAM, "deploy", *options, "--stack-name", stack, "--region", region]
    command += ["--capabilities", "CAPABILITY_IAM", "--resolve-s3", "--no-fail-on-empty-changeset"]
    command += ["--confirm-changeset" if ask else "--no-confirm-changeset"]
    if parameters:
        command += ["--parameter-overrides", to_overrides(parameters)]
    return command


def deploy(target: Target, session: Any, tools: Tools = Tools()) -> int:
    """Do all of it. The first problem ends the deployment before AWS is changed.

    Args:
        target: the stack and its parameters.
        session: a ``boto3.Session`` in the stack's region.
        tools: what is called.

    Returns:
        An exit status.

    Raises:
        CheckFailed: a value that SAM would change, or a template that cannot be stamped.
    """
    account = tools.look(session, target.stack)
    template = load_template()
    parameters, chosen = choose_parameters(target, account, template)
    is_new = account.is_reachable and account.deployed is None
    is_stopped = any(finding.level == "stop" for finding in account.findings)
    if is_new and tools.ask and not is_stopped:
        named = {**target.from_file, **target.given}
        parameters = ask_parameters(parameters, template, named=named, ask=tools.ask)
    parameters |= nonce_for(account.deployed)
    findings = tools.check(parameters, account, run=tools.run)
    if not show([*findings, *notes_on_chosen(chosen, parameters)]):
        print("Nothing was built or deployed.")
        return 1
    if not _build(parameters, with_defaults(parameters, template)["Architecture"], tools):
        return 1
    tools.built.write_text(stamp(tools.built.read_text(), parameters))
    command = sam_deploy_command(
        target.stack,
        parameters,
        "--resolve-image-repos",
        region=session.region_name,
        ask=tools.ask is not None,
    )
    try:  # before, because a deployment that fails leaves a stack in this region too
        remember(target, session.region_name, tools.config)
    except OSError as error:
        show([Finding("note", f"the stack's name is not remembered: {error}")])
    status = tools.run(command, cwd=REPOSITORY).returncode
    return status or _finish(target, session, tools, is_new=is_new)


def _build(parameters: Mapping[str, str], architecture: str, tools: Tools) -> bool:
    """Build the image for the architecture. Return whether that worked."""
    overrides = ["--parameter-overrides", to_overrides(parameters)] if parameters else []
    if tools.run([*SAM, "build", *overrides], cwd=REPOSITORY).returncode:
        print("The image could not be built. Nothing was deployed.")
        return False
    if not show([run_check(check_image, architecture, run=tools.run)]):
        print("Nothing was deployed.")
        return False
    return True


def _finish(target: Target, session: Any, tools: Tools, *, is_new: bool) -> int:
    """Limit the kept images, and test a first deployment."""
    deployed = describe(session, target.stack)
    if deployed is None:
        print("The change set was not executed. Nothing was deployed.")
        return 1
    show([Finding("ok", "deployed"), keep_images(session, deployed)])
    if not is_new:
        print("Try it: make smoke")
        return 0
    print("\nA first deployment is tested now:")
    return 1 if tools.smoke(session, deployed) else 0


def keep_images(session: Any, deployed: DeployedStack) -> Finding:
    """Give the function's ECR repository a lifecycle policy, if it has none.

    ECR costs 0.10 USD per GB and month. Without a policy every deployment adds an image.

    Args:
        session: a ``boto3.Session``.
        deployed: the stack.
    """
    rule = {
        "rulePriority": 1,
        "description": f"keep the newest {KEPT_IMAGES} images",
        "selection": {
            "tagStatus": "any",
            "countType": "imageCountMoreThan",
            "countNumber": KEPT_IMAGES,
        },
        "action": {"type": "expire"},
    }
    try:
        code = session.client("lambda").get_function(FunctionName=deployed.function)["Code"]
        repository = code["ImageUri"].partition("/")[2].partition(":")[0].partition("@")[0]
        ecr = session.client("ecr")
        try:
            ecr.get_lifecycle_policy(repositoryName=repository)
            return Finding("ok", f"the repository {repository} has a lifecycle policy")
        except ecr.exceptions.LifecyclePolicyNotFoundException:
            ecr.put_lifecycle_policy(
                repositoryName=repository, lifecyclePolicyText=json.dumps({"rules": [rule]})
            )
    except (BotoCoreError, ClientError, KeyError) as error:
        return Finding(
            "note", f"no lifecycle policy for the image repository ({short_reason(error)})"
        )
    return Finding("ok", f"the repository {repository} keeps the newest {KEPT_IMAGES} images")


def main(arguments: list[str] | None = None) -> int:
    """Deploy what the command line names. Returns an exit status."""
    parser = command_line("up", __doc__)
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args(arguments)

    def run() -> int:
        target = read_target(options)
        if not options.yes and not target.is_remembered:
            target = ask_target(target, open_session().region_name)
        tools = Tools(ask=None if options.yes else input)
        return deploy(target, open_session(target.region), tools)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
