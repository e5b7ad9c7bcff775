"""Deploy deploy/bulk.yaml beside a deployed service, and repeat lost batches: `make bulk`, or::

    python -m deploy.bulk --stack clothing-classifier ImageBucket=photos ResultBucket=answers
    python -m deploy.bulk --stack clothing-classifier --retry RUN

Before it deploys, it checks that the service exists and that its function may read the bucket. A
retry prints how many batches the run lost and their images. Then it redrives the run. AWS redrives
failed runs only, so it sends the lost batches of a finished run to the function itself.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploy.findings import CheckFailed, Finding, show
from deploy.local_checks import Run, check_rules
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

TEMPLATE = REPOSITORY / "deploy" / "bulk.yaml"
SHOWN_KEYS = 10


@dataclasses.dataclass(frozen=True)
class LostBatches:
    """The batches that a run has lost.

    Attributes:
        bucket: of the results.
        folder: of the run in that bucket, with a slash at its end.
        inputs: the event of each lost batch, as the function takes it.
    """

    bucket: str
    folder: str
    inputs: list[dict[str, Any]]

    @property
    def keys(self) -> list[str]:
        """Keys of all images in the lost batches."""
        return [item["Key"] for batch in self.inputs for item in batch["Items"]]


def find_service(session: Any, stack: str) -> DeployedStack:
    """Return the service's stack.

    Raises:
        CheckFailed: there is no such stack, or it has no function.
    """
    deployed = describe(session, stack)
    if deployed is None or not deployed.function:
        raise CheckFailed(
            f"The service's stack {stack} does not exist. Deploy it first (`make deploy`), or name "
            "it: STACK=..."
        )
    return deployed


def complete_parameters(given: Mapping[str, str], service: DeployedStack) -> dict[str, str]:
    """Return all parameters of the bulk stack.

    Args:
        given: of the command line.
        service: the stack whose function classifies.

    Raises:
        CheckFailed: a parameter is missing, unknown or not allowed, or the function may not read
            the bucket.
    """
    template = load_template(TEMPLATE)
    parameters = {
        "Function": service.outputs["FunctionAlias"],
        "AlarmEmail": service.parameters.get("AlarmEmail", ""),
        **given,
    }
    check_rules(parameters, template)
    declared = template["Parameters"].items()
    missing = [n for n, rule in declared if "Default" not in rule and n not in parameters]
    if missing:
        raise CheckFailed(f"Set PARAMS='{' '.join(f'{name}=...' for name in missing)}'.")
    buckets = [bucket for bucket in service.parameters.get("ImageBuckets", "").split(",") if bucket]
    if parameters["ImageBucket"] not in buckets:
        allowed = ",".join([*buckets, parameters["ImageBucket"]])
        raise CheckFailed(
            f"The function may not read the bucket {parameters['ImageBucket']}. First: make deploy "
            f"PARAMS='ImageBuckets={allowed}'"
        )
    return parameters


def deploy_bulk(
    given: Mapping[str, str], *, stack: str, session: Any, run: Run = subprocess.run
) -> int:
    """Check, then deploy the bulk stack.

    Args:
        given: parameters of the bulk stack.
        stack: the service's stack.
        session: a ``boto3.Session`` in its region.
        run: ``subprocess.run``, or a test's.

    Returns:
        An exit status.
    """
    parameters = complete_parameters(given, find_service(session, stack))
    command = side_stack_command(TEMPLATE, f"{stack}-bulk", parameters, region=session.region_name)
    return run(command, cwd=REPOSITORY).returncode


# --- retry ----------------------------------------------------------------------------------------


def retry(name: str, *, stack: str, session: Any) -> int:
    """Print what a run has lost and repeat it.

    Args:
        name: of the run, the last part of its ARN.
        stack: the service's stack.
        session: a ``boto3.Session`` in its region.

    Returns:
        An exit status.

    Raises:
        CheckFailed: there is no such run, or it is not over.
    """
    bulk = describe(session, f"{stack}-bulk")
    if bulk is None or "StateMachine" not in bulk.outputs:
        raise CheckFailed(f"There is no stack {stack}-bulk. Deploy it first: make bulk.")
    execution = bulk.outputs["StateMachine"].replace(":stateMachine:", ":execution:") + f":{name}"
    steps = session.client("stepfunctions")
    try:
        state = steps.describe_execution(executionArn=execution)
        maps = steps.list_map_runs(executionArn=execution)["mapRuns"]
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(f"The run {name} cannot be read: {error}") from error
    if state["status"] == "RUNNING":
        raise CheckFailed(f"The run {name} is not over. Wait until it is.")
    if not maps:
        raise CheckFailed(f"The run {name} ended before its first batch: {state.get('cause', '')}")
    lost = read_lost(session, bulk, maps[0]["mapRunArn"].rpartition(":")[2])
    print(f"{len(lost.inputs)} batches with {len(lost.keys)} images were lost.")
    for key in lost.keys[:SHOWN_KEYS]:
        print(f"  {key}")
    if len(lost.keys) > SHOWN_KEYS:
        print(f"  and {len(lost.keys) - SHOWN_KEYS} more")
    if state.get("redriveStatus") == "REDRIVABLE":
        steps.redrive_execution(executionArn=execution)
        print(f"The run {name} goes on with its lost batches.")
        return 0
    return _repeat(lost, session, bulk.parameters["Function"]) if lost.inputs else 0


def read_lost(session: Any, bulk: DeployedStack, map_run: str) -> LostBatches:
    """Read the batches that a run has lost from its result folder.

    Args:
        session: a ``boto3.Session``.
        bulk: the bulk stack.
        map_run: id of the Distributed Map's run.

    Raises:
        CheckFailed: the folder cannot be read.
    """
    s3, bucket = session.client("s3"), bulk.parameters["ResultBucket"]
    folder = f"{bulk.parameters['ResultPrefix']}/{map_run}/"

    def read(key: str) -> Any:
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    try:
        failed = read(f"{folder}manifest.json")["ResultFiles"]["FAILED"]
        executions = [execution for file in failed for execution in read(file["Key"])]
    except (BotoCoreError, ClientError, KeyError, ValueError) as error:
        raise CheckFailed(f"s3://{bucket}/{folder} cannot be read: {error}") from error
    return LostBatches(bucket, folder, [json.loads(execution["Input"]) for execution in executions])


def _repeat(lost: LostBatches, session: Any, function: str) -> int:
    """Classify lost batches from here and write RETRIED.jsonl beside the other results."""
    client, lines, failures = session.client("lambda"), [], 0
    for batch in lost.inputs:
        response = client.invoke(FunctionName=function, Payload=json.dumps(batch))
        body = json.loads(response["Payload"].read())
        if "FunctionError" in response:
            failures += 1
            print(f"  lost again: {len(batch['Items'])} images from {batch['Items'][0]['Key']} on")
        else:
            lines += [json.dumps(result, ensure_ascii=False) for result in body["results"]]
    key = f"{lost.folder}RETRIED.jsonl"
    text = "".join(f"{line}\n" for line in lines)
    session.client("s3").put_object(Bucket=lost.bucket, Key=key, Body=text.encode())
    print(f"Wrote {len(lines)} results to s3://{lost.bucket}/{key}.")
    return 1 if failures else 0


def main(arguments: list[str] | None = None) -> int:
    """Deploy the bulk stack or repeat a run's lost batches. Returns an exit status."""
    parser = command_line("bulk", __doc__)
    parser.add_argument("--retry", metavar="RUN", help="repeat the lost batches of this run")
    options = parser.parse_args(arguments)
    try:
        target = read_target(options)
        session = open_session(target.region)
        if options.retry:
            return retry(options.retry, stack=target.stack, session=session)
        return deploy_bulk(target.given, stack=target.stack, session=session)
    except CheckFailed as failed:
        show([Finding("stop", str(failed))])
        return 1


if __name__ == "__main__":
    sys.exit(main())
