"""Looks before a deployment leaps: everything that would stop it later, said now in one sentence.

    python -m deploy.preflight --stack clothing-classifier MemoryMb=3008 ApiAuth=iam

Nothing is created or changed. What needs an AWS account (credentials, quotas, the stack's state)
is asked through boto3; the rest is looked at here. ``make deploy`` runs it first.
"""

from __future__ import annotations

import dataclasses
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, UnknownRegionError
from samtranslator.yaml_helper import yaml_parse

from deploy.costs import USD_PER_GB_SECOND
from deploy.stack import (
    NOT_YET_THERE,
    REPOSITORY,
    Stop,
    command_line,
    deployed_parameters,
    merged,
    read_command_line,
)
from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import MetadataError, read_metadata
from lambda_function.settings import Settings, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MEMORY_OF_NEW_ACCOUNTS_MB = 3008  # more has to be granted; no API tells
UNRESERVED_AT_LEAST = 100  # Lambda keeps as many for functions without a reservation
DEFAULT_CONCURRENCY = 1000  # of an account, unless raised
FEW_AT_ONCE = 50  # new accounts start with 10
MAX_IMAGE_BYTES = 10 * 1024**3  # Lambda's limit for an image, unpacked
HTTP_API_WAITS_S = 30
_STUCK = {
    "ROLLBACK_COMPLETE": "its first deployment failed, and it cannot be updated: `make destroy`",
    "ROLLBACK_FAILED": "it cannot be updated: `make destroy`",
    "DELETE_FAILED": "its deletion failed: look at its events in the CloudFormation console",
}


@dataclasses.dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        level: ``"ok"``, ``"note"`` (worth knowing) or ``"stop"``.
        text: one sentence.
    """

    level: str
    text: str


# --- here -------------------------------------------------------------------------------------


def check_model(path: Path = SHIPPED_MODEL) -> str:
    """Look at the model that the image will hold; the image's build opens it for good."""
    if not path.is_file():
        raise Stop(
            f"There is no model at {path}. `git checkout -- lambda_function/model.tflite` brings "
            "back the released one; `make model OUTPUT=lambda_function/model.tflite` trains one."
        )
    try:
        metadata = read_metadata(path)
    except (MetadataError, OSError) as error:
        raise Stop(f"The model {path} cannot be served: {error}.") from error
    if path.read_bytes()[4:8] != b"TFL3":
        raise Stop(f"The model {path} is no TFLite file.")
    size_mb = path.stat().st_size / 1e6
    classes = len(metadata.labels)
    return f"model {metadata.name} {metadata.version}: {classes} classes, {size_mb:.1f} MB"


def check_docker(
    base_image: str, *, run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
) -> str:
    """Ask Docker whether it is there, and whether the base image can be had."""

    def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(["docker", *arguments], capture_output=True, text=True, timeout=120)

    try:
        if docker("version").returncode:
            raise Stop("Docker does not answer: start it, then try again.")
        if docker("image", "inspect", base_image).returncode:
            asked = docker("manifest", "inspect", base_image)
            if asked.returncode:
                raise Stop(
                    f"The base image {base_image} cannot be had from here: "
                    f"{_last_line(asked.stderr)}. Where public.ecr.aws is out of reach, mirror it "
                    "and name yours in the Dockerfile's ARG BASE_IMAGE (docs/deploy-reference.md)."
                )
    except FileNotFoundError as error:
        raise Stop("Docker is not installed, and the image is built with it.") from error
    except subprocess.TimeoutExpired as error:
        raise Stop("Docker did not answer within two minutes.") from error
    return f"Docker answers, base image {base_image} can be had"


