"""What AWS makes of a template: SAM's own translator, then CloudFormation's functions, offline.

The translator is AWS's. The functions are resolved here, as far as the project's templates use
them. What only AWS can know (an ARN, an id) becomes a readable token such as ``<Api>`` or
``<FunctionRole.Arn>``. A function that is not known here is an error, never skipped.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import boto3
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

from deploy.stack import load_template
from lambda_function import REPOSITORY

PSEUDO = {
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
    "AWS::StackName": "clothes",
    "AWS::URLSuffix": "amazonaws.com",
}
_NO_VALUE = object()


def load(name: str) -> dict[str, Any]:
    """Return a template of the repository as it is written."""
    return copy.deepcopy(load_template(REPOSITORY / name))


def translate(name: str, **parameters: str) -> dict[str, Any]:
    """Return the CloudFormation template that SAM's translator makes for these parameters."""
    template = load(name)
    values = _values(template, parameters)
    session = boto3.Session(region_name=PSEUDO["AWS::Region"])
    translator = Translator({}, Parser(), boto_session=session)
    translated: dict[str, Any] = translator.translate(template, {**PSEUDO, **values})
    return translated


def deploy(name: str, **parameters: str) -> dict[str, Any]:
    """Return the translated template as it would be created: conditions and functions resolved.

    Resources and outputs whose condition is false are left out.
    """
    template = translate(name, **parameters)
    return Resolver(template, _values(template, parameters)).resolved()


def _values(template: dict[str, Any], parameters: dict[str, str]) -> dict[str, Any]:
    declared = template.get("Parameters", {})
    unknown = set(parameters) - set(declared)
    if unknown:
        raise KeyError(f"no such parameter: {sorted(unknown)}")
    defaults = {key: str(p["Default"]) for key, p in declared.items() if "Default" in p}
    return {**defaults, **parameters}


class Resolver:
    """Resolves CloudFormation's functions in one template."""

    def __init__(self, template: dict[str, Any], values: dict[str, str]) -> None:
        self._template = template
        self._values = values
        self._conditions = template.get("Conditions", {})

    def resolved(self) -> dict[str, Any]:
        """Return resources and outputs."""
        return {
            section: {
                key: {part: self.value(v) for part, v in item.items() if part != "Condition"}
                for key, item in self._template.get(section, {}).items()
                if "Condition" not in item or self.condition(item["Condition"])
            }
            for section in ("Resources", "Outputs")
        }

    def condition(self, name: str) -> bool:
        """Return whether a named condition holds."""
        result = self.value(self._conditions[name])
        assert isinstance(result, bool)
        return result

    def value(self, node: Any) -> Any:
        """Return a node with everything in it resolved."""
        if isinstance(node, list):
            return [v for v in (self.value(item) for item in node) if v is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            (key,) = node
            if key in ("Ref", "Condition") or key.startswith("Fn::"):
                return self._function(key, node[key])
        pairs = ((key, self.value(item)) for key, item in node.items())
        return {key: item for key, item in pairs if item is not _NO_VALUE}

    def _function(self, name: str, argument: Any) -> Any:
        if name == "Ref":
            return self._ref(argument)
        if name == "Condition":
            return self.condition(argument) if isinstance(argument, str) else argument
        if name == "Fn::If":
            return self.value(argument[1 if self.condition(argument[0]) else 2])
        if name == "Fn::GetAtt":
            parts = argument if isinstance(argument, list) else argument.split(".")
            return f"<{'.'.join(parts)}>"
        if name == "Fn::Sub":
            return self._sub(argument)
        arguments = self.value(argument)
        if name == "Fn::Equals":
            return str(arguments[0]) == str(arguments[1])
        if name == "Fn::Not":
            return not arguments[0]
        if name == "Fn::Join":
            return arguments[0].join(arguments[1])
        if name == "Fn::Split":
            return arguments[1].split(arguments[0])
        if name == "Fn::Select":
            return arguments[1][int(arguments[0])]
        raise NotImplementedError(name)

    def _ref(self, name: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in PSEUDO:
            return PSEUDO[name]
        if name not in self._values:
            return f"<{name}>"
        value = self._values[name]
        kind = self._template["Parameters"][name]["Type"]
        return value.split(",") if kind == "CommaDelimitedList" else value

    def _sub(self, argument: Any) -> str:
        text, extra = argument if isinstance(argument, list) else (argument, {})

        def replace(match: re.Match[str]) -> str:
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            found = self.value(extra[name]) if name in extra else None
            if found is None:
                found = f"<{name}>" if "." in name else self._ref(name)
            return str(found)

        return re.sub(r"\$\{([^}]+)\}", replace, text)
