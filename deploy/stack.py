"""Which stack is meant, and with which parameters: said now, deployed already, or kept by SAM.

    python -m deploy.stack      # prints --stack-name and --region, as `sam delete` takes them

What a command says wins over what the stack has, and that over the answers of the first, guided
deployment in samconfig.toml. The stack is the record that every machine sees: answers kept on one
machine say nothing of what was changed since, or from another.
"""

from __future__ import annotations

import argparse
import shlex
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

CONFIG = REPOSITORY / "samconfig.toml"
DEFAULT_STACK = "clothing-classifier"
# A change set was made for it and not carried out: nothing has been created yet.
NOT_YET_THERE = "REVIEW_IN_PROGRESS"


class Stop(Exception):  # noqa: N818 - it is a finding on its way, not an error
    """A check that found a reason not to deploy; carries the sentence."""


class Kept(NamedTuple):
    """What `sam deploy --guided` has kept; None and nothing where it has not run here.

    Attributes:
        stack: name of the stack.
        region: of the stack.
        parameters: the answers.
    """

    stack: str | None
    region: str | None
    parameters: dict[str, str]


def read_kept(config: Path = CONFIG) -> Kept:
    """Read samconfig.toml, where there is one."""
    if not config.is_file():
        return Kept(None, None, {})
    try:
        tables = tomllib.loads(config.read_text())
    except tomllib.TOMLDecodeError as error:
        raise Stop(f"{config.name} cannot be read: {error}. Mend or remove it.") from error
    answers: dict[str, Any] = tables.get("default", {}).get("deploy", {}).get("parameters", {})
    kept = answers.get("parameter_overrides", [])
    parameters = read_parameters([kept] if isinstance(kept, str) else kept)
    return Kept(answers.get("stack_name"), answers.get("region"), parameters)


def read_parameters(words: Iterable[str]) -> dict[str, str]:
    """Read ``Name=value`` words, each possibly several in one string, as SAM does.

    >>> read_parameters(['MemoryMb=3008 ApiAuth="iam"'])
    {'MemoryMb': '3008', 'ApiAuth': 'iam'}
    """
    parameters = {}
    for word in shlex.split(" ".join(words)):
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Stop(f"A parameter must read Name=value. Received: {word!r}.")
        parameters[name] = value
    return parameters


def to_overrides(parameters: Mapping[str, str]) -> str:
    """Return parameters as SAM's ``--parameter-overrides`` takes them.

    Raises:
        Stop: a value that SAM would read as another one.
    """
    for name, value in parameters.items():
        if '"' in value or "\\" in value:
            raise Stop(
                f"{name} may hold neither quote nor backslash: SAM changes them. Has: {value}"
            )
    return " ".join(f'{name}="{value}"' for name, value in parameters.items())


def deployed_parameters(session: Any, stack: str) -> dict[str, str] | None:
    """Return the parameters of the stack as it stands; None where it cannot be seen, or is not.

    Preflight tells those two apart, and stops at a stack that cannot be looked at.
    """
    try:
        found = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except (BotoCoreError, ClientError):
        return None
    if found.get("StackStatus") == NOT_YET_THERE:
        return None
    return {p["ParameterKey"]: p["ParameterValue"] for p in found.get("Parameters", [])}


def merged(
    given: Mapping[str, str],
    deployed: Mapping[str, str] | None,
    kept: Kept,
    declared: Iterable[str],
) -> dict[str, str]:
    """Return the parameters to deploy with.

    Args:
        given: by this command.
        deployed: the stack's own; None where there is no stack.
        kept: by the first deployment from this machine.
        declared: the template's names; a parameter that it no longer has is left behind, unless
            it was given.
    """
    known = set(declared)
    earlier = kept.parameters if deployed is None else deployed
    return {name: value for name, value in earlier.items() if name in known} | dict(given)


class Asked(NamedTuple):
    """What a command line means.

    Attributes:
        given: parameters that it names.
        kept: what the first deployment from here has kept.
        stack: name of the stack.
        session: a ``boto3.Session`` in the stack's region.
    """

    given: dict[str, str]
    kept: Kept
    stack: str
    session: Any


def command_line(module: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser that the commands on a stack share: ``--stack`` and parameters."""
    parser = argparse.ArgumentParser(prog=f"python -m tools.{module}", description=description)
    parser.add_argument("--stack", help=f"default: the one deployed from here, or {DEFAULT_STACK}")
    parser.add_argument("parameters", nargs="*", metavar="Name=value")
    return parser


def read_command_line(options: argparse.Namespace) -> Asked:
    """Complete what was said by what has been kept.

    Raises:
        Stop: a parameter or samconfig.toml cannot be read.
    """
    given, kept = read_parameters(options.parameters), read_kept()
    stack = options.stack or kept.stack or DEFAULT_STACK
    return Asked(given, kept, stack, boto3.Session(region_name=kept.region))


def main(arguments: list[str] | None = None) -> None:
    """Print which stack is meant; see the module."""
    asked = read_command_line(command_line("stack", __doc__).parse_args(arguments))
    region = asked.session.region_name
    print("--stack-name", asked.stack, *(["--region", region] if region else []))


if __name__ == "__main__":
    main()
