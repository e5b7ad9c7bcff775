"""Deploy deploy/events.yaml beside a deployed service: `make events`, or::

    python -m deploy.side.events --stack clothes ImageBucket=uploads ResultBucket=answers

The function runs the service's image and its model. After the stack exists, the bucket of the
uploads gets a notification. Other notifications of the bucket stay. `make destroy` removes it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.bucket_notification import add_notification, check_bucket, remove_notification
from deploy.findings import CheckFailed, run_command, short_reason
from deploy.local_checks import Run, with_defaults
from deploy.side import stack as side_stack
from deploy.stack import (
    DeployedStack,
    command_line,
    describe,
    load_template,
    open_session,
    read_target,
)
from deploy.up import sam_deploy_command
from lambda_function import REPOSITORY

TEMPLATE = REPOSITORY / "deploy" / "events.yaml"
# Parameters of the service that decide what a prediction is.
OF_SERVICE = ("Architecture", "ModelUri", "MinScore")


def complete_parameters(
    given: Mapping[str, str],
    service: DeployedStack,
    image_uri: str,
    deployed: DeployedStack | None = None,
) -> dict[str, str]:
    """Return all parameters of the events stack.

    Args:
        given: of the command line.
        service: the stack whose image runs.
        image_uri: of its function.
        deployed: the events stack, or None if it is new.

    Raises:
        CheckFailed: a parameter is missing, unknown or not allowed, or results would be uploads.
    """
    of_service = {n: service.parameters[n] for n in OF_SERVICE if n in service.parameters}
    parameters = side_stack.complete_parameters(
        TEMPLATE,
        given=given,
        of_service={"ImageUri": image_uri, **of_service},
        deployed=deployed,
        alarm_email=service.parameters.get("AlarmEmail", ""),
    )
    check_no_loop(parameters)
    return parameters


def check_no_loop(parameters: Mapping[str, str]) -> None:
    """Refuse results that the bucket's notification would take for uploads.

    Args:
        parameters: all of deploy/events.yaml.
    """
    uploads, results = parameters["ImagePrefix"], parameters["ResultPrefix"]
    if parameters["ImageBucket"] != parameters["ResultBucket"]:
        return
    if uploads.startswith(results) and uploads != results:
        raise CheckFailed(
            f"Every upload of {uploads!r} lies in the place of results, {results!r}, and would be "
            "left out. Choose another ResultBucket or ResultPrefix."
        )
    if results.startswith(uploads):
        raise CheckFailed(
            f"The results in {results!r} would be classified as uploads of {uploads!r}, and so on. "
            "Choose another ResultBucket, or an ImagePrefix that leaves the results out, such as "
            "ImagePrefix=uploads/."
        )


def deploy_events(
    given: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    ask: bool = True,
    run: Run = subprocess.run,
) -> int:
    """Check, deploy the events stack, and add the bucket's notification.

    Args:
        given: parameters of the events stack.
        stack: the service's stack.
        session: a ``boto3.Session`` in its region.
        ask: whether SAM shows the changes and asks to go ahead.
        run: ``subprocess.run``, or a test's.

    Returns:
        An exit status.
    """
    name = f"{stack}-events"
    service = side_stack.find_service(session, stack)
    before = side_stack.find_side_stack(session, name)
    try:
        code = session.client("lambda").get_function(FunctionName=service.function)["Code"]
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(f"The function's image cannot be read: {short_reason(error)}.") from error
    parameters = complete_parameters(given, service, code["ImageUri"], before)
    check_bucket(session, parameters["ImageBucket"])
    options = ("--template", str(TEMPLATE))
    command = sam_deploy_command(name, parameters, *options, region=session.region_name, ask=ask)
    status = run(command, cwd=REPOSITORY).returncode
    if status:
        return status
    deployed = describe(session, name)
    if deployed is None or "QueueArn" not in deployed.outputs:
        print("The change set was not executed. Nothing was deployed.")
        return 1
    # The stack's own parameters, because the user may have declined the change set.
    effective = with_defaults(deployed.parameters, load_template(TEMPLATE))
    bucket = effective["ImageBucket"]
    if before and before.parameters.get("ImageBucket", bucket) != bucket:
        remove_notification(session, before)
    add_notification(session, effective, deployed)
    print(f"Uploads to s3://{bucket}/{effective['ImagePrefix']} are classified.")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Deploy the events stack. Returns an exit status."""
    parser = command_line("side.events", __doc__)
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args(arguments)

    def run() -> int:
        target = read_target(options)
        session = open_session(target.region)
        return deploy_events(target.given, stack=target.stack, session=session, ask=not options.yes)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
