"""Deploy deploy/events.yaml beside a deployed service: `make events`, or::

    python -m deploy.events --stack clothing-classifier ImageBucket=uploads ResultBucket=answers

The function runs the service's image. After the stack exists, the bucket of the uploads gets a
notification. Other notifications of the bucket stay.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.bulk import find_service
from deploy.findings import CheckFailed, Finding, show
from deploy.local_checks import Run, check_rules, with_defaults
from deploy.stack import (
    DeployedStack,
    command_line,
    describe,
    load_template,
    open_session,
    read_target,
)
from deploy.up import side_stack_command
from lambda_function import REPOSITORY

TEMPLATE = REPOSITORY / "deploy" / "events.yaml"


def complete_parameters(
    given: Mapping[str, str], service: DeployedStack, image_uri: str
) -> dict[str, str]:
    """Return all parameters of the events stack.

    Args:
        given: of the command line.
        service: the stack whose image runs.
        image_uri: of its function.

    Raises:
        CheckFailed: a parameter is missing, unknown or not allowed, or results would be uploads.
    """
    template = load_template(TEMPLATE)
    parameters = {
        "ImageUri": image_uri,
        "Architecture": service.parameters.get("Architecture", "x86_64"),
        "AlarmEmail": service.parameters.get("AlarmEmail", ""),
        **given,
    }
    check_rules(parameters, template)
    declared = template["Parameters"].items()
    missing = [n for n, rule in declared if "Default" not in rule and n not in parameters]
    if missing:
        raise CheckFailed(f"Set PARAMS='{' '.join(f'{name}=...' for name in missing)}'.")
    check_no_loop(with_defaults(parameters, template))
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
    given: Mapping[str, str], *, stack: str, session: Any, run: Run = subprocess.run
) -> int:
    """Check, deploy the events stack, and add the bucket's notification.

    Args:
        given: parameters of the events stack.
        stack: the service's stack.
        session: a ``boto3.Session`` in its region.
        run: ``subprocess.run``, or a test's.

    Returns:
        An exit status.
    """
    service = find_service(session, stack)
    try:
        code = session.client("lambda").get_function(FunctionName=service.function)["Code"]
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(f"The function's image cannot be read: {error}") from error
    parameters = complete_parameters(given, service, code["ImageUri"])
    command = side_stack_command(
        TEMPLATE, f"{stack}-events", parameters, region=session.region_name
    )
    status = run(command, cwd=REPOSITORY).returncode
    deployed = None if status else describe(session, f"{stack}-events")
    if deployed is None:
        return status or 1
    effective = with_defaults(parameters, load_template(TEMPLATE))
    add_notification(session, effective, deployed)
    print(f"Uploads to s3://{effective['ImageBucket']}/{effective['ImagePrefix']} are classified.")
    return 0


def add_notification(session: Any, parameters: Mapping[str, str], deployed: DeployedStack) -> None:
    """Let the bucket tell the queue about new objects. Other notifications of the bucket stay.

    Args:
        session: a ``boto3.Session``.
        parameters: all of deploy/events.yaml.
        deployed: the events stack. Its name is the notification's id.

    Raises:
        CheckFailed: the bucket refused, with its reason.
    """
    s3, bucket = session.client("s3"), parameters["ImageBucket"]
    ours = {
        "Id": deployed.name,
        "QueueArn": deployed.outputs["QueueArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {
            "Key": {"FilterRules": [{"Name": "prefix", "Value": parameters["ImagePrefix"]}]}
        },
    }
    try:
        found = s3.get_bucket_notification_configuration(Bucket=bucket)
        others = {key: value for key, value in found.items() if key != "ResponseMetadata"}
        queues = [q for q in others.get("QueueConfigurations", []) if q.get("Id") != deployed.name]
        s3.put_bucket_notification_configuration(
            Bucket=bucket,
            NotificationConfiguration={**others, "QueueConfigurations": [*queues, ours]},
        )
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(f"The bucket {bucket} takes no notification: {error}") from error


def main(arguments: list[str] | None = None) -> int:
    """Deploy the events stack. Returns an exit status."""
    options = command_line("events", __doc__).parse_args(arguments)
    try:
        target = read_target(options)
        session = open_session(target.region)
        return deploy_events(target.given, stack=target.stack, session=session)
    except CheckFailed as failed:
        show([Finding("stop", str(failed))])
        return 1


if __name__ == "__main__":
    sys.exit(main())
