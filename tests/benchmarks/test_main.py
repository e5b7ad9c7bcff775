"""``python -m benchmarks``: one entry point, which loads only the chosen benchmark."""

from __future__ import annotations

import importlib.util

import pytest

from benchmarks.__main__ import COMMANDS, FULL, QUICK, main
from tests.support.paths import TESTS
from tests.support.processes import run_python

LOADED = """
import sys
from benchmarks.__main__ import main
try:
    main([sys.argv[1], "--help"])
except SystemExit:
    pass
names = {name for name in sys.modules if name.startswith("benchmarks.")}
print("loaded", *sorted(names & set(sys.argv[2:])))
"""


@pytest.mark.parametrize("name", ["compare", "micro", "no-garment", "report"])
def test_a_command_imports_no_other_commands_module(name):
    modules = {f"benchmarks.{module}" for module, _ in COMMANDS.values()}
    done = run_python("-c", LOADED, name, *modules, check=True)
    assert f"usage: python -m benchmarks {name}" in done.stdout
    assert done.stdout.splitlines()[-1] == f"loaded benchmarks.{COMMANDS[name][0]}"


def test_every_command_has_a_module():
    for module, _ in COMMANDS.values():
        assert importlib.util.find_spec(f"benchmarks.{module}")


def test_the_series_name_known_commands():
    assert {words[0] for words in (*FULL, *QUICK)} <= COMMANDS.keys()
    assert not [words for words in QUICK if "--write" in words]


@pytest.mark.parametrize("arguments", [["peers"], ["all", "--fast"]])
def test_an_unknown_command_prints_the_list(arguments, capsys):
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert f"unknown benchmark: {' '.join(arguments)}" in shown
    assert "compare" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["own-data", "--dataset", "nowhere"], "no data set at nowhere."),
        (["no-garment", str(TESTS), "--archives", "nowhere"], "[Errno 21] Is a directory"),
        (
            ["no-garment", __file__, "--archives", "nowhere"],
            f"{__file__}: the file holds no labels",
        ),
    ],
)
def test_an_expected_error_is_one_line(arguments, message, capsys):
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith(f"error: {message}")


@pytest.mark.skipif(
    importlib.util.find_spec("keras") is not None, reason="everything is installed here"
)
def test_a_missing_environment_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "any.keras"]) == 1
    assert "`models` needs keras, which is not installed here" in capsys.readouterr().err
