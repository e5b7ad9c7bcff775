"""Preflight, build, deploy: `make deploy`, or::

    python -m deploy.up --stack clothing-classifier MemoryMb=3008 AlarmEmail=me@example.com

The first time `sam deploy --guided` asks for every parameter and keeps the answers in
samconfig.toml, which git ignores. Later runs, from whichever machine, change what they are given
and leave the stack's other parameters as they are (``deploy.stack``); they ask nothing but whether
to go ahead, and with ``--yes`` not even that.

Between building and deploying, the function's description gets a stamp of the parameters. SAM
decides by the template's text whether a new version is to be published, before it knows the
parameters (its issue 3820): a stack update that changes MemoryMb alone would change the function
and leave the alias on the old version. The stamp makes it another text.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from deploy.preflight import Finding, check_image_size, declared_parameters, preflight, show
from deploy.stack import (
    CONFIG,
    REPOSITORY,
    Stop,
    command_line,
    deployed_parameters,
    merged,
    read_command_line,
    read_kept,
    to_overrides,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

SAM = [sys.executable, "-m", "samcli"]
BUILT = REPOSITORY / ".aws-sam" / "build" / "template.yaml"
DESCRIPTION = "Classifies images of clothing"  # as template.yaml has it


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


def sam_deploy_command(
    stack: str,
    parameters: Mapping[str, str],
    *,
    guided: bool,
    region: str | None = None,
    ask: bool = True,
) -> list[str]:
    """Return the command that uploads the image and updates the stack.

    The first one lets SAM make the image's repository too: asked for one, it would keep the answer,
    and refuse that together with the option in every later run.
    """
    command = [*SAM, "deploy", "--stack-name", stack, "--capabilities", "CAPABILITY_IAM"]
    command += ["--resolve-image-repos", "--resolve-s3"]
    command += ["--confirm-changeset" if ask else "--no-confirm-changeset"]
    command += ["--guided"] if guided else ["--no-fail-on-empty-changeset"]
    command += ["--region", region] if region and not guided else []
    if parameters:
        command += ["--parameter-overrides", to_overrides(parameters)]
    return command


def deploy(
    given: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    ask: bool = True,
    config: Path = CONFIG,
    built: Path = BUILT,
    run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run,
    findings: Callable[..., list[Finding]] = preflight,
) -> int:
    """Do all of it; stop at the first thing that is wrong.

    Args:
        given: parameters of this call; they win over the stack's own.
        stack: name of the CloudFormation stack.
        session: a ``boto3.Session``.
        ask: for parameters, where nothing has been answered yet, and before the stack is changed.
        config: what `sam deploy --guided` writes.
        built: what `sam build` writes.
        run: ``subprocess.run``, or a test's.
        findings: ``preflight``, or a test's.

    Returns:
        An exit status.
    """
    deployed = deployed_parameters(session, stack)
    parameters = merged(given, deployed, read_kept(config), declared_parameters())
    if not show(findings(parameters, stack=stack, session=session, run=run)):
        print("Nothing was built or deployed.")
        return 1
    overrides = ["--parameter-overrides", to_overrides(parameters)] if parameters else []
    build = [*SAM, "build", *overrides]
    if run(build, cwd=REPOSITORY).returncode:
        print("The image could not be built; nothing was deployed.")
        return 1
    image = ["docker", "image", "inspect", "function:latest", "--format", "{{.Size}}"]
    asked = run(image, capture_output=True, text=True)
    if asked.returncode == 0:
        show([Finding("ok", check_image_size(int(asked.stdout)))])
    built.write_text(stamp(built.read_text(), parameters))
    guided = ask and deployed is None and not config.is_file()
    command = sam_deploy_command(
        stack, parameters, guided=guided, region=session.region_name, ask=ask
    )
    status = run(command, cwd=REPOSITORY).returncode
    if status == 0:
        print("\nDeployed. Try it: make smoke URL=<the output Endpoint>")
    return status


def main(arguments: list[str] | None = None) -> int:
    """Deploy; see the module."""
    parser = command_line("deploy", __doc__)
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args(arguments)
    try:
        asked = read_command_line(options)
        return deploy(asked.given, stack=asked.stack, session=asked.session, ask=not options.yes)
    except Stop as stop:
        show([Finding("stop", str(stop))])
        return 1


if __name__ == "__main__":
    sys.exit(main())
