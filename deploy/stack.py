"""Which stack a command means, and what CloudFormation knows about it.

A value of the command line wins over the stack's file (deploy/stacks/NAME.toml), and that over the
parameters that the stack has. So a parameter that nobody names keeps its value, whichever machine
deploys. samconfig.toml, which git ignores, has name and region of the last deployment from here.
The region counts for that stack and those beside it. Another stack may be anywhere.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import shlex
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ProfileNotFound
from samtranslator.yaml_helper import yaml_parse

from deploy.findings import CheckFailed, short_reason
from deploy.image.names import default_name
from lambda_function import REPOSITORY
from lambda_function.fetching.s3 import NO_CREDENTIALS

TEMPLATE = REPOSITORY / "template.yaml"
CONFIG = REPOSITORY / "samconfig.toml"
STACK_FILES = REPOSITORY / "deploy" / "stacks"
OURS = "# Written by `make deploy`"
NO_REGION = "No region is chosen. Set AWS_REGION, or run `aws configure`."
# A change set was made for the stack and never executed: nothing exists yet.
NEVER_CREATED = "REVIEW_IN_PROGRESS"
# Of the stacks beside a service, after its name.
SIDE_STACKS = ("-bulk", "-events")


@dataclasses.dataclass(frozen=True)
class Target:
    """What a command line means.

    Attributes:
        stack: name of the CloudFormation stack.
        region: of the stack, or None for the region of the AWS configuration.
        given: parameters of this command.
        from_file: parameters of the stack's file.
        is_remembered: whether samconfig.toml or a file names the stack.
    """

    stack: str
    region: str | None = None
    given: Mapping[str, str] = dataclasses.field(default_factory=dict)
    from_file: Mapping[str, str] = dataclasses.field(default_factory=dict)
    is_remembered: bool = False


@dataclasses.dataclass(frozen=True)
class DeployedStack:
    """A stack as CloudFormation describes it.

    Attributes:
        name: of the stack.
        status: such as ``UPDATE_COMPLETE``.
        parameters: name -> value.
        outputs: name -> value.
    """

    name: str
    status: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def function(self) -> str:
        """Name of the function, or ``""`` if the stack has no output FunctionAlias."""
        alias = self.outputs.get("FunctionAlias", "")
        return alias.split(":")[6] if alias.count(":") == 7 else ""


# --- command line ---------------------------------------------------------------------------------


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser that the commands on a stack share: ``--stack`` and parameters."""
    parser = argparse.ArgumentParser(
        prog=f"python -m deploy.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--stack",
        help=f"a stack or a file of deploy/stacks/. Default: the last one, or {default_name()}",
    )
    parser.add_argument("parameters", nargs="*", metavar="Name=value")
    return parser


def read_target(
    options: argparse.Namespace, *, config: Path = CONFIG, folder: Path = STACK_FILES
) -> Target:
    """Complete a command line by the stack's file and by samconfig.toml.

    Args:
        options: what ``command_line`` parsed.
        config: samconfig.toml.
        folder: of the stack files.

    Raises:
        CheckFailed: a parameter or a file cannot be read.
    """
    given = read_parameters(options.parameters)
    file = folder / f"{options.stack}.toml"
    if options.stack and file.is_file():
        return dataclasses.replace(_read_stack_file(file), given=given)
    content = _read_toml(config) if config.is_file() else {}
    last = _table(config, content, "default", "deploy", "parameters")
    remembered = last.get("stack_name", "")
    name = options.stack or remembered
    is_ours = name in (remembered, *(remembered + suffix for suffix in SIDE_STACKS))
    region = last.get("region") if is_ours else None
    return Target(name or default_name(), region, given, is_remembered=bool(name))


def remember(target: Target, region: str, config: Path = CONFIG) -> None:
    """Write name and region of the stack of a deployment to samconfig.toml.

    Somebody's own samconfig.toml stays as it is. It may hold more, and SAM reads it too.
    """
    if config.exists() and not config.read_text().startswith(OURS):
        return
    config.write_text(
        f"{OURS}: the stack that was deployed from here.\n"
        "version = 0.1\n[default.deploy.parameters]\n"
        f'stack_name = "{target.stack}"\nregion = "{region}"\n'
    )


def read_parameters(words: Iterable[str]) -> dict[str, str]:
    """Read ``Name=value`` words. One string may hold several, as SAM's options do.

    >>> read_parameters(['MemoryMb=3008 ApiAuth="iam"'])
    {'MemoryMb': '3008', 'ApiAuth': 'iam'}

    Raises:
        CheckFailed: a word has another form.
    """
    parameters = {}
    try:
        parts = shlex.split(" ".join(words))
    except ValueError as error:
        raise CheckFailed(f"The parameters cannot be read ({error}): {' '.join(words)}") from error
    for word in parts:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise CheckFailed(f"A parameter must read Name=value. Received: {word!r}.")
        parameters[name] = value
    return parameters


