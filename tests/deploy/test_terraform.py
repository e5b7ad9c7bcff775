"""The Terraform example. `terraform validate` needs AWS's provider: TERRAFORM_PROVIDERS=folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = REPOSITORY / "deploy" / "terraform"
PROVIDERS = os.environ.get("TERRAFORM_PROVIDERS", "")

needs_terraform = pytest.mark.skipif(
    not shutil.which("terraform"), reason="Terraform is not installed"
)


def terraform(*arguments: str, cwd: Path = EXAMPLE) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "CHECKPOINT_DISABLE": "1"}
    return subprocess.run(
        ["terraform", *arguments], cwd=cwd, env=environment, capture_output=True, text=True
    )


@needs_terraform
def test_the_example_is_read_and_formatted() -> None:
    checked = terraform("fmt", "-check", "-diff")

    assert (checked.returncode, checked.stdout) == (0, "")


def test_the_url_may_be_called_by_both_permissions_and_nothing_else() -> None:
    """AWS asks for both of URLs made since October 2025. The provider adds the other one itself."""
    text = (EXAMPLE / "main.tf").read_text()
    (permission,) = re.findall(r'resource "aws_lambda_permission".*?\n}', text, re.DOTALL)
    assert re.search(r'action += "lambda:InvokeFunction"\n', permission)
    assert re.search(r"invoked_via_function_url += true", permission)
    assert 'version = "~> 6.29"' in text  # the first provider that knows this argument


@needs_terraform
@pytest.mark.skipif(not PROVIDERS, reason="TERRAFORM_PROVIDERS names no folder of providers")
def test_the_example_is_valid(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "main.tf", tmp_path)
    made = terraform("init", f"-plugin-dir={PROVIDERS}", cwd=tmp_path)
    assert made.returncode == 0, made.stderr

    checked = terraform("validate", cwd=tmp_path)

    assert checked.returncode == 0, checked.stdout + checked.stderr