def check_parameters(parameters: Mapping[str, str], template: Mapping[str, Any]) -> str:
    """Hold the parameters against the template's own rules, as CloudFormation would later."""
    declared = template["Parameters"]
    for name, value in parameters.items():
        if name not in declared:
            raise Stop(f"There is no parameter {name}. Known: {', '.join(sorted(declared))}.")
        problem = rule_broken(declared[name], value)
        if problem:
            raise Stop(f"{name} {problem}. Received: {value!r}.")
    effective = {k: str(p["Default"]) for k, p in declared.items()} | dict(parameters)
    if effective["ApiAuth"] == "jwt" and not (effective["JwtIssuer"] and effective["JwtAudience"]):
        raise Stop("ApiAuth=jwt needs JwtIssuer and JwtAudience.")
    check_environment(effective, template)
    return "parameters fit the template, and the function"


def check_environment(parameters: Mapping[str, str], template: Mapping[str, Any]) -> None:
    """Let the function itself read what it will be given: what it refuses, it refuses at start.

    Args:
        parameters: all of the template's.
        template: whose function's environment names them.
    """
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    sources = {name: _parameter_in(value) for name, value in variables.items()}
    try:
        Settings.from_environment({n: parameters[source] for n, source in sources.items()})
    except SettingsError as error:
        name = str(error).split()[0]
        raise Stop(f"{sources.get(name, name)} would stop the function: {error}.") from error
    if parameters["MetricsNamespace"] == "off":
        raise Stop(
            "MetricsNamespace=off would switch off the metric that rolls a bad deployment back."
        )


def _parameter_in(value: Any) -> str:
    """Return the parameter that a variable is made of: ``!Ref P`` or ``!Join [",", !Ref P]``."""
    return str(value["Ref"] if "Ref" in value else value["Fn::Join"][1]["Ref"])


def notes_on_parameters(
    parameters: Mapping[str, str], *, machine: str = platform.machine()
) -> Iterable[str]:
    """Yield what is allowed but may surprise; ``machine`` is the processor that builds."""
    here = "arm64" if machine in ("arm64", "aarch64") else "x86_64"
    if parameters["Architecture"] != here:
        yield (
            f"Architecture={parameters['Architecture']} is built under emulation on this {here} "
            "machine: slow, and Docker has to know how (docs/deploy-reference.md, The image)."
        )
    if int(parameters["MemoryMb"]) > MEMORY_OF_NEW_ACCOUNTS_MB:
        yield (
            f"MemoryMb={parameters['MemoryMb']}: accounts that never asked for more are held to "
            f"{MEMORY_OF_NEW_ACCOUNTS_MB} MB; the deployment will tell."
        )
    if int(parameters["TimeoutSeconds"]) >= HTTP_API_WAITS_S:
        yield (
            f"TimeoutSeconds={parameters['TimeoutSeconds']}: an HTTP API waits "
            f"{HTTP_API_WAITS_S} s; longer requests get its own 503."
        )
    if float(parameters["FetchTimeoutSeconds"]) >= float(parameters["TimeoutSeconds"]):
        yield "FetchTimeoutSeconds is not below TimeoutSeconds: a request's deadline comes first."
    if parameters["ApiAuth"] == "none":
        at_once, usd = worst_day(parameters)
        yield (
            "ApiAuth=none: anybody who knows the address can call it, at your cost. At "
            f"ThrottleRate={parameters['ThrottleRate']} a second and calls that last until their "
            f"timeout, {at_once:,} at once, that is up to {usd:,.0f} USD a day; "
            "ReservedConcurrency=10 would cap it at "
            f"{worst_day({**parameters, 'ReservedConcurrency': '10'})[1]:,.0f}."
        )


def worst_day(parameters: Mapping[str, str]) -> tuple[int, float]:
    """Return how many calls run at once if all last until their timeout, and USD for a day of it.

    Args:
        parameters: all of the template's.
    """
    wanted = int(parameters["ThrottleRate"]) * int(parameters["TimeoutSeconds"])
    at_once = min(wanted, int(parameters["ReservedConcurrency"]) or DEFAULT_CONCURRENCY)
    price = USD_PER_GB_SECOND[parameters["Architecture"]]
    return at_once, at_once * 86_400 * int(parameters["MemoryMb"]) / 1024 * price


