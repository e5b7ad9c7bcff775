"""The locks: complete, with hashes, without addresses, and their wheels fit Lambda's image."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lambda_function import REPOSITORY

LOCKS = sorted((REPOSITORY / "requirements").glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9._-]+)(\[[a-z0-9,_-]+\])?==([^\s;]+)")


def entries(lock: Path) -> list[str]:
    """Return a lock's requirements, each with its hashes, without comments."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
class TestEveryLock:
    def test_every_entry_is_pinned_and_hashed(self, lock: Path) -> None:
        assert entries(lock)
        for entry in entries(lock):
            assert PIN.match(entry), entry
            assert re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry

    def test_no_address_and_no_option_is_in_it(self, lock: Path) -> None:
        text = lock.read_text()
        assert not re.search(
            r"https?://|file:|git\+|@ |^-|--(extra-)?index-url|--find-links", text, re.MULTILINE
        )

    def test_it_holds_what_its_input_names(self, lock: Path) -> None:
        wanted = lock.with_suffix(".in").read_text().splitlines()
        names = {
            re.split(r"[\s<>=!;\[#]", line)[0].lower() for line in wanted if line[:1].isalpha()
        }
        locked = {PIN.match(entry)[1].lower() for entry in entries(lock)}  # type: ignore[index]
        assert names and names <= locked


def test_every_input_has_a_lock() -> None:
    inputs = {path.stem for path in (REPOSITORY / "requirements").glob("*.in")}
    assert inputs == {path.stem for path in LOCKS}


def test_what_is_deployed_is_what_is_tested() -> None:
    def pins(name: str) -> set[str]:
        found = entries(REPOSITORY / "requirements" / name)
        return {entry.split(" --hash")[0].strip() for entry in found}

    tested = pins("test.txt") | pins("serving.txt") | pins("s3.txt")
    names = [re.split("[=;]", pin)[0] for pin in tested if ";" not in pin]
    assert len(names) == len(set(names))  # one version of each


@pytest.mark.container  # needs the package index
@pytest.mark.parametrize(
    ("name", "python", "platform"),
    [
        # The image of Python 3.13 is Amazon Linux 2023, whose glibc is 2.34.
        ("serving", "3.13", "x86_64-manylinux_2_34"),
        ("serving", "3.13", "aarch64-manylinux_2_34"),
        ("s3", "3.13", "x86_64-manylinux_2_34"),
        ("s3", "3.13", "aarch64-manylinux_2_34"),
        # The image of Python 3.11 is Amazon Linux 2, whose glibc is 2.26. Not arm64: there
        # tflite-runtime needs glibc 2.34.
        ("tflite-runtime", "3.11", "x86_64-manylinux2014"),
    ],
)
def test_every_locked_package_has_a_wheel_for_the_lambda_image(
    name: str, python: str, platform: str
) -> None:
    checked = install_dry(f"requirements/{name}.txt", python, platform)

    assert checked.returncode == 0, checked.stderr


@pytest.mark.container
def test_a_lock_that_needs_a_newer_glibc_is_refused() -> None:
    refused = install_dry("requirements/peer-course.txt", "3.11", "x86_64-manylinux2014")

    assert refused.returncode == 1
    assert "pillow==13" in refused.stderr


def install_dry(lock: str, python: str, platform: str) -> subprocess.CompletedProcess[str]:
    """Ask uv whether a lock can be installed on a platform. Nothing is installed."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not uv:
        pytest.skip("uv is not installed")
    command = [uv, "pip", "install", "--dry-run", "--target", tempfile.mkdtemp()]
    command += ["--require-hashes"]
    command += ["--python-version", python, "--python-platform", platform]
    command += ["--only-binary", ":all:", "-r", lock]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
