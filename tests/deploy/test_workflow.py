"""The GitHub workflow runs what .ci/run runs, by targets that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lambda_function import REPOSITORY
from tests.support import makefile


def jobs() -> dict[str, Any]:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    found: dict[str, Any] = workflow["jobs"]
    return found


def commands() -> list[str]:
    return [step["run"] for job in jobs().values() for step in job["steps"] if "run" in step]


def targets(text: str) -> set[str]:
    return set(re.findall(r"\bmake ([a-z][a-z0-9-]+)", text))


def test_every_make_target_exists() -> None:
    used = targets("\n".join(commands()))
    assert used
    assert used <= makefile.targets()


def test_it_runs_everything_that_ci_run_runs() -> None:
    text = (REPOSITORY / ".ci/run").read_text()
    local = {t for some in re.findall(r"targets\+?=\((.*?)\)", text) for t in some.split()}
    assert {"test", "check", "test-training"} <= local <= makefile.targets()
    needs_private_data = {"score"}
    assert local - needs_private_data <= targets("\n".join(commands()))


def test_ci_run_refuses_an_option(tmp_path: Path) -> None:
    """An option of another script would otherwise start everything."""
    bash = shutil.which("bash")
    assert bash
    ended = subprocess.run(
        [bash, REPOSITORY / ".ci/run", "--help"],
        env={"PATH": str(tmp_path)},  # so that nothing runs if the argument is taken
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert "takes no options" in ended.stderr and "Received: --help" in ended.stderr


def test_the_image_is_scanned_its_sbom_kept_and_the_locks_audited() -> None:
    used = [step.get("uses", "") for step in jobs()["container"]["steps"]]
    assert any(action.startswith("aquasecurity/trivy-action@") for action in used)
    (scan,) = [step for step in jobs()["container"]["steps"] if "trivy" in step.get("uses", "")]
    assert (scan["with"]["image-ref"], scan["with"]["exit-code"]) == ("${{ env.IMAGE }}", "1")
    # An adopted model gives the image its own name, and Docker would fetch a stranger's image.
    (named,) = [command for command in commands() if "deploy.image.names" in command]
    assert named.startswith('echo "IMAGE=$(') and named.endswith('>> "$GITHUB_ENV"')
    assert any('"$IMAGE" /var/task/sbom.cdx.json' in command for command in commands())
    audited = " ".join(command for command in commands() if "pip-audit" in command)
    for lock in ("serving", "s3", "tflite-runtime"):
        assert f"-r requirements/{lock}.txt" in audited


def test_actions_of_strangers_are_pinned_to_a_commit() -> None:
    """A tag can be moved: in March 2026 most of trivy-action's were, to malicious code."""
    used = {step["uses"] for job in jobs().values() for step in job["steps"] if "uses" in step}
    strangers = {action for action in used if not action.startswith("actions/")}
    assert strangers
    assert all(re.fullmatch(r"[^@]+@[0-9a-f]{40}", action) for action in strangers), strangers


def test_every_job_ends_and_has_few_rights() -> None:
    workflow = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in jobs().values())


def test_dependabot_watches_locks_base_image_and_actions() -> None:
    config = yaml.safe_load((REPOSITORY / ".github/dependabot.yml").read_text())
    assert {(u["package-ecosystem"], u["directory"]) for u in config["updates"]} == {
        ("pip", "/requirements"),
        ("docker", "/"),
        ("github-actions", "/"),
    }
