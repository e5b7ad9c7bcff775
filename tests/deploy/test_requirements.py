"""The locks: complete, with hashes, without addresses, and their wheels fit Lambda's image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lambda_function import REPOSITORY
from tools.wheels import lines_for, platforms

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


def test_a_package_without_a_hash_would_be_noticed(tmp_path: Path) -> None:
    lock = tmp_path / "bad.txt"
    lock.write_text("numpy==2.5.5\n")
    with pytest.raises(AssertionError):
        TestEveryLock().test_every_entry_is_pinned_and_hashed(lock)


@pytest.mark.container  # asks the package index, which the other default tests do not
@pytest.mark.parametrize(
    ("name", "python", "architecture"),
    [
        ("serving", "3.13", "x86_64"),
        ("serving", "3.13", "arm64"),
        ("s3", "3.13", "x86_64"),
        ("s3", "3.13", "arm64"),
        # Not arm64: tflite-runtime's wheel for it asks for glibc 2.34, the 3.11 image has 2.26.
        ("tflite-runtime", "3.11", "x86_64"),
    ],
)
def test_there_is_a_wheel_of_everything_for_lambda_s_image(
    name: str, python: str, architecture: str
) -> None:
    """Python 3.13 is on glibc 2.34 (Amazon Linux 2023), 3.11 on 2.26 (Amazon Linux 2)."""
    checked = wheels(f"requirements/{name}.txt", architecture, python)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.container
def test_a_lock_for_a_newer_glibc_than_the_image_s_would_be_noticed() -> None:
    refused = wheels("requirements/peer-course.txt", "x86_64", "3.11")
    assert refused.returncode == 1
    assert "pillow==13" in refused.stdout


def wheels(lock: str, architecture: str, python: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools.wheels", lock, architecture, "--python", python]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)


def test_markers_are_judged_for_the_image_and_not_for_this_machine() -> None:
    lock = 'a==1 ; python_version < "3.12" \\\n    --hash=sha256:0\nb==2 \\\n    --hash=sha256:1\n'
    assert lines_for(lock, "aarch64", "3.11") == ["a==1 --hash=sha256:0", "b==2 --hash=sha256:1"]
    assert lines_for(lock, "aarch64", "3.13") == ["b==2 --hash=sha256:1"]


def test_platforms_end_at_the_image_s_glibc() -> None:
    assert platforms("x86_64", "3.13")[0] == "manylinux_2_34_x86_64"
    assert platforms("aarch64", "3.11")[0] == "manylinux_2_26_aarch64"
