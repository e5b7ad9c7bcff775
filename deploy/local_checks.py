"""Checks that need no AWS account: the model, Docker, the built image and the parameters."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from deploy.costs import USD_PER_GB_SECOND
from deploy.findings import CheckFailed
from deploy.stack import TEMPLATE, DeployedStack
from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.metadata import MetadataError, read_metadata
from lambda_function.settings import Settings, SettingsError

MEMORY_OF_NEW_ACCOUNTS_MB = 3008  # AWS grants more on request, and no API tells
BUILT_IMAGE = "function:latest"  # as `sam build` names it
MAX_IMAGE_BYTES = 10 * 1024**3  # Lambda's limit for an unpacked image
HTTP_API_WAITS_S = 30
DISCOVERY_TIMEOUT_S = 10
# The hook is called CodeDeployHook_ and the stack's name. A function's name has 64 characters.
MAX_STACK_NAME = 64 - len("CodeDeployHook_")
Run = Callable[..., subprocess.CompletedProcess[str]]


def check_model(path: Path = SHIPPED_MODEL) -> str:
    """Check the model that the image will hold. The image's build opens it completely."""
    if not path.is_file():
        raise CheckFailed(
            f"There is no model at {path}. `git checkout -- lambda_function/model.tflite` brings "
            "back the released one. `make adopt MODEL=...` puts yours there."
        )
    try:
        metadata = read_metadata(path)
    except (MetadataError, OSError) as error:
        raise CheckFailed(f"The model cannot be served: {error}.") from error
    if path.read_bytes()[4:8] != b"TFL3":
        raise CheckFailed(f"The model {path} is no TFLite file.")
    size_mb = path.stat().st_size / 1e6
    classes = len(metadata.labels)
    return f"model {metadata.name} {metadata.version}: {classes} classes, {size_mb:.1f} MB"


# --- Docker ---------------------------------------------------------------------------------------


def base_image() -> str:
    """Return the Dockerfile's default of BASE_IMAGE."""
    text = (REPOSITORY / "Dockerfile").read_text()
    match = re.search(r"^ARG BASE_IMAGE=(\S+)", text, re.MULTILINE)
    if not match:
        raise CheckFailed("The Dockerfile has no ARG BASE_IMAGE.")
    return match[1]


def check_docker(name: str, *, run: Run = subprocess.run) -> str:
    """Check that Docker works and that the base image can be pulled.

    Args:
        name: of the base image.
        run: ``subprocess.run``, or a test's.
    """

    def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run(["docker", *arguments], capture_output=True, text=True, timeout=120)

    try:
        if docker("version").returncode:
            raise CheckFailed("Docker does not respond. Start it, then try again.")
        if docker("image", "inspect", name).returncode:
            manifest = docker("manifest", "inspect", name)
            if manifest.returncode:
                raise CheckFailed(
                    f"The base image {name} cannot be pulled: {_last_line(manifest.stderr)}. Where "
                    "public.ecr.aws is out of reach, mirror the image and name yours in the "
                    "Dockerfile's ARG BASE_IMAGE (docs/deploy-reference.md)."
                )
    except FileNotFoundError as error:
        raise CheckFailed("Docker is not installed. The image is built with it.") from error
    except OSError as error:
        raise CheckFailed(f"Docker cannot be started: {error}.") from error
    except subprocess.TimeoutExpired as error:
        raise CheckFailed("Docker did not respond within two minutes.") from error
    return f"Docker works, and the base image {name} can be pulled"