def to_overrides(parameters: Mapping[str, str]) -> str:
    """Return parameters as SAM's ``--parameter-overrides`` takes them.

    Raises:
        CheckFailed: SAM would change a value.
    """
    for name, value in parameters.items():
        if '"' in value or "\\" in value:
            raise CheckFailed(
                f"{name} must have no quote and no backslash, because SAM changes them. "
                f"Received: {value}"
            )
    return " ".join(f'{name}="{value}"' for name, value in parameters.items())


def effective_parameters(
    target: Target, deployed: DeployedStack | None, declared: Iterable[str]
) -> dict[str, str]:
    """Return the parameters to deploy with, without the template's defaults.

    Args:
        target: the command line.
        deployed: the stack, or None if it is new.
        declared: the template's names. A parameter that the template has lost is left out, unless
            the command line or the file names it.
    """
    known = set(declared)
    kept = deployed.parameters if deployed else {}
    return {
        **{name: value for name, value in kept.items() if name in known},
        **target.from_file,
        **target.given,
    }


def _read_stack_file(path: Path) -> Target:
    content = _read_toml(path)
    for name, value in content.items():
        if name not in ("stack", "region", "parameters"):
            raise CheckFailed(
                f"{path.name}: {name} is not known. Known: stack, region, and the table "
                f"[parameters] with those of the template. Received: {name} = {value!r}."
            )
        if name != "parameters" and not isinstance(value, str):
            raise CheckFailed(f"{path.name}: {name} must be a text in quotes. Received: {value!r}.")
    stack = content.get("stack", f"{default_name()}-{path.stem}")
    parameters = _table(path, content, "parameters")
    return Target(stack, content.get("region"), from_file=parameters, is_remembered=True)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckFailed(f"{path.name} cannot be read: {error}. Correct or remove it.") from error


def _table(path: Path, content: Any, *names: str) -> dict[str, str]:
    """Return a table of a file with its values as text, lists with commas. It may be missing."""
    for name in names:
        content = content.get(name, {})
        if not isinstance(content, dict):
            raise CheckFailed(f"{path.name}: {name} must be a table. Received: {content!r}.")
    return {
        name: ",".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in content.items()
    }


# --- AWS ------------------------------------------------------------------------------------------


def open_session(region: str | None = None, environ: Mapping[str, str] = os.environ) -> Any:
    """Return a ``boto3.Session`` in the stack's region.

    boto3 reads AWS_DEFAULT_REGION and not AWS_REGION. The AWS command line reads both.

    Args:
        region: of the stack. None takes the region of the environment or of the profile.
        environ: of the process.

    Raises:
        CheckFailed: the profile does not exist, or the two variables name different regions.
    """
    first, second = environ.get("AWS_REGION", ""), environ.get("AWS_DEFAULT_REGION", "")
    if not region and first and second and first != second:
        raise CheckFailed(
            f"AWS_REGION={first} and AWS_DEFAULT_REGION={second} name different regions. Unset one."
        )
    try:
        return boto3.Session(region_name=region or first or second or None)
    except ProfileNotFound as error:
        profile = environ.get("AWS_PROFILE", "")
        raise CheckFailed(
            f"There is no AWS profile {profile!r} (AWS_PROFILE). `aws configure list-profiles` "
            "prints the profiles."
        ) from error


def describe(session: Any, stack: str) -> DeployedStack | None:
    """Return the stack, or None if nothing of it exists.

    Raises:
        CheckFailed: no region or no credentials, or AWS did not say. Carries the reason.
    """
    if not session.region_name:
        raise CheckFailed(NO_REGION)
    try:
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except ClientError as error:
        said = error.response["Error"]
        if "does not exist" in said.get("Message", ""):
            return None
        denied = "AccessDenied" in said.get("Code", "")
        rights = " See docs/deploy-reference.md, The deployer's rights." if denied else ""
        raise CheckFailed(
            f"The stack {stack} cannot be read: {short_reason(error)}.{rights}"
        ) from error
    except NoCredentialsError as error:
        raise CheckFailed(NO_CREDENTIALS) from error
    except (BotoCoreError, ValueError) as error:
        raise CheckFailed(f"CloudFormation cannot be reached: {short_reason(error)}.") from error
    if found["StackStatus"] == NEVER_CREATED:
        return None
    parameters = {p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])}
    outputs = {o["OutputKey"]: o["OutputValue"] for o in found.get("Outputs", [])}
    return DeployedStack(stack, found["StackStatus"], parameters, outputs)


@functools.cache
def load_template(path: Path = TEMPLATE) -> dict[str, Any]:
    """Return a template of the repository as it is written. Do not change it."""
    template: dict[str, Any] = yaml_parse(path.read_text())
    return template
