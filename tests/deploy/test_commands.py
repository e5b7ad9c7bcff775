"""Each deploy command as its own process, in an environment like the one that make gives it."""

from __future__ import annotations

import importlib
import os
import re
import subprocess

import pytest

from lambda_function import REPOSITORY
from lambda_function.fetching.s3 import NO_CREDENTIALS
from tests.support.processes import run_python

COMMANDS = sorted(set(re.findall(r"-m (deploy\.[a-z.]+)", (REPOSITORY / "Makefile").read_text())))
# requirements/sam.txt has none of these.
NOT_INSTALLED = ("numpy", "PIL", "ai_edge_litert")
NOWHERE = {"AWS_MAX_ATTEMPTS": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
RUN = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({NOT_INSTALLED!r}))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    return run_python("-c", RUN, *words, env=env, stdin=subprocess.DEVNULL)


def test_the_commands_of_make_are_known() -> None:
    assert {"deploy.up", "deploy.preflight", "deploy.smoke", "deploy.destroy"} <= set(COMMANDS)


RUN_BY_HAND = [name for name in COMMANDS if name != "deploy.image.names"]


@pytest.mark.parametrize("name", RUN_BY_HAND)
def test_a_command_that_cannot_reach_aws_ends_with_a_sentence(name: str) -> None:
    done = command(name, "--stack", "s", **NOWHERE)

    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    assert said.strip() and "Traceback" not in said


@pytest.mark.parametrize("name", RUN_BY_HAND)
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("AWS_PROFILE", "typo", "There is no AWS profile 'typo'"),
        ("AWS_DEFAULT_REGION", "not a region", "not a region"),
        ("AWS_ACCESS_KEY_ID", None, f" {NO_CREDENTIALS}\n"),
    ],
)
def test_a_wrong_environment_ends_every_command_with_a_sentence(
    name: str, variable: str, value: str | None, said: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for known, nowhere in NOWHERE.items():
        monkeypatch.setenv(known, nowhere)
    if value is None:
        monkeypatch.delenv(variable)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    else:
        monkeypatch.setenv(variable, value)

    assert importlib.import_module(name).main(["--stack", "s"]) == 1
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted({*RUN_BY_HAND} - {"deploy.smoke", "deploy.destroy"}))
def test_words_that_are_no_parameters_are_a_sentence(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert importlib.import_module(name).main(["--stack", "s", "oops"]) == 1
    assert "Name=value" in capsys.readouterr().out