def check_image(architecture: str, *, run: Run) -> str:
    """Check the processor and size of the image that `sam build` made.

    Args:
        architecture: ``"x86_64"`` or ``"arm64"``, of the function.
        run: ``subprocess.run``, or a test's.
    """
    wanted = {"x86_64": "amd64", "arm64": "arm64"}[architecture]
    command = ["docker", "image", "inspect", BUILT_IMAGE, "--format", "{{.Architecture}} {{.Size}}"]
    inspected = run(command, capture_output=True, text=True)
    words = inspected.stdout.split()
    if inspected.returncode or len(words) != 2:
        return f"the image {BUILT_IMAGE} cannot be inspected"
    if words[0] != wanted:
        raise CheckFailed(
            f"The image is built for {words[0]}, and the function is Architecture={architecture}. "
            "Docker must know how to build for it (docs/deploy-reference.md, The image)."
        )
    size_bytes = int(words[1])
    if size_bytes > MAX_IMAGE_BYTES:
        raise CheckFailed(f"The image has {size_bytes / 1e9:.1f} GB. Lambda takes 10 GiB.")
    return f"image for {architecture}, {size_bytes / 1e6:.0f} MB unpacked"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1].rstrip(".")


# --- parameters -----------------------------------------------------------------------------------


def with_defaults(parameters: Mapping[str, str], template: Mapping[str, Any]) -> dict[str, str]:
    """Return all parameters of a template: the given ones and the defaults of the others."""
    declared = template["Parameters"].items()
    defaults = {name: str(rule["Default"]) for name, rule in declared if "Default" in rule}
    return {**defaults, **parameters}


def check_parameters(parameters: Mapping[str, str], template: Mapping[str, Any]) -> str:
    """Check parameters by the template's rules, and by what the function accepts.

    Args:
        parameters: those that differ from the template's defaults.
        template: template.yaml, parsed.
    """
    check_rules(parameters, template)
    effective = with_defaults(parameters, template)
    if effective["ApiAuth"] == "jwt" and not (effective["JwtIssuer"] and effective["JwtAudience"]):
        raise CheckFailed("ApiAuth=jwt needs JwtIssuer and JwtAudience.")
    if effective["VpcSubnetIds"] and not effective["VpcSecurityGroupIds"]:
        raise CheckFailed("VpcSubnetIds needs VpcSecurityGroupIds.")
    for origin in effective["CorsOrigins"].split(","):
        if origin != "*" and not re.fullmatch(r"https?://[^\s/*]+(\.[^\s/*]+)*", origin):
            raise CheckFailed(
                "CorsOrigins must be * or pages such as https://example.com, with the scheme and "
                f"without a path. Received: {origin!r}."
            )
    check_environment(effective, template)
    return "parameters fit the template and the function"


def check_rules(parameters: Mapping[str, str], template: Mapping[str, Any]) -> None:
    """Check names and values by the template's own rules, as CloudFormation would later."""
    declared = template["Parameters"]
    for name, value in parameters.items():
        if name not in declared:
            raise CheckFailed(
                f"There is no parameter {name}. Known: {', '.join(sorted(declared))}."
            )
        problem = broken_rule(declared[name], value)
        if problem:
            raise CheckFailed(f"{name} {problem}. Received: {value!r}.")


def broken_rule(rule: Mapping[str, Any], value: str) -> str:
    """Return what is wrong with a parameter's value, or ``""``.

    Args:
        rule: the parameter's declaration in a template.
        value: as text.
    """
    if "AllowedValues" in rule and value not in [str(v) for v in rule["AllowedValues"]]:
        return f"must be one of {', '.join(str(v) for v in rule['AllowedValues'])}"
    if "AllowedPattern" in rule and not re.search(rule["AllowedPattern"], value):
        return str(rule.get("ConstraintDescription", f"must match {rule['AllowedPattern']}"))
    if rule["Type"] != "Number":
        return ""
    low, high = rule.get("MinValue", 0), rule.get("MaxValue", float("inf"))
    if not re.fullmatch(r"0|[1-9][0-9]*", value) or not low <= int(value) <= high:
        return f"must be a whole number, {low} to {high}"
    return ""


