"""What stops a deployment before it starts, with AWS played by moto and botocore's Stubber."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.stub import Stubber
from moto import mock_aws

from deploy import preflight as checks
from deploy.preflight import Finding, Stop, preflight, show
from deploy.stack import read_parameters
from lambda_function.metadata import embed_metadata, read_metadata
from tests.conftest import TINY_MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEFAULTS = {"ReservedConcurrency": "0", "ProvisionedConcurrency": "0"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.DEFAULT_SESSION = None
    yield


class Docker:
    """Stands for subprocess.run with a Docker that answers as told: {first argument: status}."""

    def __init__(self, statuses: dict[str, int] | None = None, error: str = "") -> None:
        self._statuses = statuses or {}
        self._error = error

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        status = self._statuses.get(command[1], 0)
        return subprocess.CompletedProcess(command, status, "", self._error)


class Answering:
    """A session with one client, whose answers are stubbed."""

    def __init__(self, service: str, operation: str, answer: dict[str, Any]) -> None:
        self.region_name = "eu-central-1"
        self._client = boto3.client(service)
        self._stubber = Stubber(self._client)
        if "Error" in answer:
            self._stubber.add_client_error(
                operation, answer["Error"]["Code"], answer["Error"]["Message"]
            )
        else:
            self._stubber.add_response(operation, answer)
        self._stubber.activate()

    def client(self, _: str) -> Any:
        return self._client


def limits(total: int, free: int) -> Answering:
    counts = {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": free}
    return Answering("lambda", "get_account_settings", {"AccountLimit": counts})


def stack_in(status: str, *parameters: dict[str, str]) -> Answering:
    stack: dict[str, Any] = {"StackName": "s", "CreationTime": "2026-01-01T00:00:00Z"}
    stack |= {"StackStatus": status, "Parameters": list(parameters)}
    return Answering("cloudformation", "describe_stacks", {"Stacks": [stack]})


# --- here -----------------------------------------------------------------------------------


def test_a_model_is_described() -> None:
    assert checks.check_model(TINY_MODEL).startswith("model tiny ")


def test_a_missing_model_stops_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"There is no model at .*git checkout"):
        checks.check_model(tmp_path / "model.tflite")


def test_a_model_without_metadata_or_that_is_none_stops(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(TINY_MODEL.read_bytes()[:1000])
    with pytest.raises(Stop, match="cannot be served"):
        checks.check_model(path)
    path.write_bytes(embed_metadata(b"not a model at all", read_metadata(TINY_MODEL)))
    with pytest.raises(Stop, match="no TFLite file"):
        checks.check_model(path)


def test_docker_and_base_image_are_asked_for() -> None:
    assert "can be had" in checks.check_docker("base:1", run=Docker())
    assert "can be had" in checks.check_docker("base:1", run=Docker({"image": 1}))
    with pytest.raises(Stop, match="does not answer"):
        checks.check_docker("base:1", run=Docker({"version": 1}))
    away = Docker({"image": 1, "manifest": 1}, "first\nno such host\n")
    with pytest.raises(Stop, match="base:1 cannot be had from here: no such host"):
        checks.check_docker("base:1", run=away)


def test_docker_that_is_not_installed_or_hangs_stops_with_a_sentence() -> None:
    def missing(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError

    def hanging(command: list[str], **options: Any) -> Any:
        raise subprocess.TimeoutExpired(command, options["timeout"])

    with pytest.raises(Stop, match="not installed"):
        checks.check_docker("base:1", run=missing)
    with pytest.raises(Stop, match="two minutes"):
        checks.check_docker("base:1", run=hanging)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"Memory": "1"}, "There is no parameter Memory. Known: .*MemoryMb"),
        ({"MemoryMb": "128"}, "MemoryMb must be a whole number, 512 to 10240. Received: '128'"),
        ({"MemoryMb": "1.5"}, "must be a whole number"),
        ({"Architecture": "amd64"}, "must be one of x86_64, arm64"),
        ({"ApiAuth": "jwt"}, "needs JwtIssuer and JwtAudience"),
        ({"ModelUri": "https://x/y"}, "ModelUri must be empty or s3://bucket/key"),
        ({"MinScore": "2"}, "MinScore must be empty or a number, 0 to 1"),
        ({"LogRetentionDays": "2"}, "must be one of 1, 3, 5"),
        ({"ModelUri": "s3://models/model.tflite"}, "with the model's SHA-256, 64 hexadecimal"),
        ({"TrustedImageHosts": "images.example.com"}, "must be empty or host:port"),
        ({"TrustedImageHosts": "images.example.com:99999"}, "would stop the function"),
        ({"ImageBuckets": "s3://photos"}, "ImageBuckets would stop the function: IMAGE_BUCKETS"),
        ({"MinScore": "0.1234567890"}, "MinScore would stop the function: MIN_SCORE must be"),
        ({"MetricsNamespace": "off"}, "switch off the metric that rolls a bad deployment back"),
    ],
)
def test_a_parameter_that_template_or_function_refuses_stops(
    parameters: dict[str, str], sentence: str
) -> None:
    template = checks.yaml_parse((checks.REPOSITORY / "template.yaml").read_text())
    with pytest.raises(Stop, match=sentence):
        checks.check_parameters(parameters, template)


def test_parameters_that_fit_pass() -> None:
    template = checks.yaml_parse((checks.REPOSITORY / "template.yaml").read_text())
    fitting = {"MemoryMb": "3008", "ApiAuth": "iam", "MinScore": ".5", "AlarmEmail": "a@b.c"}
    fitting |= {"ModelUri": f"s3://models/{'0f' * 32}.tflite", "TrustedImageHosts": "a.b:8443"}
    assert checks.check_parameters(fitting, template)


def test_surprising_parameters_are_noted() -> None:
    usual = {
        "Architecture": "arm64",
        "MemoryMb": "1769",
        "ReservedConcurrency": "0",
        "TimeoutSeconds": "29",
        "FetchTimeoutSeconds": "10",
        "ApiAuth": "iam",
        "ThrottleRate": "20",
    }
    assert list(checks.notes_on_parameters(usual, machine="aarch64")) == []
    for changed in (
        {"Architecture": "x86_64"},
        {"MemoryMb": "4096"},
        {"TimeoutSeconds": "60"},
        {"FetchTimeoutSeconds": "29"},
        {"ApiAuth": "none"},
    ):
        (note,) = checks.notes_on_parameters(usual | changed, machine="aarch64")
        assert next(iter(changed)) in note


def test_the_worst_day_is_every_call_held_until_its_timeout() -> None:
    parameters = {
        "ThrottleRate": "20", "TimeoutSeconds": "29", "ReservedConcurrency": "0",
        "MemoryMb": "1024", "Architecture": "x86_64",
    }  # fmt: skip
    at_once, usd = checks.worst_day(parameters)
    assert at_once == 580
    assert usd == pytest.approx(580 * 86_400 * 0.0000166667)
    capped = checks.worst_day({**parameters, "ReservedConcurrency": "10"})
    assert capped == (10, pytest.approx(usd / 58))
    assert checks.worst_day({**parameters, "ThrottleRate": "5000"})[0] == 1000  # an account's


def test_words_become_parameters() -> None:
    assert read_parameters(["A=1", 'B="x y" C=a=b']) == {"A": "1", "B": "x y", "C": "a=b"}
    with pytest.raises(Stop, match="Name=value"):
        read_parameters(["oops"])


# --- in the account -------------------------------------------------------------------------


@mock_aws
def test_who_we_are_is_said() -> None:
    assert "account 123456789012" in checks.check_credentials(boto3.Session())


def test_missing_credentials_or_region_stop_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Stop, match=r"No AWS credentials were found: `aws configure`"):
        checks.check_credentials(boto3.Session())
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Stop, match="No region is chosen"):
        checks.check_credentials(boto3.Session())


def test_expired_credentials_stop_with_aws_s_words() -> None:
    expired = {"Error": {"Code": "ExpiredToken", "Message": "The token is expired"}}
    with pytest.raises(Stop, match=r"ExpiredToken\): The token is expired"):
        checks.check_credentials(Answering("sts", "get_caller_identity", expired))


def test_regions_without_lambda_and_other_partitions_stop() -> None:
    assert checks.check_region(boto3.Session(region_name="eu-central-1"))
    with pytest.raises(Stop, match=r"not known in the region 'mars-north-1'.*eu-central-1"):
        checks.check_region(boto3.Session(region_name="mars-north-1"))
    with pytest.raises(Stop, match="aws-cn"):
        checks.check_region(boto3.Session(region_name="cn-north-1"))


def test_concurrency_of_the_account_is_compared() -> None:
    assert checks.check_concurrency(limits(1000, 1000), DEFAULTS).level == "ok"
    assert checks.check_concurrency(limits(10, 10), DEFAULTS).level == "note"
    with pytest.raises(Stop, match="ReservedConcurrency=901 is too much"):
        checks.check_concurrency(limits(1000, 1000), DEFAULTS | {"ReservedConcurrency": "901"})
    assert checks.check_concurrency(
        limits(1000, 1000), DEFAULTS | {"ReservedConcurrency": "900"}
    ).level == ("ok")
    with pytest.raises(Stop, match="ProvisionedConcurrency=6 is more"):
        checks.check_concurrency(
            limits(1000, 1000), {"ReservedConcurrency": "5", "ProvisionedConcurrency": "6"}
        )


def test_what_the_stack_itself_has_reserved_is_not_counted_against_it() -> None:
    """500 of 1,000 are its own: 500 are free, and the same 500 again take none of them."""
    again = DEFAULTS | {"ReservedConcurrency": "500"}
    with pytest.raises(Stop, match="ReservedConcurrency=500 is too much"):
        checks.check_concurrency(limits(1000, 500), again)
    assert checks.check_concurrency(limits(1000, 500), again, reserved_now=500).level == "ok"


def test_a_first_change_set_that_was_turned_down_does_not_block_for_ever() -> None:
    found = checks.check_stack(stack_in("REVIEW_IN_PROGRESS"), "s")
    assert found == "stack s is new; a change set for it was never carried out"


def test_quotas_that_may_not_be_read_are_only_noted() -> None:
    denied = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
    found = checks.check_concurrency(Answering("lambda", "get_account_settings", denied), DEFAULTS)
    assert found == Finding("note", "Lambda's quotas could not be read (AccessDeniedException).")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ("ROLLBACK_COMPLETE", "make destroy"),
        ("UPDATE_IN_PROGRESS", "wait until it is done"),
        ("DELETE_FAILED", "look at its events"),
    ],
)
def test_a_stack_that_cannot_be_updated_stops(status: str, sentence: str) -> None:
    with pytest.raises(Stop, match=sentence):
        checks.check_stack(stack_in(status), "s")


@mock_aws
def test_a_new_and_a_standing_stack_pass() -> None:
    assert "is new" in checks.check_stack(boto3.Session(), "s")
    assert "will be updated" in checks.check_stack(stack_in("UPDATE_ROLLBACK_COMPLETE"), "s")


def test_an_image_over_lambda_s_limit_stops() -> None:
    assert checks.check_image_size(500_000_000) == "image of 500 MB, unpacked"
    with pytest.raises(Stop, match="Lambda takes 10 GiB"):
        checks.check_image_size(11 * 1024**3)


# --- all of it ------------------------------------------------------------------------------


@mock_aws
def test_nothing_stops_a_deployment_that_is_fine(capsys: pytest.CaptureFixture[str]) -> None:
    found = preflight(
        {"ApiAuth": "iam"}, stack="s", session=boto3.Session(), model=TINY_MODEL, run=Docker()
    )
    assert show(found)
    levels = [finding.level for finding in found]
    assert levels.count("ok") >= 6, capsys.readouterr().out


def test_every_problem_is_listed_not_only_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    found = preflight(
        {"MemoryMb": "1"},
        stack="s",
        session=boto3.Session(),
        model=tmp_path / "none.tflite",
        run=Docker({"version": 1}),
    )
    assert not show(found)
    assert capsys.readouterr().out.count("STOP") == 4
