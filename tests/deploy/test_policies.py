"""The policy of the deployer, the trust policy for GitHub, and the workflow that uses both."""

from __future__ import annotations

import fnmatch
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from deploy.image.names import default_name
from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.metadata import read_metadata
from tests.deploy.test_denied import COMMANDS, calls_of
from tests.deploy.test_template import EVERYTHING_ON, as_list
from tests.support.template import deploy, load, translate

if TYPE_CHECKING:
    from pathlib import Path

SERVICE, OPTIONS = (
    json.loads((REPOSITORY / "deploy" / name).read_text())["Statement"]
    for name in ("iam-policy.json", "iam-policy-options.json")
)
POLICY = [*SERVICE, *OPTIONS]
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html (without whitespace)
MAX_MANAGED_POLICY = 6144
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
    "Quotas": "the account's settings have no resource",
    "QueueTriggers": "a trigger's id is not known before",
    "NetworkOfTheFunction": "EC2 defines no resource for Describe actions",
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


def actions(policy: list[Any] = POLICY) -> set[str]:
    return {action for statement in policy for action in as_list(statement["Action"])}


# What our own commands call, as boto3 spells it -> the action that IAM asks for.
CALLED = {
    "describe_execution": "states:DescribeExecution",
    "describe_stack_resources": "cloudformation:DescribeStackResources",
    "describe_stacks": "cloudformation:DescribeStacks",
    "get_account_settings": "lambda:GetAccountSettings",
    "get_alias": "lambda:GetAlias",
    "get_bucket_notification_configuration": "s3:GetBucketNotification",
    "get_function": "lambda:GetFunction",
    "get_lifecycle_policy": "ecr:GetLifecyclePolicy",
    "get_object": "s3:GetObject",
    "invoke": "lambda:InvokeFunction",
    "list_map_runs": "states:ListMapRuns",
    "put_bucket_notification_configuration": "s3:PutBucketNotification",
    "put_lifecycle_policy": "ecr:PutLifecyclePolicy",
    "put_object": "s3:PutObject",
    "redrive_execution": "states:RedriveExecution",
}


def test_the_deployer_may_do_what_our_own_commands_call(tmp_path: Path) -> None:
    called = {call for name in COMMANDS for call in calls_of(name, tmp_path)}
    assert called - {"get_caller_identity"} <= set(CALLED)  # which needs no permission
    sources = "".join(path.read_text() for path in (REPOSITORY / "deploy").rglob("*.py"))
    assert [call for call in CALLED if f".{call}(" not in sources] == []
    assert set(CALLED.values()) <= actions()


# What `sam deploy` and `sam delete` call in CloudFormation and ECR: samcli/lib 1.170.0, deploy,
# delete, package and bootstrap. The change sets are listed for a stack that was never created.
CALLED_BY_SAM = {
    *("CreateChangeSet", "CreateStack", "DeleteStack", "DescribeChangeSet", "DescribeStackEvents"),
    *("DescribeStacks", "ExecuteChangeSet", "GetTemplate", "GetTemplateSummary"),
    *("ListChangeSets", "UpdateStack"),
}


def test_the_deployer_may_do_what_sam_calls() -> None:
    assert {f"cloudformation:{call}" for call in CALLED_BY_SAM} <= actions(SERVICE)
    assert {"ecr:BatchDeleteImage", "ecr:DeleteRepository"} <= actions(SERVICE)


def test_the_deployer_may_do_what_cloudformation_reads_back() -> None:
    """A refusal ends CreateHandler.java of a subscription, although the subscription exists.

    https://github.com/aws-cloudformation/aws-cloudformation-resource-providers-sns, and -events.
    """
    assert {"sns:GetSubscriptionAttributes", "sns:GetTopicAttributes"} <= actions(SERVICE)
    assert {"events:DescribeRule", "events:ListTargetsByRule"} <= actions(OPTIONS)


def test_the_first_domain_of_an_account_can_be_made() -> None:
    assert "iam:CreateServiceLinkedRole" in actions(OPTIONS)


@pytest.mark.parametrize("name", ["iam-policy.json", "iam-policy-options.json"])
def test_each_policy_fits_a_managed_policy(name: str) -> None:
    text = (REPOSITORY / "deploy" / name).read_text()
    assert len(re.sub(r"\s", "", text)) <= MAX_MANAGED_POLICY


def test_the_first_policy_is_enough_for_a_service_without_options() -> None:
    for resource in deploy("template.yaml")["Resources"].values():
        assert CREATING[resource["Type"].removeprefix("AWS::")] in actions(SERVICE)