def check_environment(parameters: Mapping[str, str], template: Mapping[str, Any]) -> None:
    """Let the function's own code read its variables. It refuses the same values at its start.

    Args:
        parameters: all of the template's.
        template: whose function's environment names them.
    """
    variables = template["Resources"]["Function"]["Properties"]["Environment"]["Variables"]
    sources = {name: _parameter_in(value) for name, value in variables.items()}
    texts = {
        name: parameters.get(source, "") if source else str(variables[name])
        for name, source in sources.items()
    }
    try:
        Settings.from_environment(texts)
    except SettingsError as error:
        name = str(error).split()[0]
        raise CheckFailed(f"{sources[name] or name} would stop the function: {error}.") from error
    if parameters["MetricsNamespace"] == "off":
        raise CheckFailed(
            "MetricsNamespace=off would switch off the metric that rolls a bad deployment back."
        )


def _parameter_in(value: Any) -> str:
    """Return the parameter in a variable's value, or ``""`` for a literal (docs/settings.md).

    Args:
        value: ``!Ref P`` or ``!Join [",", !Ref P]``. Of another function only AWS knows the value.
    """
    match value:
        case {"Ref": name} | {"Fn::Join": [_, {"Ref": name}]}:
            return str(name)
        case dict():
            return "unknown"
    return ""


def check_partition(parameters: Mapping[str, str], partition: str) -> str:
    """Refuse ImageBuckets in another partition than the one that template.yaml names, "aws".

    CloudFormation takes literal separators only, so the template cannot use AWS::Partition there.

    Args:
        parameters: all of the template's.
        partition: of the region.
    """
    if parameters["ImageBuckets"] and "arn:aws:s3" in TEMPLATE.read_text():
        raise CheckFailed(
            f"ImageBuckets={parameters['ImageBuckets']} needs arn:{partition}:s3 instead of "
            f"arn:aws:s3 in template.yaml, because the region is in the partition {partition}. See "
            "docs/deploy-reference.md, Other partitions."
        )
    return f"the template fits the partition {partition}"


