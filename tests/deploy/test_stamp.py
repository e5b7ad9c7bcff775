"""Which changes publish a new version of the function, judged by SAM's own translator."""

from __future__ import annotations

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from deploy.findings import CheckFailed
from deploy.stack import TEMPLATE, DeployedStack
from deploy.stamp import NONCE, nonce_for, reaching_parts, stamp
from tests.support.template import PSEUDO

TEXT = TEMPLATE.read_text()
# How `sam build` writes the description.
BUILT = TEXT.replace(
    'Description: !Sub "Classifies images ${DeploymentNonce}" # `make deploy` adds a stamp',
    "Description:\n        Fn::Sub: Classifies images ${DeploymentNonce}",
)


def published(text: str = TEXT, **parameters: str) -> str:
    """Return the logical id of the version that a stamped template publishes."""
    template = yaml_parse(stamp(text, parameters))
    values = {k: str(p["Default"]) for k, p in template["Parameters"].items()}
    session = boto3.Session(region_name="eu-central-1")
    made = Translator({}, Parser(), boto_session=session).translate(
        template, {**PSEUDO, **values, **parameters}
    )
    (name,) = [n for n, r in made["Resources"].items() if r["Type"] == "AWS::Lambda::Version"]
    return str(name)


@pytest.fixture(scope="module")
def unchanged() -> str:
    return published()


def test_an_unchanged_deployment_publishes_nothing(unchanged: str) -> None:
    assert published() == unchanged


@pytest.mark.parametrize(
    "changed",
    [
        {"MemoryMb": "3008"},
        {"MinScore": "0.5"},
        {"ImageBuckets": "photos"},
        {"Architecture": "arm64"},
        {"VpcSubnetIds": "subnet-1"},
        {NONCE: "0123abcd"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_parameter_that_reaches_the_function_publishes_a_version(
    unchanged: str, changed: dict[str, str]
) -> None:
    assert published(**changed) != unchanged


@pytest.mark.parametrize(
    "changed",
    [
        {"AlarmEmail": "me@example.com"},
        {"AlarmLatencyMs": "2000"},
        {"DeploymentStyle": "AllAtOnce"},
        {"RollbackAlarms": "off"},
        {"ReservedConcurrency": "9"},
        {"ProvisionedConcurrency": "1"},
        {"ThrottleRate": "9"},
        {"Dashboard": "on"},
        {"LogRetentionDays": "7"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_another_parameter_publishes_nothing(unchanged: str, changed: dict[str, str]) -> None:
    assert published(**changed) == unchanged


def test_changed_text_of_the_function_publishes_a_version(unchanged: str) -> None:
    changed = TEXT.replace("LogFormat: Text", "LogFormat: JSON")

    assert published(changed) != unchanged


def test_the_template_that_sam_writes_is_stamped_too() -> None:
    assert BUILT != TEXT
    stamped = yaml_parse(stamp(BUILT, {}))["Resources"]["Function"]["Properties"]["Description"]

    assert (
        stamped == yaml_parse(stamp(TEXT, {}))["Resources"]["Function"]["Properties"]["Description"]
    )
    assert stamped["Fn::Sub"].startswith("Classifies images ${DeploymentNonce} [")


def test_a_template_without_the_description_is_refused() -> None:
    with pytest.raises(CheckFailed, match="0 descriptions"):
        stamp(TEXT.replace("Classifies images $", "Sorts images $"), {})


# --- after a rollback ---------------------------------------------------------------------------


def stack(status: str, **parameters: str) -> DeployedStack:
    return DeployedStack("s", status, parameters, {})


def test_after_a_rollback_the_same_deployment_publishes_another_version(unchanged: str) -> None:
    """Else Lambda keeps the rejected version, and CloudFormation says that it exists already."""
    fresh = nonce_for(stack("UPDATE_ROLLBACK_COMPLETE"))

    assert published(**fresh) != unchanged
    assert nonce_for(stack("UPDATE_ROLLBACK_COMPLETE")) != fresh


def test_the_nonce_stays_so_the_next_unchanged_deployment_publishes_nothing() -> None:
    fresh = nonce_for(stack("UPDATE_ROLLBACK_COMPLETE"))

    assert nonce_for(stack("UPDATE_COMPLETE", **fresh)) == {}
    assert published(**fresh) == published(**fresh)


def test_a_new_stack_needs_no_nonce() -> None:
    assert nonce_for(None) == {}


def test_a_parameter_that_only_decides_a_condition_reaches_the_function() -> None:
    template = {
        "Parameters": {"Style": {"Default": "plain"}, "Other": {"Default": "1"}},
        "Conditions": {"IsFast": {"Fn::Equals": [{"Ref": "Style"}, "fast"]}},
        "Resources": {
            "Function": {"Properties": {"MemorySize": {"Fn::If": ["IsFast", 3538, 1769]}}}
        },
    }

    assert reaching_parts(template, {"Style": "fast"})["values"] == {"Style": "fast"}
