"""The stamp that decides whether a deployment publishes a new version of the function.

SAM publishes a version when the text of the function changes. It does not see parameter values
(https://github.com/aws/serverless-application-model/issues/3820). So a changed MemoryMb would
change the function and leave the alias on the old version. The stamp in the function's description
is a hash of everything that reaches the function: the text of its resource, and the values of the
parameters in it. The address of an alarm's mail is not among them, so it publishes nothing.

After a rollback the rejected version still exists. Lambda publishes no second version of the same
code and configuration, and CloudFormation fails with "A version for this Lambda function exists"
(https://github.com/aws/serverless-application-model/issues/1375, CDK issue 28252). So the parameter
DeploymentNonce gets a new value then. The stack keeps it, so the next deployment without a change
has the same stamp.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from deploy.findings import CheckFailed
from deploy.stack import DeployedStack

DESCRIPTION = re.compile(
    r'^( +Description: !Sub "Classifies images \$\{DeploymentNonce\})(")', re.MULTILINE
)
# Properties of the function or its alias that no version contains.
NOT_OF_A_VERSION = {
    "AutoPublishAlias",
    "AutoPublishAliasAllProperties",
    "DeploymentPreference",
    "ProvisionedConcurrencyConfig",
    "ReservedConcurrentExecutions",
}
NONCE = "DeploymentNonce"


def stamp(template: str, parameters: Mapping[str, str]) -> str:
    """Return a built template with the stamp in the function's description.

    Args:
        template: what `sam build` wrote.
        parameters: those that differ from the template's defaults.

    Raises:
        CheckFailed: the description is not there exactly once.
    """
    digest = hashlib.sha256(
        json.dumps(reaching_parts(yaml_parse(template), parameters), sort_keys=True).encode()
    ).hexdigest()[:12]
    stamped, count = DESCRIPTION.subn(rf"\g<1> [{digest}]\g<2>", _one_line(template))
    if count != 1:
        raise CheckFailed(f"The built template has {count} descriptions to stamp. One is expected.")
    return stamped


def reaching_parts(template: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of a template that reach the function.

    Args:
        template: parsed.
        parameters: those that differ from the template's defaults.

    Returns:
        ``text``: the properties of the function that a version contains.
        ``values``: the parameters that these properties and their conditions name.
    """
    properties = {
        name: value
        for name, value in template["Resources"]["Function"]["Properties"].items()
        if name not in NOT_OF_A_VERSION
    }
    conditions = template.get("Conditions", {})
    declared = template["Parameters"]
    values = {name: str(rule.get("Default", "")) for name, rule in declared.items()}
    values |= dict(parameters)
    named = {name for name in _references(properties, conditions) if name in declared}
    return {"text": properties, "values": {name: values[name] for name in sorted(named)}}


def nonce_for(deployed: DeployedStack | None) -> dict[str, str]:
    """Return a fresh nonce as a parameter, if the last update of the stack was rolled back."""
    rolled_back = deployed is not None and deployed.status == "UPDATE_ROLLBACK_COMPLETE"
    return {NONCE: secrets.token_hex(4)} if rolled_back else {}


def _references(node: Any, conditions: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that a part of a template refers to, conditions included."""
    if isinstance(node, list):
        for item in node:
            yield from _references(item, conditions)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key == "Ref":
                yield value
            elif key == "Fn::Sub":
                text = value if isinstance(value, str) else value[0]
                yield from re.findall(r"\$\{([A-Za-z0-9]+)\}", text)
                yield from _references(value if isinstance(value, list) else [], conditions)
            elif key == "Fn::If":
                yield from _references(conditions.get(value[0], {}), conditions)
                yield from _references(value[1:], conditions)
            else:
                yield from _references(value, conditions)


def _one_line(template: str) -> str:
    """Undo how `sam build` writes ``!Sub "..."``: as ``Fn::Sub`` on a line of its own."""
    return re.sub(
        r"^( +)Description:\n +Fn::Sub: (Classifies images \$\{DeploymentNonce\})$",
        r'\1Description: !Sub "\2"',
        template,
        flags=re.MULTILINE,
    )
