"""What AWS will create from the templates, as far as SAM's translator tells."""

from __future__ import annotations

import functools
import graphlib
import importlib
import importlib.resources
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cfnlint.data.schemas.other.step_functions as step_functions_schemas
import jsonschema
import pytest

from lambda_function import SHIPPED_MODEL, app, example_image
from lambda_function.http import pages
from lambda_function.http.events import QUEUE_HANDLER
from lambda_function.metadata import read_metadata
from lambda_function.service import Service
from lambda_function.settings import VARIABLES, Settings
from tests.support.template import REPOSITORY, deploy, load, translate

SERVICE, BULK = "template.yaml", "deploy/bulk.yaml"
JWT = {"ApiAuth": "jwt", "JwtIssuer": "https://issuer.example", "JwtAudience": "one,two"}
EVERYTHING_ON = JWT | {
    "Tracing": "Active",
    "ModelUri": "s3://models/clothing/" + "0f" * 32 + ".tflite",
    "ImageBuckets": "photos,more-photos",
    "ReservedConcurrency": "7",
    "ProvisionedConcurrency": "2",
    "AlarmEmail": "ops@example.com",
    "Dashboard": "on",
    "VpcSubnetIds": "subnet-1,subnet-2",
    "VpcSecurityGroupIds": "sg-1",
}
BUCKETS = {"ImageBucket": "photos", "ResultBucket": "results"}
BULK_PARAMETERS = {
    "Function": "arn:aws:lambda:eu-central-1:123456789012:function:clothes-Function-1:live",
    **BUCKETS,
}
# Actions that AWS defines for no narrower resource than "*", each with where it says so.
UNSCOPED = {
    "xray:PutTraceSegments": "service authorization reference, AWS X-Ray: no resource types",
    "xray:PutTelemetryRecords": "service authorization reference, AWS X-Ray: no resource types",
    **dict.fromkeys(
        (
            *("ec2:CreateNetworkInterface", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets"),
            *("ec2:DeleteNetworkInterface", "ec2:AssignPrivateIpAddresses"),
            "ec2:UnassignPrivateIpAddresses",
        ),
        "AWS's own AWSLambdaVPCAccessExecutionRole has them with Resource *",
    ),
    **dict.fromkeys(
        (
            *("logs:CreateLogDelivery", "logs:GetLogDelivery", "logs:UpdateLogDelivery"),
            *("logs:DeleteLogDelivery", "logs:ListLogDeliveries", "logs:PutResourcePolicy"),
            *("logs:DescribeResourcePolicies", "logs:DescribeLogGroups"),
        ),
        "Step Functions developer guide, 'Logging using CloudWatch Logs': needs Resource *",
    ),
}
MANAGED = {
    "arn:aws:iam::aws:policy/service-role/AWSCodeDeployRoleForLambda": "SAM gives it to CodeDeploy",
}


@functools.cache
def service(**parameters: str) -> dict[str, Any]:
    return deploy(SERVICE, **parameters)


def resources(template: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    found = template["Resources"].items()
    return {name: r["Properties"] for name, r in found if r["Type"] == f"AWS::{kind}"}


def function(**parameters: str) -> dict[str, Any]:
    return resources(service(**parameters), "Lambda::Function")["Function"]


def statements(template: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        statement
        for role in resources(template, "IAM::Role").values()
        for policy in role.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- both templates -------------------------------------------------------------------------


TEMPLATES = (SERVICE, BULK, "deploy/domain.yaml", "deploy/events.yaml")
REGIONS = ("eu-central-1", "us-east-1", "ap-southeast-2")
SAM = REPOSITORY / ".venv" / "sam" / "bin" / "sam"


@pytest.mark.container  # SAM has an environment of its own, which `make test-container` makes
@pytest.mark.skipif(not SAM.is_file(), reason="SAM is not installed: make test-container")
@pytest.mark.parametrize("name", TEMPLATES)
def test_sam_validates_and_lints_every_template(name: str) -> None:
    validated = subprocess.run(
        [str(SAM), "validate", "--lint", "--region", "eu-central-1", "--template", name],
        cwd=REPOSITORY,
        env={**os.environ, "SAM_CLI_TELEMETRY": "0"},
        capture_output=True,
        text=True,
    )
    assert validated.returncode == 0, validated.stdout + validated.stderr


def test_cfn_lint_finds_nothing_in_three_regions() -> None:
    lint = str(Path(sys.executable).with_name("cfn-lint"))
    linted = subprocess.run(
        [lint, "--regions", *REGIONS, "-t", *TEMPLATES],
        cwd=REPOSITORY,
        env={**os.environ, "AWS_DEFAULT_REGION": "eu-central-1"},
        capture_output=True,
        text=True,
    )
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout + linted.stderr


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_parameter_says_what_it_does_and_is_used(name: str) -> None:
    template = load(name)
    text = json.dumps({**template, "Parameters": None, "Metadata": None}, default=str)
    for key, parameter in template["Parameters"].items():
        assert len(parameter["Description"]) > 20, key
        assert len(parameter["Description"]) <= 4000 and parameter["Description"].endswith(
            (".", "_AbCdEfGhI")
        ), key
        assert f'{{"Ref": "{key}"}}' in text or f"${{{key}}}" in text, key


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_template_names_what_the_shipped_model_knows(name: str) -> None:
    """A team with an adopted model deploys the same templates."""
    assert "cloth" not in (REPOSITORY / name).read_text().lower()


def test_every_parameter_of_the_service_has_a_default_and_a_place_in_the_console() -> None:
    template = load(SERVICE)
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    grouped = [name for group in groups for name in group["Parameters"]]
    assert sorted(grouped) == sorted(template["Parameters"])
    assert all("Default" in parameter for parameter in template["Parameters"].values())


@pytest.mark.parametrize(
    "template",
    [
        deploy(SERVICE, **EVERYTHING_ON),
        deploy(BULK, **BULK_PARAMETERS),
        deploy("deploy/events.yaml", ImageUri="x", **BUCKETS),
    ],
    ids=["service", "bulk", "events"],
)
class TestPermissions:
    def test_no_statement_is_for_everything_without_a_reason(
        self, template: dict[str, Any]
    ) -> None:
        assert statements(template)
        for statement in statements(template):
            actions = as_list(statement["Action"])
            assert statement["Effect"] == "Allow"
            assert not [action for action in actions if "*" in action]
            if "*" in as_list(statement["Resource"]):
                assert set(actions) <= set(UNSCOPED), actions

    def test_bucket_resources_name_a_bucket(self, template: dict[str, Any]) -> None:
        for statement in statements(template):
            if as_list(statement["Action"])[0].startswith("s3:"):
                for resource in as_list(statement["Resource"]):
                    assert re.fullmatch(r"arn:aws:s3:::[a-z-]+(/.*)?", resource), resource

    def test_managed_policies_are_the_listed_ones(self, template: dict[str, Any]) -> None:
        roles = resources(template, "IAM::Role").values()
        used = {arn for role in roles for arn in role.get("ManagedPolicyArns", [])}
        assert used <= set(MANAGED)

    def test_roles_are_for_one_service_each(self, template: dict[str, Any]) -> None:
        for role in resources(template, "IAM::Role").values():
            (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
            assert len(as_list(statement["Principal"]["Service"])) == 1

    def test_logs_are_not_kept_for_ever(self, template: dict[str, Any]) -> None:
        groups = resources(template, "Logs::LogGroup")
        assert groups
        assert all(int(group["RetentionInDays"]) == 30 for group in groups.values())


# --- the function ---------------------------------------------------------------------------


def test_default_timeout_ends_before_the_gateway_s() -> None:
    (integration,) = resources(service(), "ApiGatewayV2::Integration").values()
    assert int(function()["Timeout"]) * 1000 < integration["TimeoutInMillis"] <= 30_000


def test_its_environment_is_one_that_the_settings_accept() -> None:
    known = {variable.name for variable in VARIABLES}
    for parameters in ({}, EVERYTHING_ON):
        variables = function(**parameters)["Environment"]["Variables"]
        assert set(variables) <= known
        settings = Settings.from_environment(variables)
    assert settings.image_buckets == {"photos", "more-photos"}
    assert settings.api_auth == "jwt"
    assert settings.model_uri == EVERYTHING_ON["ModelUri"]
    assert Settings.from_environment(function()["Environment"]["Variables"]) == Settings()


def test_it_writes_to_the_log_group_with_retention_and_to_no_other() -> None:
    assert function()["LoggingConfig"] == {"LogGroup": "<FunctionLogs>", "LogFormat": "Text"}
    logs = [s for s in statements(service()) if "logs:PutLogEvents" in s["Action"]]
    assert {statement["Resource"] for statement in logs} == {"<FunctionLogs.Arn>"}


def test_it_may_do_nothing_else_unless_a_parameter_asks_for_it() -> None:
    role = resources(service(), "IAM::Role")["FunctionRole"]
    assert [policy["PolicyName"] for policy in role["Policies"]] == ["write-own-logs"]
    reads = [
        resource
        for statement in statements(service(**EVERYTHING_ON))
        if statement["Action"] == "s3:GetObject"
        for resource in as_list(statement["Resource"])
    ]
    assert reads == [
        "arn:aws:s3:::models/*",  # all keys: other versions of the function read other ones
        "arn:aws:s3:::photos/*",
        "arn:aws:s3:::more-photos/*",
    ]


def test_concurrency_tracing_and_vpc_are_there_when_asked_for() -> None:
    properties = function(**EVERYTHING_ON)
    assert properties["ReservedConcurrentExecutions"] == "7"
    assert properties["VpcConfig"] == {
        "SubnetIds": ["subnet-1", "subnet-2"],
        "SecurityGroupIds": ["sg-1"],
    }
    assert not {"ReservedConcurrentExecutions", "VpcConfig"} & set(function())
    assert properties["TracingConfig"] == {"Mode": "Active"}
    assert function()["TracingConfig"] == {"Mode": "PassThrough"}
    (alias,) = resources(service(**EVERYTHING_ON), "Lambda::Alias").values()
    assert alias["ProvisionedConcurrencyConfig"] == {"ProvisionedConcurrentExecutions": "2"}
    (alias,) = resources(service(), "Lambda::Alias").values()
    assert "ProvisionedConcurrencyConfig" not in alias


def test_sam_builds_the_stage_of_the_dockerfile_that_names_no_user() -> None:
    metadata = load(SERVICE)["Resources"]["Function"]["Metadata"]
    stages = re.split(r"^FROM ", (REPOSITORY / "Dockerfile").read_text(), flags=re.MULTILINE)
    (stage,) = [s for s in stages if s.partition("\n")[0].endswith("AS function")]
    assert metadata["DockerBuildTarget"] == "function"
    assert "USER" not in stage and "CMD" in stage


# --- deployments ----------------------------------------------------------------------------


@functools.cache
def versions(**changed: Any) -> set[str]:
    return set(resources(translate(SERVICE, **changed), "Lambda::Version"))


def test_alias_moves_in_steps_and_back_on_alarms() -> None:
    template = service()
    (alias,) = resources(template, "Lambda::Alias").values()
    assert alias["Name"] == "live"
    (group,) = resources(template, "CodeDeploy::DeploymentGroup").values()
    assert group["DeploymentConfigName"] == "CodeDeployDefault.LambdaCanary10Percent5Minutes"
    names = {alarm["Name"] for alarm in group["AlarmConfiguration"]["Alarms"]}
    assert names == {"<ServerErrorAlarm>", "<FunctionErrorAlarm>", "<LatencyAlarm>"}
    assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]


@pytest.mark.parametrize("style", load(SERVICE)["Parameters"]["DeploymentStyle"]["AllowedValues"])
def test_every_deployment_style_is_one_of_codedeploy_s(style: str) -> None:
    (group,) = resources(service(DeploymentStyle=style), "CodeDeploy::DeploymentGroup").values()
    assert group["DeploymentConfigName"] == f"CodeDeployDefault.Lambda{style}"


def test_a_changed_parameter_alone_publishes_no_version() -> None:
    """SAM hashes the properties before it knows the parameters (issue 3820).

    So deploy/stamp.py stamps the description. When this fails, SAM has changed, and the stamp can
    go.
    """
    assert versions() == versions(MemoryMb="3008", MinScore="0.5")


def test_every_alarm_reaches_somebody() -> None:
    template = service(AlarmEmail="ops@example.com")
    alarms = resources(template, "CloudWatch::Alarm")
    assert len(alarms) == 7
    assert all(alarm["AlarmActions"] == ["<AlarmTopic>"] for alarm in alarms.values())
    (subscription,) = resources(template, "SNS::Subscription").values()
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "ops@example.com")
    assert not resources(service(), "SNS::Subscription")


def test_alarms_do_not_ring_where_there_are_no_requests() -> None:
    alarms = resources(service(), "CloudWatch::Alarm").values()
    assert {alarm["TreatMissingData"] for alarm in alarms} == {"notBreaching"}


ROLLBACK_ALARMS = ("ServerErrorAlarm", "FunctionErrorAlarm", "LatencyAlarm")


def metrics_of(alarm: dict[str, Any]) -> list[tuple[str, str, dict[str, str]]]:
    """Return (namespace, name, dimensions) of every metric that an alarm reads."""
    read = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
    return [
        (m["Namespace"], m["MetricName"], {d["Name"]: d["Value"] for d in m["Dimensions"]})
        for m in read or [alarm]
    ]


def written_metrics(version: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return what the function's own log line tells CloudWatch."""
    environment = {
        "AWS_LAMBDA_FUNCTION_NAME": "<Function>",
        "AWS_LAMBDA_FUNCTION_VERSION": version,
        **function()["Environment"]["Variables"],
    }
    log = app.logs.RequestLog(
        Settings.from_environment(environment),
        request_id="r",
        model_version="1",
        cold_start=False,
    )
    log.fields["OwnTime"] = 12.3
    line = json.loads(log.line(1.0))
    return [
        (m["Namespace"], metric["Name"], {name: line[name] for name in dimensions})
        for m in line["_aws"]["CloudWatchMetrics"]
        for metric in m["Metrics"]
        for dimensions in m["Dimensions"]
    ]


@pytest.mark.parametrize("name", ["ServerErrorAlarm", "LatencyAlarm", "AnyServerErrorAlarm"])
def test_an_alarm_watches_a_metric_that_the_function_writes(name: str) -> None:
    (version,) = versions()
    for metric in metrics_of(resources(service(), "CloudWatch::Alarm")[name]):
        assert metric in written_metrics(f"<{version}.Version>")


@pytest.mark.parametrize("name", ROLLBACK_ALARMS)
def test_a_rollback_alarm_watches_the_new_version_only(name: str) -> None:
    """CodeDeploy refuses a fix while an alarm of the broken version rings (SAM issue 716)."""
    alarm = resources(service(), "CloudWatch::Alarm")[name]
    (version,) = versions()
    for _, _, dimensions in metrics_of(alarm):
        newest = dimensions.get("function_version") or dimensions.get("ExecutedVersion")
        assert newest == f"<{version}.Version>"
    # Another name is another alarm, which does not inherit the state of the last one.
    assert alarm["AlarmName"].endswith(f"-v<{version}.Version>")


@pytest.mark.parametrize("name", ["AnyServerErrorAlarm", "AnyFunctionErrorAlarm"])
def test_the_alarms_over_all_versions_only_send_mail(name: str) -> None:
    template = service()
    for _, _, dimensions in metrics_of(resources(template, "CloudWatch::Alarm")[name]):
        assert not {"function_version", "ExecutedVersion"} & set(dimensions)
    (group,) = resources(template, "CodeDeploy::DeploymentGroup").values()
    assert f"<{name}>" not in json.dumps(group)


def test_rollback_alarms_can_be_switched_off() -> None:
    template = service(RollbackAlarms="off")
    (group,) = resources(template, "CodeDeploy::DeploymentGroup").values()
    assert not group.get("AlarmConfiguration")
    assert len(resources(template, "CloudWatch::Alarm")) == 7  # they still send mail


def test_rollback_alarms_ring_within_the_shortest_canary() -> None:
    alarms = resources(service(), "CloudWatch::Alarm")
    for name in ROLLBACK_ALARMS:
        alarm = alarms[name]
        periods = [m["MetricStat"]["Period"] for m in alarm.get("Metrics", []) if "MetricStat" in m]
        needed = alarm.get("DatapointsToAlarm", alarm["EvaluationPeriods"])
        assert needed * max(periods or [alarm["Period"]]) < 5 * 60, name


@pytest.mark.parametrize(
    ("name", "values", "rings"),
    [
        ("LatencyAlarm", {"predictions": 1, "slowest": 60_000}, False),
        ("LatencyAlarm", {"predictions": 20, "slowest": 60_000}, True),
        ("LatencyAlarm", {"predictions": 20, "slowest": 100}, False),
        ("GatewayErrorAlarm", {"requests": 1, "failed": 1}, False),
        ("GatewayErrorAlarm", {"requests": 20, "failed": 10}, True),
        ("GatewayErrorAlarm", {"requests": 20, "failed": 4}, False),
    ],
)
def test_few_samples_ring_no_alarm(name: str, values: dict[str, float], rings: bool) -> None:
    alarm = resources(service(), "CloudWatch::Alarm")[name]
    (expression,) = [m["Expression"] for m in alarm["Metrics"] if "Expression" in m]
    assert {m["Id"] for m in alarm["Metrics"] if "MetricStat" in m} == set(values)
    matched = re.fullmatch(r"IF\((\w+) >= (\d+), (.+), 0\)", expression)
    assert matched
    count, least, value = matched.groups()
    numerator, _, denominator = value.partition(" / ")
    judged = values[numerator] / (values[denominator] if denominator else 1)
    judged = judged if values[count] >= int(least) else 0
    assert (judged > float(alarm["Threshold"])) == rings


# --- the check before traffic -----------------------------------------------------------------


def hook() -> dict[str, Any]:
    return resources(service(), "Lambda::Function")["PreTrafficHook"]


class FakeClients:
    """``boto3`` for the hook: the function's reply, and what CodeDeploy is told."""

    def __init__(self, reply: Any) -> None:
        self._reply = reply
        self.invoked: dict[str, Any] = {}
        self.reported: dict[str, Any] = {}

    def client(self, _: str) -> FakeClients:
        return self

    def invoke(self, **arguments: Any) -> dict[str, Any]:
        self.invoked = arguments
        if isinstance(self._reply, Exception):
            raise self._reply
        return {"Payload": io.BytesIO(json.dumps(self._reply).encode())}

    def put_lifecycle_event_hook_execution_status(self, **arguments: Any) -> None:
        self.reported = arguments


def run_hook(reply: Any, monkeypatch: pytest.MonkeyPatch) -> FakeClients:
    clients = FakeClients(reply)
    monkeypatch.setitem(sys.modules, "boto3", clients)  # type: ignore[arg-type]
    monkeypatch.setenv("NEW_VERSION", "arn:...:8")
    module: dict[str, Any] = {}
    exec(hook()["Code"]["ZipFile"], module)  # noqa: S102 - it is ours
    module["handler"]({"DeploymentId": "d-1", "LifecycleEventHookExecutionId": "e-1"}, None)
    return clients


def test_the_hook_runs_before_traffic_and_may_be_called_by_codedeploy() -> None:
    (alias,) = [
        r for r in translate(SERVICE)["Resources"].values() if r["Type"] == "AWS::Lambda::Alias"
    ]
    update = alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]
    assert update["BeforeAllowTrafficHook"] == {"Ref": "PreTrafficHook"}
    # The managed role AWSCodeDeployRoleForLambda may only call functions of such a name.
    assert hook()["FunctionName"] == "CodeDeployHook_clothes"
    (version,) = versions()
    assert hook()["Environment"]["Variables"] == {"NEW_VERSION": f"<{version}>"}


def test_the_hook_may_only_invoke_this_function_and_report() -> None:
    role = resources(service(), "IAM::Role")["PreTrafficHookRole"]
    allowed = {
        action: statement["Resource"]
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
        for action in as_list(statement["Action"])
    }
    group = "arn:aws:codedeploy:eu-central-1:123456789012:deploymentgroup"
    assert allowed == {
        "lambda:InvokeFunction": "<Function.Arn>:*",
        "codedeploy:PutLifecycleEventHookExecutionStatus": f"{group}:"
        "<ServerlessDeploymentApplication>/*",
        "logs:CreateLogStream": "<FunctionLogs.Arn>",
        "logs:PutLogEvents": "<FunctionLogs.Arn>",
    }


def test_a_version_that_classifies_is_let_through(
    monkeypatch: pytest.MonkeyPatch, tiny: Any
) -> None:
    """The hook's own image goes through the real handler, so the check is a real one."""
    sent = run_hook({"predictions": [{"score": 1.0}]}, monkeypatch).invoked
    monkeypatch.undo()
    event = json.loads(sent["Payload"])
    reply = app.handle(event, None, Service(Settings(), tiny), write=lambda _: None)
    clients = run_hook(reply, monkeypatch)
    assert sent["FunctionName"] == "arn:...:8"
    assert clients.reported == {
        "deploymentId": "d-1",
        "lifecycleEventHookExecutionId": "e-1",
        "status": "Succeeded",
    }


@pytest.mark.parametrize(
    "reply",
    [
        {"errorType": "Runtime.ImportModuleError"},
        {"status": 500, "code": "internal_error"},
        {"predictions": []},
        {"predictions": [{"score": 0.2}, {"score": 0.8}]},
        {"predictions": [{"score": 0.5}]},
        RuntimeError("throttled"),
    ],
    ids=lambda reply: str(reply)[:30],
)
def test_a_version_that_does_not_classify_is_stopped(
    monkeypatch: pytest.MonkeyPatch, reply: Any
) -> None:
    assert run_hook(reply, monkeypatch).reported["status"] == "Failed"


# --- dashboard and VPC ------------------------------------------------------------------------


def test_the_dashboard_is_off_by_default_and_shows_only_metrics_that_exist() -> None:
    assert not resources(service(), "CloudWatch::Dashboard")
    (dashboard,) = resources(service(Dashboard="on"), "CloudWatch::Dashboard").values()
    widgets = json.loads(dashboard["DashboardBody"])["widgets"]
    assert [widget["type"] for widget in widgets] == ["metric"] * 4 + ["log"] * 2
    metrics = [metric for w in widgets for metric in w["properties"].get("metrics", [])]
    own = {(m[1], m[2]) for m in metrics if m[0] == "ImageClassifier"}
    searched = [m[0]["expression"] for m in metrics if isinstance(m[0], dict)]
    written = {(name, *dimensions) for _, name, dimensions in written_metrics("1")}
    assert own <= written
    assert ("OwnTime", "service", "function_version") in written
    assert [text.partition(" service=")[0] for text in searched] == [
        'SEARCH(\'{ImageClassifier,service,function_version} MetricName="OwnTime"'
    ]


# --- the API --------------------------------------------------------------------------------


def routes(**parameters: str) -> dict[str, dict[str, Any]]:
    found = resources(service(**parameters), "ApiGatewayV2::Route").values()
    return {route["RouteKey"]: route for route in found}


def test_all_requests_go_to_the_function_s_alias() -> None:
    assert {route["Target"] for route in routes().values()} == {"integrations/<ApiIntegration>"}
    integration = resources(service(), "ApiGatewayV2::Integration")["ApiIntegration"]
    assert "functions/<Function.Arn>:live/invocations" in integration["IntegrationUri"]
    assert integration["PayloadFormatVersion"] == "2.0"
    permission = resources(service(), "Lambda::Permission")["ApiMayInvoke"]
    assert permission["FunctionName"] == "<FunctionAliaslive>"
    assert permission["SourceArn"].endswith(":<Api>/*")


@pytest.mark.parametrize(
    ("parameters", "kind"),
    [({}, "NONE"), ({"ApiAuth": "iam"}, "AWS_IAM"), (JWT, "JWT")],
    ids=["none", "iam", "jwt"],
)
def test_default_route_is_authorised_as_the_parameter_says(
    parameters: dict[str, str], kind: str
) -> None:
    route = routes(**parameters)["$default"]
    assert route["AuthorizationType"] == kind
    authorizers = resources(service(**parameters), "ApiGatewayV2::Authorizer")
    assert ("AuthorizerId" in route) == (kind == "JWT") == bool(authorizers)
    for authorizer in authorizers.values():
        assert authorizer["JwtConfiguration"] == {
            "Issuer": "https://issuer.example",
            "Audience": ["one", "two"],
        }


def test_jwt_without_an_issuer_is_refused_before_anything_is_created() -> None:
    """CloudFormation evaluates rules first. Preflight checks the same."""
    rule = translate(SERVICE)["Rules"]["JwtNeedsAnIssuer"]
    assert rule["RuleCondition"] == {"Fn::Equals": [{"Ref": "ApiAuth"}, "jwt"]}
    asserted = json.dumps([assertion["Assert"] for assertion in rule["Assertions"]])
    assert "JwtIssuer" in asserted and "JwtAudience" in asserted


def test_what_stays_open_is_what_the_function_serves_as_pages() -> None:
    open_routes = {key for key, r in routes(**JWT).items() if r["AuthorizationType"] == "NONE"}
    served = {f"GET {path}" for path, methods in app.ROUTES.items() if methods["GET"] is app.static}
    assert open_routes == served | {"OPTIONS /{proxy+}"}
    assert pages.serve("/", read_metadata(SHIPPED_MODEL)).status == 200


def test_parts_of_the_api_are_created_one_after_another() -> None:
    """API Gateway refuses concurrent changes (terraform-provider-aws issue 18018)."""
    template = load(SERVICE)["Resources"]
    parts = {
        name: json.dumps(resource, default=str)
        for name, resource in template.items()
        if resource["Type"].rpartition("::")[2] in ("Route", "Stage", "Authorizer", "Integration")
    }
    needs = {
        name: {other for other in parts if f'"{other}"' in text or "${" + other + "}" in text}
        for name, text in parts.items()
    }
    order = list(graphlib.TopologicalSorter(needs).static_order())
    for before, after in itertools.pairwise(order):
        assert before in needs[after], f"{before} and {after} may be created at once"


def test_stage_throttles_and_logs_without_query_strings() -> None:
    (stage,) = resources(service(), "ApiGatewayV2::Stage").values()
    assert stage["StageName"] == "$default"  # any other would stand in rawPath
    assert stage["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": "20",
        "ThrottlingBurstLimit": "40",
    }
    access = stage["AccessLogSettings"]
    assert access["DestinationArn"] == "<ApiLogs.Arn>"
    fields = json.loads(re.sub(r"\$context\.[A-Za-z.]+", "x", access["Format"]))
    assert {"requestId", "status", "latencyMs", "error"} <= set(fields)
    assert "query" not in access["Format"].lower()


def test_cross_origin_requests_are_for_the_listed_pages() -> None:
    (api,) = resources(
        service(CorsOrigins="https://a.example,https://b.example"), "ApiGatewayV2::Api"
    ).values()
    assert api["CorsConfiguration"]["AllowOrigins"] == ["https://a.example", "https://b.example"]
    assert "content-type" in api["CorsConfiguration"]["AllowHeaders"]


# --- outputs --------------------------------------------------------------------------------


def run_pasted(command: str, program: str, script: str, folder: Path, **environment: str) -> str:
    """Run an output in a real shell, with a program that prints what it was given."""
    fake = folder / program
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    ran = subprocess.run(
        ["sh", "-eu", "-c", command],
        cwd=REPOSITORY,
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


@pytest.mark.parametrize("parameters", [{}, {"ApiAuth": "iam"}, JWT], ids=["none", "iam", "jwt"])
def test_curl_can_be_pasted_into_a_shell(parameters: dict[str, str], tmp_path: Path) -> None:
    command = service(**parameters)["Outputs"]["Curl"]["Value"].replace("<Api>", "abc123")
    secrets = {"TOKEN": "t0k", "AWS_ACCESS_KEY_ID": "id", "AWS_SESSION_TOKEN": "session"}
    secrets["AWS_SECRET_ACCESS_KEY"] = "secret"

    printed = run_pasted(command, "curl", 'for word; do echo "$word"; done', tmp_path, **secrets)

    words = printed.splitlines()
    assert words[-1] == "https://abc123.execute-api.eu-central-1.amazonaws.com/predict"
    assert f"@examples/{example_image().name}" in words
    assert example_image().is_file()
    assert ("authorization: Bearer t0k" in words) == (parameters == JWT)
    assert ("--aws-sigv4" in words) == (parameters == {"ApiAuth": "iam"})


def test_invoke_command_carries_the_image_as_json(tmp_path: Path) -> None:
    command = service()["Outputs"]["Invoke"]["Value"].replace("<Function>", "f")
    script = 'while [ "$1" != --payload ]; do shift; done\nprintf %s "$2"'

    printed = run_pasted(command, "aws", script, tmp_path)

    assert len(json.loads(printed)["image"]) > 1000


# --- uploads --------------------------------------------------------------------------------


@functools.cache
def events(**parameters: str) -> dict[str, Any]:
    return deploy("deploy/events.yaml", ImageUri="image", **BUCKETS, **parameters)


def test_uploads_have_a_function_of_their_own_with_the_queue_s_handler() -> None:
    (properties,) = resources(events(), "Lambda::Function").values()
    assert properties["ImageConfig"] == {"Command": [QUEUE_HANDLER]}
    module, _, name = QUEUE_HANDLER.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    # The alarms that roll the HTTP function back are in another stack, of another function.
    assert "CodeDeploy" not in json.dumps(events())


@pytest.mark.parametrize("uri", ["", EVERYTHING_ON["ModelUri"]], ids=["image's own", "in S3"])
def test_uploads_are_classified_by_the_service_s_model(uri: str) -> None:
    template = events(ModelUri=uri, MinScore="0.3")
    (properties,) = resources(template, "Lambda::Function").values()
    variables = properties["Environment"]["Variables"]
    assert (variables["MODEL_URI"], variables["MIN_SCORE"]) == (uri, "0.3")
    readable = [s["Resource"] for s in statements(template) if s["Action"] == "s3:GetObject"]
    assert readable == ["arn:aws:s3:::photos/*", *(["arn:aws:s3:::models/*"] if uri else [])]


def test_the_rules_of_shared_parameters_are_those_of_the_service() -> None:
    for name in ("ModelUri", "MinScore", "Architecture", "AlarmEmail"):
        ours = load("deploy/events.yaml")["Parameters"][name]
        theirs = load(SERVICE)["Parameters"][name]
        for rule in ("AllowedPattern", "AllowedValues", "Default"):
            assert ours.get(rule) == theirs.get(rule), (name, rule)


def test_the_queue_sends_failed_messages_again_and_then_aside() -> None:
    (trigger,) = resources(events(), "Lambda::EventSourceMapping").values()
    assert trigger["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    # Lambda reports no single message of a call that crashed, so each has a call of its own.
    assert trigger["BatchSize"] == 1
    queues = resources(events(), "SQS::Queue")
    assert queues["Queue"]["RedrivePolicy"] == {
        "deadLetterTargetArn": "<DeadLetters.Arn>",
        "maxReceiveCount": 5,  # AWS advises at least 5
    }
    (properties,) = resources(events(), "Lambda::Function").values()
    # AWS: at least six times the function's timeout.
    assert queues["Queue"]["VisibilityTimeout"] >= 6 * properties["Timeout"]


def test_only_the_bucket_of_the_uploads_may_send_to_the_queue() -> None:
    (policy,) = resources(events(), "SQS::QueuePolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "123456789012"},
        "ArnEquals": {"aws:SourceArn": "arn:aws:s3:::photos"},
    }


def test_a_message_in_the_dead_letter_queue_mails() -> None:
    (alarm,) = resources(events(), "CloudWatch::Alarm").values()
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": "<DeadLetters.QueueName>"}]
    assert alarm["AlarmActions"] == ["<Topic>"]


# --- bulk -----------------------------------------------------------------------------------


@functools.cache
def machine() -> dict[str, Any]:
    (properties,) = resources(
        deploy(BULK, **BULK_PARAMETERS), "StepFunctions::StateMachine"
    ).values()
    definition: dict[str, Any] = json.loads(properties["DefinitionString"])
    return definition


def test_definition_fits_amazon_s_schema_of_the_states_language() -> None:
    file = importlib.resources.files(step_functions_schemas) / "statemachine.json"
    schema = json.loads(file.read_text())
    jsonschema.Draft7Validator(schema).validate(machine())
    broken = json.loads(json.dumps(machine()).replace('"Map"', '"Mop"'))
    assert list(jsonschema.Draft7Validator(schema).iter_errors(broken))


def machines() -> list[dict[str, Any]]:
    """Return the machine and those inside its Maps."""
    found, waiting = [], [machine()]
    while waiting:
        part = waiting.pop()
        found.append(part)
        waiting += [s["ItemProcessor"] for s in part["States"].values() if s["Type"] == "Map"]
    return found


def test_every_state_can_be_reached_and_comes_to_an_end() -> None:
    """What statelint checks, for the machine and for those inside its Maps."""
    for part in machines():
        reached: set[str] = set()
        following = [part["StartAt"]]
        while following:
            name = following.pop()
            if name in reached:
                continue
            reached.add(name)
            state = part["States"][name]
            branches = [*state.get("Catch", []), *state.get("Choices", [])]
            targets = [branch["Next"] for branch in branches]
            targets += as_list(state.get("Next", [])) + as_list(state.get("Default", []))
            ends = bool(state.get("End")) or state["Type"] in ("Succeed", "Fail")
            assert ends or targets, name
            following += targets
        assert reached == set(part["States"])
    names = [name for part in machines() for name in part["States"]]
    assert len(names) == len(set(names))


def test_numbers_are_numbers_and_the_batch_is_what_the_handler_reads() -> None:
    state = machine()["States"]["ClassifyAll"]
    assert (state["MaxConcurrency"], state["ToleratedFailurePercentage"]) == (100, 0)
    assert state["ItemBatcher"] == {
        "MaxItemsPerBatch": 40,
        "MaxInputBytesPerBatch": 200_000,  # below the 256 KiB that a state may carry
        "BatchInput": {"bucket": "photos"},
    }
    assert set(state["ItemSelector"]) == {"Key.$", "Size.$"}
    assert state["ItemReader"]["Parameters"] == {"Bucket": "photos", "Prefix.$": "$.prefix"}


def test_an_image_that_ends_the_function_does_not_take_its_neighbours_along() -> None:
    states = machine()["States"]["ClassifyAll"]["ItemProcessor"]["States"]
    throttled, poisoned = states["Classify"]["Catch"]
    # A single image would not help against these.
    assert {"RetryBatchError", "RefusedBatchError"} <= set(throttled["ErrorEquals"])
    assert (poisoned["ErrorEquals"], poisoned["Next"]) == (["States.ALL"], "OneByOne")
    one_by_one = states["OneByOne"]
    # The single event has the form of a batch, and read_bulk_event takes it.
    assert set(one_by_one["ItemSelector"]) == {"BatchInput.$", "Items.$"}
    single = one_by_one["ItemProcessor"]["States"]["ClassifyOne"]
    assert single["Catch"] == [
        {"ErrorEquals": ["States.ALL"], "ResultPath": "$.lost", "Next": "ImageLost"}
    ]
    (line,) = one_by_one["ItemProcessor"]["States"]["ImageLost"]["Parameters"]["results"]
    assert (line["key.$"], line["error"]["code"]) == ("$.Items[0].Key", "lost")


def test_a_run_that_fails_or_loses_batches_mails_once() -> None:
    states = machine()["States"]
    (choice,) = states["AnyLost"]["Choices"]
    assert (choice["Variable"], choice["Next"]) == ("$.batches.lost", "MailLost")
    assert states["CountLost"]["ResultSelector"] == {"lost.$": "$.ExecutionCounts.Failed"}
    template = deploy(BULK, **BULK_PARAMETERS, AlarmEmail="ops@example.com")
    (rule,) = resources(template, "Events::Rule").values()
    # A failed run never reaches MailLost, and a succeeded one matches no status here.
    assert rule["EventPattern"]["detail"]["status"] == ["FAILED", "TIMED_OUT", "ABORTED"]
    assert [target["Arn"] for target in rule["Targets"]] == ["<BulkTopic>"]
    (policy,) = resources(template, "SNS::TopicPolicy").values()
    (statement,) = policy["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert "Condition" not in statement  # which EventBridge could not meet
    (subscription,) = resources(template, "SNS::Subscription").values()
    assert subscription["Endpoint"] == "ops@example.com"


def test_results_are_lines_of_json_one_for_each_image() -> None:
    state = machine()["States"]["ClassifyAll"]
    assert state["ResultWriter"]["WriterConfig"] == {
        "OutputType": "JSONL",
        "Transformation": "FLATTEN",
    }
    task = state["ItemProcessor"]["States"]["Classify"]
    assert task["OutputPath"] == "$.Payload.results"


def test_retries_name_the_function_s_error_and_end_before_an_express_run_does() -> None:
    task = machine()["States"]["ClassifyAll"]["ItemProcessor"]["States"]["Classify"]
    throttled = task["Retry"][0]
    assert throttled["ErrorEquals"] == ["Lambda.TooManyRequestsException", "RetryBatchError"]
    from lambda_function.batches import bulk

    assert hasattr(bulk, "RetryBatchError") and bulk.ITEMS == "Items"
    retried = {name for retrier in task["Retry"] for name in retrier["ErrorEquals"]}
    assert not retried & {"RefusedBatchError", "States.ALL", "States.TaskFailed"}
    waits = [
        min(
            throttled["IntervalSeconds"] * throttled["BackoffRate"] ** i,
            throttled["MaxDelaySeconds"],
        )
        for i in range(throttled["MaxAttempts"])
    ]
    longest = load(SERVICE)["Parameters"]["TimeoutSeconds"]["MaxValue"]
    assert longest < task["TimeoutSeconds"] < 5 * 60
    runs = (throttled["MaxAttempts"] + 1) * int(function()["Timeout"])
    assert sum(waits) + runs < 5 * 60


def test_its_role_may_touch_these_two_buckets_this_function_and_itself() -> None:
    allowed = {
        resource
        for statement in statements(deploy(BULK, **BULK_PARAMETERS))
        for resource in as_list(statement["Resource"])
        if resource != "*"
    }
    states = "arn:aws:states:eu-central-1:123456789012"
    assert allowed == {
        "arn:aws:s3:::photos",
        "arn:aws:s3:::results/classified/*",
        BULK_PARAMETERS["Function"],
        f"{states}:stateMachine:clothes",
        f"{states}:execution:clothes*",
        f"{states}:mapRun:clothes/*",
        "<BulkTopic>",
    }


def test_start_command_s_input_is_the_one_that_the_machine_reads() -> None:
    start = deploy(BULK, **BULK_PARAMETERS)["Outputs"]["Start"]["Value"]
    (given,) = re.findall(r"--input '(.+)'", start)
    assert set(json.loads(given)) == {"prefix"}