def test_no_action_stands_in_both_policies_for_the_same_resource() -> None:
    pairs = [
        (action, resource)
        for statement in POLICY
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    ]
    twice = {pair for pair in pairs if pairs.count(pair) > 1}
    assert twice == {("iam:PassRole", "arn:aws:iam::*:role/clothing*")}  # to other services


# What SAM and CloudFormation call the parts of a stack "my-screws-v2".
PARTS = (
    "arn:aws:cloudformation:eu-central-1:1:stack/my-screws-v2-events/0123",
    "arn:aws:cloudformation:eu-central-1:1:stack/my-screws-v2-01234567-CompanionStack/0123",
    "arn:aws:ecr:eu-central-1:1:repository/myscrewsv201234567/function01234567repo",
    "arn:aws:lambda:eu-central-1:1:function:my-screws-v2-Function-0123",
    "arn:aws:lambda:eu-central-1:1:function:CodeDeployHook_my-screws-v2",
    "arn:aws:iam::1:role/my-screws-v2-FunctionRole-0123",
    "arn:aws:logs:eu-central-1:1:log-group:/aws/lambda/my-screws-v2",
    "arn:aws:cloudwatch:eu-central-1:1:alarm:my-screws-v2-latency-v7",
    "arn:aws:sns:eu-central-1:1:my-screws-v2-AlarmTopic-0123",
    "arn:aws:sqs:eu-central-1:1:my-screws-v2-events-Queue-0123",
    "arn:aws:states:eu-central-1:1:stateMachine:my-screws-v2-bulk",
    "arn:aws:codedeploy:eu-central-1:1:application:my-screws-v2-ServerlessDeploymentApplication-0",
)


@pytest.mark.parametrize("arn", PARTS)
def test_the_first_word_of_another_stack_s_name_fits_the_policies_to_it(arn: str) -> None:
    """docs/deploy-reference.md says to replace "clothing" by that word."""
    patterns = [
        resource.replace("clothing", "my")
        for statement in POLICY
        for resource in as_list(statement["Resource"])
        if "clothing" in resource
    ]
    assert any(fnmatch.fnmatchcase(arn, pattern) for pattern in patterns)


@pytest.mark.parametrize("name", [default_name(), f"{default_name()}-dev"])
def test_the_default_names_begin_as_the_policies_say(name: str) -> None:
    if read_metadata(SHIPPED_MODEL).name != "clothing-xception":
        pytest.skip("the shipped model is another one, so its policies are another's")
    assert name.startswith("clothing")


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_deployer_may_create_every_resource_of_a_template(name: str) -> None:
    for kind in types_of(name):
        assert CREATING[kind] in actions(), kind


def test_the_deployer_may_use_no_service_that_no_template_needs() -> None:
    needed = {PREFIXES[kind.partition("::")[0]] for name in TEMPLATES for kind in types_of(name)}
    # SAM, the smoke test, and Lambda's look at the subnets of a function in a VPC
    tools = {"cloudformation", "s3", "ecr", "execute-api", "ec2"}
    assert {action.partition(":")[0] for action in actions()} == needed | tools


def test_no_action_and_no_resource_is_open_without_a_reason() -> None:
    assert not [action for action in actions() if "*" in action]
    for statement in POLICY:
        assert ("*" in as_list(statement["Resource"])) == (statement["Sid"] in UNSCOPED)


def test_roles_are_limited_to_ours_and_to_the_services_that_take_them() -> None:
    for statement in POLICY:
        if statement["Action"] == "iam:CreateServiceLinkedRole":
            # The first domain of an account makes it (serverless-domain-manager issue 112).
            (service,) = statement["Condition"]["StringEquals"].values()
            assert (
                service == "ops.apigateway.amazonaws.com"
                and f"/{service}/" in statement["Resource"]
            )
        elif any(action.startswith("iam:") for action in as_list(statement["Action"])):
            assert statement["Resource"] == "arn:aws:iam::*:role/clothing*"
    passing = [s for s in POLICY if s["Action"] == "iam:PassRole"]
    roles = [
        r["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["Service"]
        for r in deploy("template.yaml")["Resources"].values()
        if r["Type"] == "AWS::IAM::Role"
    ]
    named = {service for role in roles for service in as_list(role)} | {"states.amazonaws.com"}
    allowed = [s["Condition"]["StringEquals"]["iam:PassedToService"] for s in passing]
    assert {service for services in allowed for service in as_list(services)} == named


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
