"""Deploy deploy/bulk.yaml beside a deployed service, and repeat lost batches: `make bulk`, or::

    python -m deploy.side.bulk --stack clothes ImageBucket=photos ResultBucket=answers
    python -m deploy.side.bulk --stack clothes --retry RUN

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

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.findings import CheckFailed, run_command, short_reason
from deploy.local_checks import Run
from deploy.side import stack as side_stack
from deploy.stack import DeployedStack, command_line, describe, open_session, read_target
from deploy.up import sam_deploy_command
from lambda_function import REPOSITORY

TEMPLATE = REPOSITORY / "deploy" / "bulk.yaml"
SHOWN_KEYS = 10
READ_TIMEOUT_S = 310  # above the longest function: template.yaml allows 280 s, and Lambda adds init


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


def complete_parameters(
    given: Mapping[str, str], service: DeployedStack, deployed: DeployedStack | None = None
) -> dict[str, str]:
    """Return all parameters of the bulk stack.

    Args:
        given: of the command line.
        service: the stack whose function classifies.
        deployed: the bulk stack, or None if it is new.

    Raises:
        CheckFailed: a parameter is missing, unknown or not allowed, or the function may not read
            the bucket.
    """
    parameters = side_stack.complete_parameters(
        TEMPLATE,
        given=given,
        of_service={"Function": service.outputs["FunctionAlias"]},
        deployed=deployed,
        alarm_email=service.parameters.get("AlarmEmail", ""),
    )
    buckets = [bucket for bucket in service.parameters.get("ImageBuckets", "").split(",") if bucket]
    if parameters["ImageBucket"] not in buckets:
        allowed = ",".join([*buckets, parameters["ImageBucket"]])
        raise CheckFailed(
            f"The function may not read the bucket {parameters['ImageBucket']}. First: make deploy "
            f"STACK={service.name} PARAMS='ImageBuckets={allowed}'"
        )
    return parameters


def deploy_bulk(
    given: Mapping[str, str],
    *,
    stack: str,
    session: Any,
    ask: bool = True,
    run: Run = subprocess.run,
) -> int:
    """Check, then deploy the bulk stack.

    Args:
        given: parameters of the bulk stack.
        stack: the service's stack.
        session: a ``boto3.Session`` in its region.
        ask: whether SAM shows the changes and asks to go ahead.
        run: ``subprocess.run``, or a test's.

    Returns:
        An exit status.
    """
    name = f"{stack}-bulk"
    service = side_stack.find_service(session, stack)
    parameters = complete_parameters(given, service, side_stack.find_side_stack(session, name))
    options = ("--template", str(TEMPLATE))
    command = sam_deploy_command(name, parameters, *options, region=session.region_name, ask=ask)
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
    name = name.rpartition(":")[2]  # people paste the whole ARN
    execution = bulk.outputs["StateMachine"].replace(":stateMachine:", ":execution:") + f":{name}"
    steps = session.client("stepfunctions")
    try:
        state = steps.describe_execution(executionArn=execution)
        maps = steps.list_map_runs(executionArn=execution)["mapRuns"]
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(
            f"The run {name} cannot be read: {short_reason(error)}. RETRY is the name of a run, "
            "the last part of its ARN."
        ) from error
    if state["status"] == "RUNNING":
        raise CheckFailed(f"The run {name} is not over. Wait until it is.")
    if not maps:
        raise CheckFailed(f"The run {name} ended before its first batch: {state.get('cause', '')}")
    can_redrive = state.get("redriveStatus") == "REDRIVABLE"
    try:
        lost = read_lost(session, bulk, maps[0]["mapRunArn"].rpartition(":")[2])
    except CheckFailed as failed:
        if not can_redrive:
            raise
        print(f"What was lost cannot be counted. {failed}")
    else:
        print_lost(lost)
    if can_redrive:
        try:
            steps.redrive_execution(executionArn=execution)
        except (BotoCoreError, ClientError) as error:
            raise CheckFailed(
                f"The run {name} cannot be redriven: {short_reason(error)}."
            ) from error
        print(f"The run {name} goes on with its lost batches.")
        return 0
    return _repeat(lost, session, bulk.parameters["Function"]) if lost.inputs else 0


def print_lost(lost: LostBatches) -> None:
    """Print how many batches and images were lost, and the first keys."""
    print(f"{len(lost.inputs)} batches with {len(lost.keys)} images were lost.")
    for key in lost.keys[:SHOWN_KEYS]:
        print(f"  {key}")
    if len(lost.keys) > SHOWN_KEYS:
        print(f"  and {len(lost.keys) - SHOWN_KEYS} more")


def read_lost(session: Any, bulk: DeployedStack, map_run: str) -> LostBatches:
    """Read the batches that a run has lost from its result folder, those that never began included.

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
        files = read(f"{folder}manifest.json")["ResultFiles"]
        lost = [*files["FAILED"], *files.get("PENDING", [])]
        executions = [execution for file in lost for execution in read(file["Key"])]
        inputs = [json.loads(execution["Input"]) for execution in executions]
        result = LostBatches(bucket, folder, inputs)
        _ = result.keys  # as the machine writes them
    except (BotoCoreError, ClientError, LookupError, TypeError, ValueError) as error:
        raise CheckFailed(f"s3://{bucket}/{folder} cannot be read: {_reason(error)}.") from error
    return result


