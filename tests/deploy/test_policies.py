"""The policy of the deployer, the trust policy for GitHub, and the workflow that uses both."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from lambda_function import REPOSITORY
from tests.deploy.test_template import EVERYTHING_ON, as_list
from tests.support.template import deploy, load, translate

POLICY = json.loads((REPOSITORY / "deploy/iam-policy.json").read_text())["Statement"]
TRUST = json.loads((REPOSITORY / "deploy/github-trust-policy.json").read_text())["Statement"]
WORKFLOW = yaml.safe_load((REPOSITORY / ".github/workflows/deploy.yml").read_text())
TEMPLATES = ("template.yaml", "deploy/bulk.yaml", "deploy/domain.yaml", "deploy/events.yaml")
# CloudFormation's name of a service -> the prefix of its actions.
PREFIXES = {
    "ApiGatewayV2": "apigateway",
    "CloudWatch": "cloudwatch",
    "CodeDeploy": "codedeploy",
    "Events": "events",
    "IAM": "iam",
    "Lambda": "lambda",
    "Logs": "logs",
    "Route53": "route53",
    "SNS": "sns",
    "SQS": "sqs",
    "StepFunctions": "states",
}
CREATING = {  # what creating a resource needs at least
    "Lambda::Function": "lambda:CreateFunction",
    "Lambda::Version": "lambda:PublishVersion",
    "Lambda::Alias": "lambda:CreateAlias",
    "Lambda::Permission": "lambda:AddPermission",
    "Lambda::EventSourceMapping": "lambda:CreateEventSourceMapping",
    "IAM::Role": "iam:CreateRole",
    "Logs::LogGroup": "logs:CreateLogGroup",
    "CloudWatch::Alarm": "cloudwatch:PutMetricAlarm",
    "CloudWatch::Dashboard": "cloudwatch:PutDashboard",
    "SNS::Topic": "sns:CreateTopic",
    "SNS::Subscription": "sns:Subscribe",
    "SNS::TopicPolicy": "sns:SetTopicAttributes",
    "SQS::Queue": "sqs:CreateQueue",
    "SQS::QueuePolicy": "sqs:SetQueueAttributes",
    "CodeDeploy::Application": "codedeploy:CreateApplication",
    "CodeDeploy::DeploymentGroup": "codedeploy:CreateDeploymentGroup",
    "StepFunctions::StateMachine": "states:CreateStateMachine",
    "Events::Rule": "events:PutRule",
    "Route53::RecordSet": "route53:ChangeResourceRecordSets",
    **dict.fromkeys(
        ("ApiGatewayV2::Api", "ApiGatewayV2::Route", "ApiGatewayV2::Integration",
         "ApiGatewayV2::Authorizer", "ApiGatewayV2::Stage", "ApiGatewayV2::DomainName",
         "ApiGatewayV2::ApiMapping"),
        "apigateway:POST",
    ),
}  # fmt: skip
# Statements for every resource, each with its reason.
UNSCOPED = {
    "TemplateSummaryOfANewStack": "the stack does not exist yet",
    "LoginToEcr": "ECR defines no resource for it",
    "QueueTriggersAndQuotas": "a trigger's id is not known before, and quotas have no resource",
    "AccessLogDelivery": "CloudWatch Logs: vended logs need Resource *",
    "AlarmsAreListedAsAWhole": "CloudWatch defines no narrower resource for it",
}


def types_of(name: str) -> set[str]:
    required = {
        key: "arn:aws:lambda:eu-central-1:123456789012:function:f:live"
        if key == "Function"
        else "x"
        for key, rule in load(name)["Parameters"].items()
        if "Default" not in rule
    }
    parameters = EVERYTHING_ON if name == "template.yaml" else required
    return {
        r["Type"].removeprefix("AWS::") for r in translate(name, **parameters)["Resources"].values()
    }


def actions() -> set[str]:
    return {action for statement in POLICY for action in as_list(statement["Action"])}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_deployer_may_create_every_resource_of_a_template(name: str) -> None:
    for kind in types_of(name):
        assert CREATING[kind] in actions(), kind


def test_the_deployer_may_use_no_service_that_no_template_needs() -> None:
    needed = {PREFIXES[kind.partition("::")[0]] for name in TEMPLATES for kind in types_of(name)}
    tools = {"cloudformation", "s3", "ecr", "execute-api"}  # SAM, and the smoke test
    assert {action.partition(":")[0] for action in actions()} == needed | tools


def test_no_action_and_no_resource_is_open_without_a_reason() -> None:
    assert not [action for action in actions() if "*" in action]
    for statement in POLICY:
        assert ("*" in as_list(statement["Resource"])) == (statement["Sid"] in UNSCOPED)


def test_roles_are_limited_to_ours_and_to_the_services_that_take_them() -> None:
    for statement in POLICY:
        if any(action.startswith("iam:") for action in as_list(statement["Action"])):
            assert statement["Resource"] == "arn:aws:iam::*:role/clothing-*"
    (passing,) = [s for s in POLICY if s["Action"] == "iam:PassRole"]
    roles = [
        r["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
        for r in deploy("template.yaml")["Resources"].values()
        if r["Type"] == "AWS::IAM::Role"
    ]
    named = {service for role in roles for service in as_list(role)} | {"states.amazonaws.com"}
    assert set(passing["Condition"]["StringEquals"]["iam:PassedToService"]) == named


def test_only_this_repository_s_protected_environment_may_take_the_role() -> None:
    (statement,) = TRUST
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Condition"] == {  # exact, without a wildcard
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:OWNER/NAME:environment:prod",
        }
    }


def test_the_workflow_runs_by_hand_only() -> None:
    assert set(WORKFLOW[True]) == {"workflow_dispatch"}  # YAML reads the key "on" as true


def test_only_the_job_that_deploys_gets_a_token() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    jobs = WORKFLOW["jobs"]
    allowed = [name for name, job in jobs.items() if "id-token" in job.get("permissions", {})]
    assert allowed == ["deploy"]
    subject: Any = TRUST[0]["Condition"]["StringEquals"]["token.actions.githubusercontent.com:sub"]
    assert subject.endswith(f":environment:{jobs['deploy']['environment']}")


def test_every_action_of_the_workflow_is_pinned_to_a_commit() -> None:
    used = [
        step["uses"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert used
    assert all(re.fullmatch(r"[^@]+@[0-9a-f]{40}", action) for action in used)