# --- in the account ---------------------------------------------------------------------------


def check_credentials(session: Any) -> str:
    """Ask AWS who we are."""
    if not session.region_name:
        raise Stop("No region is chosen: set AWS_REGION, or `aws configure`.")
    try:
        identity = session.client("sts").get_caller_identity()
    except NoCredentialsError as error:
        raise Stop(
            "No AWS credentials were found: `aws configure`, `aws sso login`, or set AWS_PROFILE."
        ) from error
    except ClientError as error:
        said = error.response["Error"]
        raise Stop(f"AWS refused the credentials ({said['Code']}): {said['Message']}.") from error
    except BotoCoreError as error:
        raise Stop(f"AWS cannot be asked: {error}.") from error
    return f"account {identity['Account']} as {identity['Arn'].rpartition(':')[2]}"


def check_region(session: Any) -> str:
    """Compare the chosen region with those where Lambda is known to be."""
    region = session.region_name
    try:
        partition = session.get_partition_for_region(region)
    except UnknownRegionError:
        partition = "aws"
    known = session.get_available_regions("lambda", partition_name=partition)
    if region not in known:
        raise Stop(f"Lambda is not known in the region {region!r}. Known: {', '.join(known)}.")
    if partition != "aws":
        raise Stop(
            f"The region {region} is in the partition {partition}: public.ecr.aws is out of reach "
            "there, and template.yaml names buckets of the partition aws. docs/deploy-reference.md "
            "says what to change."
        )
    return f"region {region}"


def check_concurrency(
    session: Any, parameters: Mapping[str, str], *, reserved_now: int = 0
) -> Finding:
    """Compare the account's concurrency with what is reserved and provisioned.

    Args:
        session: a ``boto3.Session``.
        parameters: all of the template's.
        reserved_now: what the stack has reserved already, and would give back.
    """
    try:
        limits = session.client("lambda").get_account_settings()["AccountLimit"]
    except ClientError as error:
        code = error.response["Error"]["Code"]
        return Finding("note", f"Lambda's quotas could not be read ({code}).")
    total = limits["ConcurrentExecutions"]
    free = limits["UnreservedConcurrentExecutions"] + reserved_now
    reserved = int(parameters["ReservedConcurrency"])
    provisioned = int(parameters["ProvisionedConcurrency"])
    if reserved and free - reserved < UNRESERVED_AT_LEAST:
        raise Stop(
            f"ReservedConcurrency={reserved} is too much: of {total} at once {free} are not "
            f"reserved, and Lambda keeps {UNRESERVED_AT_LEAST} of those."
        )
    if reserved and provisioned > reserved:
        raise Stop(
            f"ProvisionedConcurrency={provisioned} is more than ReservedConcurrency={reserved}."
        )
    if total < FEW_AT_ONCE:
        return Finding(
            "note",
            f"this account runs {total} requests at once; Service Quotas raises that on request.",
        )
    return Finding("ok", f"{total} requests at once, {free} of them not reserved")


def check_stack(session: Any, stack: str) -> str:
    """Look whether the stack can be created or updated now."""
    client = session.client("cloudformation")
    try:
        status = client.describe_stacks(StackName=stack)["Stacks"][0]["StackStatus"]
    except ClientError as error:
        if "does not exist" in error.response["Error"]["Message"]:
            return f"stack {stack} is new"
        raise Stop(f"The stack {stack} cannot be looked at: {error}.") from error
    if status == NOT_YET_THERE:
        return f"stack {stack} is new; a change set for it was never carried out"
    if status in _STUCK:
        raise Stop(f"The stack {stack} is in {status}: {_STUCK[status]}.")
    if status.endswith("_IN_PROGRESS"):
        raise Stop(f"The stack {stack} is busy ({status}): wait until it is done.")
    return f"stack {stack} is there ({status}) and will be updated"


