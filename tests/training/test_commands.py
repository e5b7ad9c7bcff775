"""`python -m training COMMAND` imports the module of the chosen command and no other command's."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from lambda_function import REPOSITORY
from tests.support.processes import hear_interrupts, run_python
from training.commands import COMMANDS, main


def functions_of(module: str) -> set[str]:
    tree = ast.parse((REPOSITORY / (module.replace(".", "/") + ".py")).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_a_module_with_add_arguments_and_run(command: str) -> None:
    assert {"add_arguments", "run"} <= functions_of(COMMANDS[command].module)


def test_a_command_imports_no_other_command(tmp_path: Path) -> None:
    code = (
        "import json, sys; from training.commands import main\n"
        f"status = main(['card', {str(tmp_path / 'absent.json')!r}])\n"
        "print(json.dumps([status, sorted(sys.modules)]))"
    )
    done = run_python("-c", code, check=True)

    assert done.stdout.startswith("[2, ")
    assert "training.evaluation.model_card" in done.stdout
    others = {c.module for name, c in COMMANDS.items() if name != "card"}
    assert not [module for module in others if f'"{module}"' in done.stdout]


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--help"])

    assert exit_info.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"    {name}" in listed for name in COMMANDS)


@pytest.mark.parametrize("words", [[], ["bogus"], ["--size", "train"]])
def test_no_command_or_an_unknown_one_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(words)

    assert exit_info.value.code == 2
    assert "usage: python -m training" in capsys.readouterr().err


def test_a_missing_library_names_the_training_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "training.restore", raising=False)

    assert main(["restore", "1.0.0"]) == 2
    assert "`restore` needs keras" in capsys.readouterr().err


INTERRUPTED_IN_A_FINALISER = """
import runpy, signal, sys, time
from training.evaluation import model_card

class Finalised:
    def __del__(self):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)

def interrupted(_):
    Finalised()
    time.sleep(60)

model_card.run = interrupted
sys.argv = ["training", "card", "report.json"]
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""

INTERRUPTED_WHILE_IMPORTING = """
import runpy, sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "training.evaluation.model_card":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.argv = ["training", "card", "report.json"]
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("code", [INTERRUPTED_IN_A_FINALISER, INTERRUPTED_WHILE_IMPORTING])
def test_an_interrupt_is_heard_wherever_it_falls(code: str) -> None:
    words = ("-W", "ignore::RuntimeWarning", "-c", code)
    found = run_python(*words, timeout=50, preexec_fn=hear_interrupts)
    assert found.returncode == 130, found.stderr
    assert found.stderr == "interrupted; the same command uses what was finished\n"


INTERRUPTED_WITH_A_THREAD = """
import runpy, sys, threading, time
from training.evaluation import model_card

def interrupted(_):
    threading.Thread(target=time.sleep, args=(600,)).start()
    print("half a line", end="")
    raise KeyboardInterrupt

model_card.run = interrupted
sys.argv = ["training", "card", "report.json"]
runpy.run_module("training", run_name="__main__", alter_sys=True)
"""


def test_an_interrupt_does_not_wait_for_threads() -> None:
    """Keras's threads that prepare batches never end."""
    words = ("-W", "ignore::RuntimeWarning", "-c", INTERRUPTED_WITH_A_THREAD)
    done = run_python(*words, timeout=60)

    assert done.returncode == 130, done.stderr
    assert done.stdout == "half a line"
    assert done.stderr == "interrupted; the same command uses what was finished\n"
