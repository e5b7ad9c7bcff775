"""Ask for the name, the region and the parameters of a first deployment at the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from deploy.local_checks import broken_rule, with_defaults
from deploy.stack import Target

Ask = Callable[[str], str]
# The questions of a first deployment. The others are asked on request.
ESSENTIAL = ("ApiAuth", "JwtIssuer", "JwtAudience", "ReservedConcurrency", "AlarmEmail")
NEVER_ASKED = ("DeploymentNonce",)


def ask_target(target: Target, region: str | None, *, ask: Ask = input) -> Target:
    """Return the target with name and region as the user wants them.

    Args:
        target: of the command line. Its values are offered.
        region: of the AWS configuration.
        ask: ``input``, or a test's.
    """
    print("A first deployment. The return key takes the value in brackets.\n")
    stack = _answer("Name of the stack", target.stack, ask)
    chosen = _answer("Region", target.region or region or "", ask)
    return dataclasses.replace(target, stack=stack, region=chosen or None)


def ask_parameters(
    parameters: Mapping[str, str],
    template: Mapping[str, Any],
    *,
    named: Mapping[str, str],
    ask: Ask = input,
) -> dict[str, str]:
    """Return the parameters as the user wants them.

    Args:
        parameters: offered values, where they differ from the template's defaults.
        template: template.yaml, parsed.
        named: parameters of the command line or the stack's file. They are not asked.
        ask: ``input``, or a test's.
    """
    answers = dict(parameters)
    rest = [n for n in _in_order(template) if n not in ESSENTIAL and n not in named]
    for name in (n for n in ESSENTIAL if n not in named):
        if name.startswith("Jwt") and answers.get("ApiAuth") != "jwt":
            continue
        _ask_one(name, answers, template, ask)
    more = _answer(f"\nSee the other {len(rest)} parameters? y or n", "n", ask)
    if more.lower().startswith("y"):
        for name in rest:
            _ask_one(name, answers, template, ask)
    return answers


def _ask_one(name: str, answers: dict[str, str], template: Mapping[str, Any], ask: Ask) -> None:
    rule = template["Parameters"][name]
    default = with_defaults({}, template)[name]
    print(f"\n{name}: {rule['Description']}")
    if "AllowedValues" in rule:
        print(f"  one of {', '.join(str(value) for value in rule['AllowedValues'])}")
    while True:
        answer = _answer(f"  {name}", answers.get(name, default), ask)
        problem = broken_rule(rule, answer)
        if not problem:
            break
        print(f"  {name} {problem}. Received: {answer!r}.")
    if answer != default or name in answers:
        answers[name] = answer


def _in_order(template: Mapping[str, Any]) -> list[str]:
    groups = template["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return [n for group in groups for n in group["Parameters"] if n not in NEVER_ASKED]


def _answer(question: str, default: str, ask: Ask) -> str:
    return ask(f"{question} [{default}]: ").strip() or default