def check_stack_name(stack: str) -> str:
    """Check that a new stack's name is short enough for the functions that carry it."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", stack) or len(stack) > MAX_STACK_NAME:
        raise CheckFailed(
            f"A stack's name must have at most {MAX_STACK_NAME} letters, digits and hyphens, and "
            f"begin with a letter. Received: {stack!r}."
        )
    return f"stack name {stack}"


def check_provisioned_change(
    parameters: Mapping[str, str], deployed: DeployedStack | None
) -> str | None:
    """Refuse a change of provisioned concurrency during a canary.

    AWS allows provisioned concurrency on an alias with two versions. It refuses to change it
    meanwhile, with "Alias with weights can not be used with Provisioned Concurrency"
    (https://github.com/aws/serverless-application-model/issues/1296,
    https://github.com/hashicorp/terraform/issues/24957).

    Args:
        parameters: all of the template's.
        deployed: the stack, or None if it is new.
    """
    if deployed is None or parameters["DeploymentStyle"] == "AllAtOnce":
        return None
    before = deployed.parameters.get("ProvisionedConcurrency", "0")
    after = parameters["ProvisionedConcurrency"]
    if before == after:
        return None
    raise CheckFailed(
        f"ProvisionedConcurrency changes from {before} to {after}, and DeploymentStyle is "
        f"{parameters['DeploymentStyle']}. AWS refuses that while the alias has two versions. "
        f"Deploy twice: first with PARAMS='ProvisionedConcurrency={after} "
        "DeploymentStyle=AllAtOnce', then with the style that you want."
    )


def check_issuer(issuer: str, *, open_url: Callable[..., Any] = urllib.request.urlopen) -> str:
    """Fetch the discovery document of a JWT issuer.

    API Gateway reads it when the authorizer is created, and fails without it. It compares the
    issuer with each token's letter by letter, so a missing slash refuses every caller
    (https://github.com/aws-samples/ask-around-me/issues/3).

    Args:
        issuer: parameter JwtIssuer.
        open_url: ``urllib.request.urlopen``, or a test's.
    """
    url = issuer.rstrip("/") + "/.well-known/openid-configuration"
    try:
        with open_url(url, timeout=DISCOVERY_TIMEOUT_S) as response:
            document = json.loads(response.read(1_000_000))
        stated, keys = document["issuer"], document["jwks_uri"]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise CheckFailed(
            f"JwtIssuer={issuer}: {url} is no discovery document ({error!r}). API Gateway needs it."
        ) from error
    if stated != issuer:
        raise CheckFailed(
            f"JwtIssuer={issuer}: its discovery document names {stated}. Use that, a slash at its "
            "end included, because tokens name it so."
        )
    return f"JWT issuer {issuer} publishes its keys at {keys}"


def notes_on_parameters(
    parameters: Mapping[str, str], *, machine: str = platform.machine()
) -> Iterator[str]:
    """Yield what is allowed but may surprise.

    Args:
        parameters: all of the template's.
        machine: the processor that builds the image.
    """
    here = "arm64" if machine in ("arm64", "aarch64") else "x86_64"
    architecture, timeout_s = parameters["Architecture"], int(parameters["TimeoutSeconds"])
    if architecture != here:
        yield (
            f"Architecture={architecture} is built under emulation on this {here} machine. That is "
            "slow, and Docker must know how (docs/deploy-reference.md, The image)."
        )
    if int(parameters["MemoryMb"]) > MEMORY_OF_NEW_ACCOUNTS_MB:
        yield (
            f"MemoryMb={parameters['MemoryMb']}: accounts that never asked for more are limited to "
            f"{MEMORY_OF_NEW_ACCOUNTS_MB} MB. The deployment will tell."
        )
    if timeout_s >= HTTP_API_WAITS_S:
        yield (
            f"TimeoutSeconds={timeout_s}: an HTTP API waits {HTTP_API_WAITS_S} s. Longer requests "
            "get its own 503."
        )
    if float(parameters["FetchTimeoutSeconds"]) >= timeout_s:
        yield "FetchTimeoutSeconds is not below TimeoutSeconds. The request's deadline comes first."
    if parameters["RollbackAlarms"] == "off":
        yield "RollbackAlarms=off: no alarm stops this deployment. Set it to on afterwards."


def bill_at_worst(parameters: Mapping[str, str], *, concurrency: int, reservable: int) -> str:
    """Say what a day costs on which every call lasts until its timeout, and what would limit it.

    Args:
        parameters: all of the template's.
        concurrency: requests that the account runs at once.
        reservable: the part of them that can be reserved.
    """
    kind = parameters["ApiAuth"]
    who = "everybody who knows the address can call it" if kind == "none" else "its callers"
    at_once, usd = worst_day(parameters, concurrency)
    capped = worst_day({**parameters, "ReservedConcurrency": "10"}, concurrency)[1]
    if reservable >= 10 and capped < usd:
        advice = f" ReservedConcurrency=10 would limit it to {capped:,.0f}."
    else:
        advice = " Set ApiAuth to decide who may call." if kind == "none" else ""
    return (
        f"The bill at worst (ApiAuth={kind}: {who}, and you pay): with "
        f"ThrottleRate={parameters['ThrottleRate']} a second and calls that last until their "
        f"timeout, {at_once:,} run at once. That is up to {usd:,.0f} USD a day.{advice}"
    )


def worst_day(parameters: Mapping[str, str], concurrency: int) -> tuple[int, float]:
    """Return the price of a day on which every call lasts until its timeout.

    Args:
        parameters: all of the template's.
        concurrency: requests that the account runs at once.

    Returns:
        (calls at once, USD for 24 hours).
    """
    wanted = int(parameters["ThrottleRate"]) * int(parameters["TimeoutSeconds"])
    at_once = min(wanted, int(parameters["ReservedConcurrency"]) or concurrency)
    price = USD_PER_GB_SECOND[parameters["Architecture"]]
    return at_once, at_once * 86_400 * int(parameters["MemoryMb"]) / 1024 * price
