"""Checks before a deployment that need no account."""

from __future__ import annotations

import copy
import io
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from deploy import local_checks as checks
from deploy.findings import CheckFailed
from deploy.stack import DeployedStack, load_template
from lambda_function.metadata import embed_metadata, read_metadata
from tests.conftest import TINY_MODEL

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = load_template()


class FakeDocker:
    """``subprocess.run`` with a Docker that returns these statuses: {first argument: status}."""

    def __init__(
        self, statuses: dict[str, int] | None = None, *, error: str = "", image: str = ""
    ) -> None:
        self._statuses = statuses or {}
        self._error = error
        self._image = image

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        status = self._statuses.get(command[1], 0)
        return subprocess.CompletedProcess(command, status, self._image, self._error)


def test_a_model_that_can_be_served_is_described() -> None:
    assert checks.check_model(TINY_MODEL).startswith("model tiny ")


def test_a_missing_model_stops_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match=r"There is no model at .*git checkout"):
        checks.check_model(tmp_path / "model.tflite")


def test_a_model_without_metadata_or_without_a_network_stops(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(TINY_MODEL.read_bytes()[:1000])
    with pytest.raises(CheckFailed, match="cannot be served"):
        checks.check_model(path)
    path.write_bytes(embed_metadata(b"not a model at all", read_metadata(TINY_MODEL)))
    with pytest.raises(CheckFailed, match="no TFLite file"):
        checks.check_model(path)


# --- Docker -----------------------------------------------------------------------------------


@pytest.mark.parametrize("docker", [FakeDocker(), FakeDocker({"image": 1})])
def test_docker_with_a_base_image_or_a_registry_passes(docker: FakeDocker) -> None:
    assert "can be pulled" in checks.check_docker("base:1", run=docker)


def _missing(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError


def _forbidden(*_: Any, **__: Any) -> Any:
    raise PermissionError("not executable")


def _hanging(command: list[str], **options: Any) -> Any:
    raise subprocess.TimeoutExpired(command, options["timeout"])


@pytest.mark.parametrize(
    ("docker", "sentence"),
    [
        (FakeDocker({"version": 1}), "does not respond"),
        (
            FakeDocker({"image": 1, "manifest": 1}, error="first\nno such host\n"),
            "base:1 cannot be pulled: no such host",
        ),
        (_missing, "not installed"),
        (_forbidden, "cannot be started: not executable"),
        (_hanging, "two minutes"),
    ],
)
def test_docker_that_cannot_build_stops(docker: Any, sentence: str) -> None:
    with pytest.raises(CheckFailed, match=sentence):
        checks.check_docker("base:1", run=docker)


@pytest.mark.parametrize(
    ("architecture", "built", "said"),
    [
        ("x86_64", "amd64 500000000", "image for x86_64, 500 MB unpacked"),
        ("arm64", "arm64 1000000", "image for arm64"),
        ("x86_64", "", "cannot be inspected"),
    ],
)
def test_the_built_image_is_described(architecture: str, built: str, said: str) -> None:
    assert said in checks.check_image(architecture, run=FakeDocker(image=built))


@pytest.mark.parametrize(
    ("architecture", "built", "sentence"),
    [
        ("arm64", "amd64 1000", "built for amd64, and the function is Architecture=arm64"),
        ("x86_64", f"amd64 {11 * 1024**3}", "Lambda takes 10 GiB"),
    ],
)
def test_an_image_that_lambda_cannot_run_stops(
    architecture: str, built: str, sentence: str
) -> None:
    with pytest.raises(CheckFailed, match=sentence):
        checks.check_image(architecture, run=FakeDocker(image=built))


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"Memory": "1"}, "There is no parameter Memory. Known: .*MemoryMb"),
        ({"MemoryMb": "128"}, "MemoryMb must be a whole number, 512 to 10240. Received: '128'"),
        ({"MemoryMb": "1.5"}, "must be a whole number"),
        # CloudFormation compares text, so this would be no "0" and would reserve nothing at all.
        ({"ReservedConcurrency": "00"}, "must be a whole number"),
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
        ({"CorsOrigins": "example.com"}, "with the scheme .*Received: 'example.com'"),
        ({"CorsOrigins": "https://a.example,b.example"}, "Received: 'b.example'"),
        ({"CorsOrigins": "https://a.example/page"}, "without a path"),
        ({"VpcSubnetIds": "subnet-1"}, "needs VpcSecurityGroupIds"),
    ],
)
def test_a_parameter_that_template_or_function_refuses_stops(
    parameters: dict[str, str], sentence: str
) -> None:
    with pytest.raises(CheckFailed, match=sentence):
        checks.check_parameters(parameters, TEMPLATE)


def test_parameters_that_fit_pass() -> None:
    fitting = {"MemoryMb": "3008", "ApiAuth": "iam", "MinScore": ".5", "AlarmEmail": "a@b.c"}
    fitting |= {"ModelUri": f"s3://models/{'0f' * 32}.tflite", "TrustedImageHosts": "a.b:8443"}
    fitting |= {"CorsOrigins": "https://a.example,http://localhost:3000"}

    assert checks.check_parameters(fitting, TEMPLATE)


@pytest.mark.parametrize("value", ["2", 2, {"Fn::Sub": "${AWS::Region}"}])
def test_a_variable_that_an_operator_added_to_the_template_passes(value: Any) -> None:
    """docs/settings.md: "Add them to its Variables"."""
    checks.check_environment(PARAMETERS, with_variable("INTERPRETER_THREADS", value))


