"""The choice and the check of what ``make test-arm64`` executes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lambda_function import REPOSITORY
from tests.support.processes import run_python
from tools.arm64 import (
    LOCKS,
    PACKAGES,
    TESTS,
    ChecksumError,
    Package,
    UnavailableError,
    check,
    prepare,
    read_packages,
)


def test_every_package_is_pinned_by_version_and_sha256() -> None:
    packages = read_packages(PACKAGES.read_text())
    assert {package.architecture for package in packages} == {"amd64", "arm64"}
    assert [p.name for p in packages if p.architecture == "amd64"] == ["qemu-user"]
    assert all(len(bytes.fromhex(package.sha256)) == 32 for package in packages)
    assert read_packages("# x\na 1:2 arm64 ff\n") == [Package("a", "1:2", "arm64", "ff")]


def test_a_package_with_another_content_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.deb"
    file.write_bytes(b"content")
    check(file, hashlib.sha256(b"content").hexdigest())
    with pytest.raises(ChecksumError, match=r"a\.deb has SHA-256 .*Expected: 00"):
        check(file, "00")


def test_without_apt_the_tests_are_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError):
        prepare()
    done = run_python("-m", "tools.arm64", env={"PATH": "/nowhere"})
    assert done.returncode == 0
    assert done.stdout.startswith("skipped: ")


def test_the_named_tests_and_locks_exist() -> None:
    files = [*TESTS, *(f"requirements/{name}.txt" for name in LOCKS)]
    assert [name for name in files if not (REPOSITORY / name).is_file()] == []
