"""The Makefile: what it passes on, what it refuses, and what it prints."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lambda_function import REPOSITORY
from tests.support import makefile

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")

ODD = 'it\'s "odd" & `id`; $HOME a  b.jpg'
# Prints the arguments and the model that a recipe passes to Python.
SPY = """#!{python}
import os, sys
print(*sys.argv[1:], os.environ.get("MODEL_URI", ""), sep="\\n")
"""


@pytest.fixture
def environments(tmp_path: Path) -> Path:
    """Return a folder of virtual environments whose Python prints its arguments."""
    for name in ("serving", "test", "training", "sam"):
        python = tmp_path / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(SPY.format(python=sys.executable))
        python.chmod(0o755)
        (tmp_path / name / ".ok").touch()
    return tmp_path


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--silent", *arguments],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def printed(environments: Path, *arguments: str, **environment: str) -> list[str]:
    ended = make(*arguments, f"VENVS={environments}", **environment)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@pytest.mark.parametrize(
    ("target", "variable", "option"),
    [
        ("predict", "IMAGE", "--"),
        ("predict", "URL", "--url"),
        ("train", "DATASET", "--dataset"),
        ("split", "GROUPS", "--groups"),
        ("model", "GROUPS", "--groups"),
        ("score", "GROUPS", "--groups"),
        ("train", "WEIGHTS", "--backbone-weights"),
        ("preflight", "STACK", "--stack"),
        ("convert", "OUTPUT", "--output"),
        ("adopt", "DATASET", "--dataset"),
        ("run", "PORT", "--port"),
        ("emulate", "PORT", "--port"),
    ],
)
def test_a_value_reaches_the_program_as_it_is(
    environments: Path, target: str, variable: str, option: str
) -> None:
    required = {"split": ["TO=out"], "adopt": ["MODEL=a.tflite"]}.get(target, [])
    lines = printed(environments, target, *required, f"{variable}={ODD}")

    assert lines[lines.index(option) + 1] == ODD


@pytest.mark.parametrize("target", ["predict", "run", "emulate"])
def test_model_names_the_model_to_serve(environments: Path, target: str) -> None:
    assert printed(environments, target, f"MODEL={ODD}")[-1] == ODD


@pytest.mark.parametrize("target", ["run", "emulate"])
def test_a_variable_of_the_system_does_not_count(environments: Path, target: str) -> None:
    lines = printed(environments, target, PORT="99", MODEL="other.tflite")

    assert lines[lines.index("--port") + 1] == "8080"
    assert lines[-1] == ""  # no model


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "examples/dress.jpg"], "There is no target examples/dress.jpg."),
        (["benchmrk"], "There is no target benchmrk."),
        (["predict", "IMGE=a.jpg"], "There is no variable IMGE."),
        (["predict", "SIZE=96"], "make predict does not read SIZE. It reads: EXPLAIN FORMAT IMAGE"),
        (["train", "TRAIN=--size 96"], "make train does not read TRAIN. It reads: ARGS DATASET"),
        (["data", "fetch", "DATASET=photos"], "make data fetch does not read DATASET."),
        (["image", "ARCH=arm"], "ARCH is x86_64 or arm64. Received: arm"),
        (["import", "LABELS=a,b"], "make import needs MODEL=..."),
        (["adopt"], "make adopt needs MODEL=..."),
        (["split", "DATASET=photos"], "make split needs TO=..."),
        (["image", "MODEL=no model"], "There is no model no model. MODEL= names a .tflite file"),
    ],
)
def test_what_the_makefile_does_not_know_or_lacks_is_refused(
    arguments: list[str], said: str
) -> None:
    ended = make(*arguments)

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert said in ended.stderr


@pytest.mark.parametrize("failing", ["-c", "-m"])  # the check of the version, the image's name
def test_an_image_is_not_built_without_a_name(tmp_path: Path, failing: str) -> None:
    for name, line in (
        ("docker", "echo built"),
        ("old", f'[ "$1" != {failing} ] || {{ echo too old >&2; exit 1; }}'),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)

    ended = make("image", f"PYTHON={tmp_path}/old", PATH=f"{tmp_path}:{os.environ['PATH']}")

    assert (ended.returncode, ended.stdout) == (2, "")
    assert "too old" in ended.stderr


@pytest.mark.parametrize("target", sorted(makefile.targets()))
def test_a_target_accepts_the_variables_of_its_recipe_and_no_others(
    environments: Path, target: str
) -> None:
    required = {"import": ["MODEL=m.tflite"], "adopt": ["MODEL=m.tflite"], "split": ["TO=folder"]}

    def dry_run(*given: str) -> subprocess.CompletedProcess[str]:
        needed = [f"VENVS={environments}", *required.get(target, [])]
        return make("--dry-run", target, *needed, *given)

    plain = dry_run().stdout
    read = {name.removesuffix("_FILE") for name in re.findall(r"\$\{?([A-Z_0-9]+)", plain)}
    known = {name: "arm64" if name == "ARCH" else "1" for name in makefile.words("VARIABLES")}
    accepted = {name for name in known if not dry_run(f"{name}={known[name]}").returncode}

    assert read & set(known) <= accepted
    for name in accepted - read:  # make itself puts these in
        assert dry_run(f"{name}={known[name]}").stdout != plain, name


def test_the_list_begins_with_what_a_newcomer_needs() -> None:
    lines = make().stdout.splitlines()

    assert lines[0] == "Start here"
    assert [line.split()[1] for line in lines[1:6]] == ["predict", "run", "test", "model", "deploy"]


def test_every_target_has_a_rule_and_is_in_the_list(tmp_path: Path) -> None:
    declared = makefile.targets()
    listed = set(re.findall(r"^  make (\S+)", make().stdout, re.MULTILINE))

    given = ("MODEL=model.tflite", "TO=out", f"VENVS={tmp_path}")
    assert make("--dry-run", *sorted(declared), *given).returncode == 0
    assert {name for name in declared if not name.startswith("test-")} == (
        listed - {"test-NAME"} | {"help"}
    )


@pytest.mark.parametrize(
    ("suite", "needed", "command"),
    [
        ("training", ["training"], "pytest -m training $(grep"),
        ("jax", ["jax"], "pytest -m training tests/training/test_train_jax.py"),
        ("browser", ["browser"], "pytest tests/browser"),
        ("container", ["test", "sam"], "tests.docker"),
        ("tflite-runtime", ["tflite-runtime"], "pytest -p no:cacheprovider"),
        ("arm64", ["test"], "tools.arm64"),
    ],
)
def test_a_suite_runs_in_the_first_of_its_environments(
    tmp_path: Path, suite: str, needed: list[str], command: str
) -> None:
    planned = make("--dry-run", f"test-{suite}", f"VENVS={tmp_path}", "ARGS=--last").stdout

    assert re.findall(rf"setting up {tmp_path}/(\S+)", planned) == needed
    last = planned.splitlines()[-1]
    assert f"{tmp_path}/{needed[0]}/bin/python -m {command}" in last
    assert last.endswith(" --last")
    assert last.startswith("KERAS_BACKEND=jax ") == (suite == "jax")


def test_an_environment_is_made_again_when_its_lock_changes(environments: Path) -> None:
    (environments / "test" / ".ok").unlink()

    planned = make("--dry-run", "test", f"VENVS={environments}", "PYTHON=python3.12").stdout

    assert f"python3.12 -m venv --clear {environments}/test" in planned
    installed = re.search(r"--require-hashes +(.*)", planned)
    assert installed and installed[1].split() == [
        *("-r", "requirements/serving.txt", "-r", "requirements/s3.txt"),
        *("-r", "requirements/test.txt"),
    ]
