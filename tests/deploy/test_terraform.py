"""The Terraform example. `terraform validate` needs AWS's provider: TERRAFORM_PROVIDERS=folder."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = REPOSITORY / "deploy" / "terraform"
PROVIDERS = os.environ.get("TERRAFORM_PROVIDERS", "")

pytestmark = pytest.mark.skipif(not shutil.which("terraform"), reason="Terraform is not installed")


def terraform(*arguments: str, cwd: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
    return subprocess.run(
        ["terraform", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


def test_the_example_is_read_and_formatted() -> None:
    checked = terraform("fmt", "-check", "-diff")

    assert (checked.returncode, checked.stdout) == (0, "")


@pytest.mark.skipif(not PROVIDERS, reason="TERRAFORM_PROVIDERS names no folder of providers")
def test_the_example_is_valid(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "main.tf", tmp_path)
    made = terraform("init", f"-plugin-dir={PROVIDERS}", cwd=tmp_path)
    assert made.returncode == 0, made.stderr

    checked = terraform("validate", cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
