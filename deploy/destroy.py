"""Remove a stack with its versions, images and logs: `make destroy`, or::

    python -m deploy.destroy --stack clothes-events

The stacks beside a service go first, because they run its function or its image. The bucket of an
events stack loses its notification before the queue goes. S3 refuses every change of a bucket's
notifications while one names a queue that does not exist.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from deploy.account_checks import check_credentials
from deploy.ask import Ask
from deploy.bucket_notification import remove_notification
from deploy.findings import CheckFailed, run_command
from deploy.local_checks import Run
from deploy.stack import SIDE_STACKS, command_line, describe, open_session, read_target
from deploy.up import SAM
from lambda_function import REPOSITORY


def destroy(stack: str, session: Any, *, ask: Ask | None = input, run: Run = subprocess.run) -> int:
    """Ask, then remove a stack.

    Args:
        stack: name of the stack.
        session: a ``boto3.Session`` in its region.
        ask: ``input``, or None to ask nothing.
        run: ``subprocess.run``, or a test's.

    Returns:
        An exit status.

    Raises:
        CheckFailed: the credentials do not work, or another stack needs this one.
    """
    who = check_credentials(session)
    deployed = describe(session, stack)
    for name in (stack + suffix for suffix in SIDE_STACKS):
        if describe(session, name) is not None:
            raise CheckFailed(
                f"The stack {name} needs {stack}. Remove it first: make destroy STACK={name}"
            )
    if ask:
        state = deployed.status if deployed else "nothing or only a change set of it exists"
        print(f"{stack} in {session.region_name}, {who}: {state}")
        if ask("Remove it with its versions, images and logs? y or n [n]: ").lower() != "y":
            print("Nothing was removed.")
            return 1
    if deployed and "ImageUri" in deployed.parameters:  # of deploy/events.yaml only
        remove_notification(session, deployed)
    command = [*SAM, "delete", "--stack-name", stack, "--region", session.region_name]
    return run([*command, "--no-prompts"], cwd=REPOSITORY).returncode


def main(arguments: list[str] | None = None) -> int:
    """Remove the stack that the command line names. Returns an exit status."""
    parser = command_line("destroy", __doc__)
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    options = parser.parse_args(arguments)

    def run() -> int:
        target = read_target(options)
        session = open_session(target.region)
        return destroy(target.stack, session, ask=None if options.yes else input)

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
