"""Preflight, build, deploy: `make deploy`, or::

    python -m tools.deploy --stack clothing-classifier MemoryMb=3008 AlarmEmail=me@example.com

The first time `sam deploy --guided` asks for every parameter and keeps the answers in
samconfig.toml, which git ignores. Later runs ask nothing but whether to go ahead.

Between building and deploying, the function's description gets a stamp of the parameters. SAM
decides by the template's text whether a new version is to be published, before it knows the
parameters (its issue 3820): a stack update that changes MemoryMb alone would change the function
and leave the alias on the old version. The stamp makes it another text.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import ClientError

from tools.preflight import (
    REPOSITORY,
    Finding,
    Stop,
    check_image_size,
    preflight,
    read_parameters,
    show,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SAM = [sys.executable, "-m", "samcli"]
CONFIG = REPOSITORY / "samconfig.toml"
BUILT = REPOSITORY / ".aws-sam" / "build" / "template.yaml"
DESCRIPTION = "Classifies images of clothing"  # as template.yaml has it


def kept_parameters(config: Path = CONFIG) -> dict[str, str]:
    """Return the parameters that `sam deploy --guided` has kept."""
    kept = _kept_answers(config).get("parameter_overrides", [])
    return read_parameters([kept] if isinstance(kept, str) else kept)


def kept_region(config: Path = CONFIG) -> str | None:
    """Return the region that was answered, which `sam deploy` goes on using, or None."""
    region = _kept_answers(config).get("region")
    return None if region is None else str(region)


def _kept_answers(config: Path) -> dict[str, Any]:
    if not config.is_file():
        return {}
    tables = tomllib.loads(config.read_text())
    answers: dict[str, Any] = tables.get("default", {}).get("deploy", {}).get("parameters", {})
    return answers


def deployed_parameters(session: Any, stack: str) -> dict[str, str]:
    """Return the parameters of the stack as it stands; none where there is no stack."""
    try:
        stacks = session.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except ClientError:
        return {}
    found = stacks[0].get("Parameters", [])
    return {p["ParameterKey"]: p["ParameterValue"] for p in found}


def stamp(template: str, parameters: Mapping[str, str]) -> str:
    """Return a built template whose function's description tells the parameters apart.

    Raises:
        Stop: the description is not there exactly once.
    """
    digest = hashlib.sha256(json.dumps(sorted(parameters.items())).encode()).hexdigest()[:12]
    line = re.compile(rf"^( +Description: ){re.escape(DESCRIPTION)}$", re.MULTILINE)
    stamped, count = line.subn(rf"\g<1>{DESCRIPTION} (parameters {digest})", template)
    if count != 1:
        raise Stop(f"The built template has {count} descriptions to stamp, not one.")
    return stamped


def sam_deploy_command(stack: str, parameters: Mapping[str, str], *, guided: bool) -> list[str]:
    """Return the command that uploads the image and updates the stack.

    The first one lets SAM make the image's repository too: asked for one, it would keep the answer,
    and refuse that together with the option in every later run.
    """
    command = [*SAM, "deploy", "--stack-name", stack, "--capabilities", "CAPABILITY_IAM"]
    command += ["--resolve-image-repos", "--resolve-s3", "--confirm-changeset"]
    command += ["--guided"] if guided else ["--no-fail-on-empty-changeset"]
    if parameters:
        overrides = [f"{name}={json.dumps(value)}" for name, value in parameters.items()]
        command += ["--parameter-overrides", " ".join(overrides)]
    return command


def deploy(
    given: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    config: Path = CONFIG,
    built: Path = BUILT,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    findings: Callable[..., list[Finding]] = preflight,
) -> int:
    """Do all of it; stop at the first thing that is wrong.

    Args:
        given: parameters of this call; they win over kept ones.
        stack: name of the CloudFormation stack.
        session: a ``boto3.Session``.
        config: what `sam deploy --guided` writes.
        built: what `sam build` writes.
        run: ``subprocess.run``, or a test's.
        findings: ``preflight``, or a test's.

    Returns:
        An exit status.
    """
    parameters = {**kept_parameters(config), **given}
    if not show(findings(parameters, stack=stack, session=session, run=run)):
        print("Nothing was built or deployed.")
        return 1
    overrides = [f"{name}={json.dumps(value)}" for name, value in parameters.items()]
    build = [*SAM, "build", *(["--parameter-overrides", " ".join(overrides)] if overrides else [])]
    if run(build, cwd=REPOSITORY).returncode:
        print("The image could not be built; nothing was deployed.")
        return 1
    image = ["docker", "image", "inspect", "function:latest", "--format", "{{.Size}}"]
    asked = run(image, capture_output=True, text=True)
    if asked.returncode == 0:
        show([Finding("ok", check_image_size(int(asked.stdout)))])
    effective = {**deployed_parameters(session, stack), **parameters}
    built.write_text(stamp(built.read_text(), effective))
    guided = not config.is_file()
    status = run(sam_deploy_command(stack, parameters, guided=guided), cwd=REPOSITORY).returncode
    if status == 0:
        print("\nDeployed. Try it: make smoke URL=<the output Endpoint>")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Deploy; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.deploy", description=__doc__)
    parser.add_argument("--stack", default="clothing-classifier")
    parser.add_argument("parameters", nargs="*", metavar="Name=value")
    options = parser.parse_args(arguments)
    try:
        given = read_parameters(options.parameters)
        session = boto3.Session(region_name=kept_region())
        return deploy(given, stack=options.stack, session=session)
    except Stop as stop:
        show([Finding("stop", str(stop))])
        return 1


if __name__ == "__main__":
    sys.exit(main())