def check_image_size(size_bytes: int) -> str:
    """Compare a built image with Lambda's limit."""
    if size_bytes > MAX_IMAGE_BYTES:
        raise Stop(f"The image has {size_bytes / 1e9:.1f} GB; Lambda takes 10 GiB.")
    return f"image of {size_bytes / 1e6:.0f} MB, unpacked"


# --- all of it --------------------------------------------------------------------------------


def preflight(
    parameters: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    model: Path = SHIPPED_MODEL,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
) -> list[Finding]:
    """Run every check; those in the account only where there are credentials.

    Args:
        parameters: what differs from the template's defaults.
        stack: name of the CloudFormation stack.
        session: a ``boto3.Session``.
        model: the artifact that the image will hold.
        run: ``subprocess.run``, or a test's.
    """
    template = yaml_parse((REPOSITORY / "template.yaml").read_text())
    findings = [
        _found(check_model, model),
        _found(check_docker, base_image(), run=run),
        _found(check_parameters, parameters, template),
    ]
    fitting = findings[-1].level == "ok"
    if fitting:
        defaults = {key: str(p["Default"]) for key, p in template["Parameters"].items()}
        effective = {**defaults, **parameters}
        findings += [Finding("note", note) for note in notes_on_parameters(effective)]
    findings.append(_found(check_credentials, session))
    if findings[-1].level == "ok":
        findings.append(_found(check_region, session))
        findings.append(_found(check_stack, session, stack))
        if fitting:
            standing = deployed_parameters(session, stack) or {}
            now = int(standing.get("ReservedConcurrency", 0))
            findings.append(_found(check_concurrency, session, effective, reserved_now=now))
    return findings


def base_image() -> str:
    """Return the Dockerfile's default of BASE_IMAGE."""
    text = (REPOSITORY / "Dockerfile").read_text()
    match = re.search(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)
    if not match:
        raise ValueError("the Dockerfile has no ARG BASE_IMAGE")
    return match[1]


def show(findings: Iterable[Finding]) -> bool:
    """Print findings and return whether nothing stops the deployment."""
    marks = {"ok": "  ok  ", "note": " note ", "stop": " STOP "}
    stopped = False
    for finding in findings:
        print(f"{marks[finding.level]} {finding.text}")
        stopped |= finding.level == "stop"
    return not stopped


def main(arguments: list[str] | None = None) -> int:
    """Run the checks; see the module."""
    options = command_line("preflight", __doc__).parse_args(arguments)
    try:
        asked = read_command_line(options)
    except Stop as stop:
        return 0 if show([Finding("stop", str(stop))]) else 1
    deployed = deployed_parameters(asked.session, asked.stack)
    parameters = merged(asked.given, deployed, asked.kept, declared_parameters())
    findings = preflight(parameters, stack=asked.stack, session=asked.session)
    return 0 if show(findings) else 1


def declared_parameters() -> list[str]:
    """Return the names of template.yaml's parameters."""
    return list(yaml_parse((REPOSITORY / "template.yaml").read_text())["Parameters"])


def _found(check: Callable[..., str | Finding], *arguments: Any, **named: Any) -> Finding:
    try:
        found = check(*arguments, **named)
    except Stop as stop:
        return Finding("stop", str(stop))
    return found if isinstance(found, Finding) else Finding("ok", found)


def rule_broken(rule: Mapping[str, Any], value: str) -> str:
    """Return what is wrong with a parameter's value, or ``""``."""
    if "AllowedValues" in rule and value not in [str(v) for v in rule["AllowedValues"]]:
        return f"must be one of {', '.join(str(v) for v in rule['AllowedValues'])}"
    if "AllowedPattern" in rule and not re.search(rule["AllowedPattern"], value):
        return str(rule.get("ConstraintDescription", f"must match {rule['AllowedPattern']}"))
    if rule["Type"] != "Number":
        return ""
    low, high = rule.get("MinValue", 0), rule.get("MaxValue", float("inf"))
    if not re.fullmatch(r"[0-9]+", value) or not low <= int(value) <= high:
        return f"must be a whole number, {low} to {high}"
    return ""


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