def test_a_literal_that_the_function_refuses_stops() -> None:
    with pytest.raises(CheckFailed, match="INTERPRETER_THREADS would stop the function: INTERPR"):
        checks.check_environment(PARAMETERS, with_variable("INTERPRETER_THREADS", 99))


PARAMETERS = checks.with_defaults({}, TEMPLATE)


def with_variable(name: str, value: Any) -> Any:
    template = copy.deepcopy(TEMPLATE)
    template["Resources"]["Function"]["Properties"]["Environment"]["Variables"][name] = value
    return template


@pytest.mark.parametrize("name", ["x" * 50, "1st", "with_underscore", ""])
def test_a_stack_name_that_the_hook_cannot_carry_stops(name: str) -> None:
    with pytest.raises(CheckFailed, match="at most 49 letters"):
        checks.check_stack_name(name)


def test_a_usual_stack_name_passes() -> None:
    assert checks.check_stack_name("clothing-classifier")
    assert len("CodeDeployHook_" + "x" * checks.MAX_STACK_NAME) == 64


# --- provisioned concurrency ------------------------------------------------------------------


def stack(provisioned: str) -> DeployedStack:
    return DeployedStack("s", "UPDATE_COMPLETE", {"ProvisionedConcurrency": provisioned}, {})


@pytest.mark.parametrize(
    ("style", "before", "after"),
    [("AllAtOnce", "0", "2"), ("Canary10Percent5Minutes", "2", "2")],
)
def test_provisioned_concurrency_may_stay_or_change_at_once(
    style: str, before: str, after: str
) -> None:
    parameters = {"DeploymentStyle": style, "ProvisionedConcurrency": after}

    assert checks.check_provisioned_change(parameters, stack(before)) is None
    assert checks.check_provisioned_change(parameters, None) is None  # a new alias


def test_a_change_of_provisioned_concurrency_during_a_canary_stops() -> None:
    parameters = {"DeploymentStyle": "Canary10Percent5Minutes", "ProvisionedConcurrency": "2"}

    with pytest.raises(CheckFailed, match=r"Deploy twice: .*DeploymentStyle=AllAtOnce"):
        checks.check_provisioned_change(parameters, stack("0"))


# --- JWT issuer -------------------------------------------------------------------------------

ISSUER = "https://issuer.example/pool"


def serving(content: Any) -> Any:
    def open_url(url: str, timeout: float) -> io.BytesIO:
        assert url == f"{ISSUER}/.well-known/openid-configuration"
        if isinstance(content, Exception):
            raise content
        return io.BytesIO(content if isinstance(content, bytes) else json.dumps(content).encode())

    return open_url


def test_an_issuer_with_a_discovery_document_passes() -> None:
    document = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/keys"}

    assert f"{ISSUER}/keys" in checks.check_issuer(ISSUER, open_url=serving(document))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (OSError("no such host"), "no discovery document .*no such host"),
        (b"<html>", "no discovery document"),
        ({"issuer": ISSUER}, "no discovery document .*jwks_uri"),
        ([], "no discovery document"),
        ({"issuer": "https://other.example", "jwks_uri": "x"}, "names https://other.example"),
        ({"issuer": f"{ISSUER}/", "jwks_uri": "x"}, f"names {ISSUER}/. Use that, a slash"),
    ],
)
def test_an_issuer_that_api_gateway_would_refuse_stops(content: Any, sentence: str) -> None:
    with pytest.raises(CheckFailed, match=sentence):
        checks.check_issuer(ISSUER, open_url=serving(content))


# --- notes ------------------------------------------------------------------------------------

QUIET = checks.with_defaults({"Architecture": "arm64", "ApiAuth": "iam"}, TEMPLATE)


def test_usual_parameters_need_no_note() -> None:
    assert list(checks.notes_on_parameters(QUIET, machine="aarch64")) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"Architecture": "x86_64"},
        {"MemoryMb": "4096"},
        {"TimeoutSeconds": "60"},
        {"FetchTimeoutSeconds": "29"},
        {"RollbackAlarms": "off"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_surprising_parameter_is_noted(changed: dict[str, str]) -> None:
    (note,) = checks.notes_on_parameters(QUIET | changed, machine="aarch64")

    assert next(iter(changed)) in note


def test_the_worst_day_is_every_call_held_until_its_timeout() -> None:
    parameters = {
        "ThrottleRate": "20", "TimeoutSeconds": "29", "ReservedConcurrency": "0",
        "MemoryMb": "1024", "Architecture": "x86_64",
    }  # fmt: skip

    at_once, usd = checks.worst_day(parameters, 1000)

    assert at_once == 580
    assert usd == pytest.approx(580 * 86_400 * 0.0000166667)
    capped = checks.worst_day({**parameters, "ReservedConcurrency": "10"}, 1000)
    assert capped == (10, pytest.approx(usd / 58))
    assert checks.worst_day({**parameters, "ThrottleRate": "5000"}, 100)[0] == 100  # the account's


def test_the_worst_bill_is_that_of_the_account() -> None:
    open_api = QUIET | {"ApiAuth": "none", "MemoryMb": "1024", "Architecture": "arm64"}

    note = checks.bill_at_worst(open_api, concurrency=10, reservable=0)

    assert "10 run at once" in note
    assert "up to 12 USD a day" in note  # 10 x 86,400 s x 1 GB x 0.0000133334


def test_an_issuer_that_is_no_address_is_a_sentence() -> None:
    with pytest.raises(CheckFailed, match="is no discovery document"):
        checks.check_issuer("https://a b")