def _repeat(lost: LostBatches, session: Any, function: str) -> int:
    """Classify lost batches from here and write RETRIED.jsonl beside the other results."""
    # A second call would classify a batch twice, so boto3 waits and tries nothing again.
    config = Config(read_timeout=READ_TIMEOUT_S, retries={"total_max_attempts": 1})
    client = session.client("lambda", config=config)
    lines, failures = [], 0
    for batch in lost.inputs:
        try:
            results = _invoke(client, function, batch)
        except CheckFailed as failed:
            failures += 1
            first = batch["Items"][0]["Key"] if batch["Items"] else "none"
            print(f"  lost again: {len(batch['Items'])} images from {first} on ({failed})")
        else:
            lines += [json.dumps(result, ensure_ascii=False) for result in results]
    key = f"{lost.folder}RETRIED.jsonl"
    text = "".join(f"{line}\n" for line in lines)
    try:
        session.client("s3").put_object(Bucket=lost.bucket, Key=key, Body=text.encode())
    except (BotoCoreError, ClientError) as error:
        raise CheckFailed(
            f"The results cannot be written to s3://{lost.bucket}/{key}: {short_reason(error)}. "
            "The images were classified, so correct the rights and repeat."
        ) from error
    print(f"Wrote {len(lines)} results to s3://{lost.bucket}/{key}.")
    return 1 if failures else 0


def _invoke(client: Any, function: str, batch: Mapping[str, Any]) -> list[Any]:
    """Return the function's results of a batch, or raise ``CheckFailed`` with the reason."""
    try:
        response = client.invoke(FunctionName=function, Payload=json.dumps(batch))
        body = json.loads(response["Payload"].read())
    except (BotoCoreError, ClientError, ValueError) as error:
        raise CheckFailed(_reason(error)) from error
    if "FunctionError" in response or not isinstance(body, dict) or "results" not in body:
        said = body.get("errorType", "") if isinstance(body, dict) else ""
        raise CheckFailed(said or "the function returned no results")
    results: list[Any] = body["results"]
    return results


def _reason(error: Exception) -> str:
    aws = isinstance(error, (BotoCoreError, ClientError))
    return short_reason(error) if aws else f"{type(error).__name__}: {error}"


def main(arguments: list[str] | None = None) -> int:
    """Deploy the bulk stack or repeat a run's lost batches. Returns an exit status."""
    parser = command_line("side.bulk", __doc__)
    parser.add_argument("--retry", metavar="RUN", help="repeat the lost batches of this run")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args(arguments)

    def run() -> int:
        target = read_target(options)
        session = open_session(target.region)
        if options.retry:
            return retry(options.retry, stack=target.stack, session=session)
        return deploy_bulk(target.given, stack=target.stack, session=session, ask=not options.yes)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
