"""An AWS account without AWS: stubbed clients, and an environment that cannot reach a real one."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.support.aws import invent_account

ALIAS = "arn:aws:lambda:eu-central-1:123456789012:function:clothes-Function-1:live"
VERSION = "arn:aws:lambda:eu-central-1:123456789012:function:clothes-Function-1"


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give boto3 invented credentials and a region, and nothing of this machine."""
    invent_account(monkeypatch, AWS_DEFAULT_REGION="eu-central-1")
    boto3.DEFAULT_SESSION = None


def client_error(code: str, message: str = "no") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


@functools.cache
def _real_session() -> Any:
    return boto3.Session(region_name="eu-central-1")


class FakeSession:
    """A ``boto3.Session`` whose clients return what a test has prepared.

    Operations are named in boto3's spelling. A prepared exception is raised, a prepared function
    is called with the operation's arguments, and another value is returned. An iterator has one of
    these for each call. What is not prepared behaves as a new account does.
    """

    def __init__(self, region: str | None = "eu-central-1", **prepared: Any) -> None:
        self.region_name = region
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.configs: dict[str, Any] = {}
        self.prepared = {
            "get_caller_identity": {"Account": "123456789012", "Arn": "arn:aws:iam::1:user/me"},
            "describe_stacks": client_error("ValidationError", "Stack with id s does not exist"),
            "get_account_settings": {
                "AccountLimit": {
                    "ConcurrentExecutions": 1000,
                    "UnreservedConcurrentExecutions": 1000,
                }
            },
            **prepared,
        }

    def client(self, name: str, config: Any = None) -> Any:
        self.configs[name] = config
        return _FakeClient(self, name)

    def get_partition_for_region(self, region: str) -> str:
        return str(_real_session().get_partition_for_region(region))

    def get_available_regions(self, service: str, partition_name: str) -> list[str]:
        return list(_real_session().get_available_regions(service, partition_name))

    def get_credentials(self) -> Any:
        return boto3.Session(region_name=self.region_name).get_credentials()

    def arguments(self, operation: str) -> dict[str, Any]:
        (found,) = [given for name, given in self.calls if name == operation]
        return found


class _FakeClient:
    def __init__(self, session: FakeSession, name: str) -> None:
        self._session = session
        self._name = name

    @property
    def exceptions(self) -> Any:
        return boto3.client(self._name).exceptions

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self._session.calls.append((operation, arguments))
            result = self._session.prepared[operation]
            if isinstance(result, Iterator):
                result = next(result)
            if isinstance(result, Exception):
                raise result
            return result(**arguments) if callable(result) else result

        return call


def stack_description(
    status: str = "UPDATE_COMPLETE",
    parameters: dict[str, str] | None = None,
    outputs: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return what ``describe_stacks`` says of a deployed stack."""
    named = (
        {"FunctionAlias": ALIAS, "Endpoint": "https://x.example"} if outputs is None else outputs
    )
    return {
        "Stacks": [
            {
                "StackStatus": status,
                "Parameters": [
                    {"ParameterKey": key, "ParameterValue": value}
                    for key, value in (parameters or {}).items()
                ],
                "Outputs": [{"OutputKey": k, "OutputValue": v} for k, v in named.items()],
            }
        ]
    }


def stacks(**descriptions: Any) -> Any:
    """Return a ``describe_stacks`` that knows stacks by name, with ``_`` for ``-``."""

    def describe_stacks(StackName: str) -> Any:  # noqa: N803 - boto3's name
        found = descriptions.get(StackName.replace("-", "_"))
        if found is None:
            raise client_error("ValidationError", f"Stack with id {StackName} does not exist")
        if isinstance(found, Exception):
            raise found
        return found

    return describe_stacks


def deployed_account(
    status: str = "UPDATE_COMPLETE",
    parameters: dict[str, str] | None = None,
    *,
    alias_version: str = "7",
    **prepared: Any,
) -> FakeSession:
    """Return an account with the service's stack at version 7."""
    version = {"ResourceType": "AWS::Lambda::Version", "PhysicalResourceId": f"{VERSION}:7"}
    return FakeSession(
        **{
            "describe_stacks": stack_description(status, parameters),
            "get_alias": {"FunctionVersion": alias_version},
            "describe_stack_resources": {"StackResources": [version]},
            "get_function": {"Code": {"ImageUri": "1.dkr.ecr.eu-central-1.amazonaws.com/repo:t"}},
            "get_lifecycle_policy": {"lifecyclePolicyText": "{}"},
            **prepared,
        }
    )
