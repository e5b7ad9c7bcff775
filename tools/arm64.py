"""Runs the tests of the deployed code on arm64: ``make test-arm64``.

QEMU executes an arm64 Python with the aarch64 wheels of the locks, as Lambda's Graviton2 (Neoverse
N1, with the dot product instruction). It shows that decoding, preprocessing, the classifier, the
metadata and the shipped model's predictions are right there. It says nothing about times.

QEMU 10 and Python come from Debian trixie, through apt-get and without root. Every package has its
version and SHA-256 in requirements/arm64.debs. Debian removes a version when it updates it. The
archive snapshot.debian.org is asked then. Where no QEMU can be had, the reason is printed and the
tests are skipped. A wrong SHA-256 is an error.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from lambda_function import REPOSITORY

PACKAGES = REPOSITORY / "requirements" / "arm64.debs"
LOCKS = ("serving", "test")
TEST_PACKAGES = ("pytest", "pytest-timeout")
TESTS = tuple(
    f"tests/serving/{name}.py"
    for name in (
        "test_classifier",
        "test_golden",
        "images/test_decode",
        "images/test_preprocess",
    )
)
MARKED = "not training and not emulator and not data and not slow"
CACHE = REPOSITORY / ".cache" / "arm64"
# The packages are checked by SHA-256, so the archives need no signature.
ARCHIVES = (
    "deb [trusted=yes] http://deb.debian.org/debian trixie main",
    "deb [trusted=yes check-valid-until=no] "
    "http://snapshot.debian.org/archive/debian/20261120T000000Z trixie main",
)
PROCESSOR = "neoverse-n1"
PYTHON = "3.13"  # as Lambda's base image
PLATFORM = "aarch64-manylinux_2_34"  # glibc of Lambda's base image
TIMEOUT_S = 480


class UnavailableError(RuntimeError):
    """QEMU or a package cannot be had here. The message says why."""


class ChecksumError(RuntimeError):
    """A file is not the expected one."""


@dataclasses.dataclass(frozen=True)
class Package:
    """A Debian package.

    Attributes:
        name: of the package.
        version: exactly.
        architecture: amd64 for QEMU, arm64 for what it executes.
        sha256: of the file, hexadecimal.
    """

    name: str
    version: str
    architecture: str
    sha256: str


def main(arguments: list[str]) -> int:
    """Run the tests and return their exit status, 0 where they are skipped.

    Args:
        arguments: for pytest.
    """
    try:
        root, wheels = prepare()
    except UnavailableError as error:
        print(f"skipped: {error}")
        return 0
    except ChecksumError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    chosen = arguments or [*TESTS, "-q", "-m", MARKED]
    command = [*interpreter(root), "-m", "pytest", "-p", "no:cacheprovider", *chosen]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{wheels}{os.pathsep}{REPOSITORY}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    started_s = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, env=environment, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        print(f"error: the tests took more than {TIMEOUT_S} s", file=sys.stderr)
        return 1
    print(f"arm64 ({PROCESSOR}): {time.monotonic() - started_s:.0f} s")
    return done.returncode


def interpreter(root: Path) -> list[str]:
    """Return the command that starts the arm64 Python."""
    qemu = str(root / "usr" / "bin" / "qemu-aarch64")
    return [qemu, "-cpu", PROCESSOR, "-L", str(root), f"{root}/usr/bin/python{PYTHON}"]


def prepare() -> tuple[Path, Path]:
    """Fetch and unpack everything unless that is done.

    Returns:
        The folder of Debian's files and the folder of the wheels' files.

    Raises:
        UnavailableError: a program or a package is missing.
        ChecksumError: a package is not the expected one.
    """
    if platform.machine() != "x86_64":
        raise UnavailableError(f"this machine is {platform.machine()}: `make test` runs the tests")
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing:
        raise UnavailableError(f"{' and '.join(missing)} are needed, as on Debian and Ubuntu")
    locks = [REPOSITORY / "requirements" / f"{name}.txt" for name in LOCKS]
    state = "\n".join(sha256_of(file) for file in (PACKAGES, *locks, Path(__file__)))
    stamp = CACHE / "state.txt"
    root, wheels = CACHE / "root", CACHE / "wheels"
    if not (stamp.is_file() and stamp.read_text() == state):
        shutil.rmtree(CACHE, ignore_errors=True)
        CACHE.mkdir(parents=True)
        unpack_packages(read_packages(PACKAGES.read_text()), root)
        unpack_wheels(wheels)
        stamp.write_text(state)
    return root, wheels


def read_packages(text: str) -> list[Package]:
    """Return the packages of a list: name, version, architecture, SHA-256 on each line."""
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return [Package(*fields) for fields in lines]


def unpack_packages(packages: list[Package], root: Path) -> None:
    """Download Debian packages, check them, and unpack them into one folder.

    Raises:
        UnavailableError: no archive has a package in its version.
        ChecksumError: a package is not the expected one.
    """
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "lib").symlink_to("usr/lib")  # as on an installed Debian
    for architecture in sorted({package.architecture for package in packages}):
        wanted = [package for package in packages if package.architecture == architecture]
        for file, package in _download(wanted, architecture):
            check(file, package.sha256)
            subprocess.run(["dpkg", "-x", str(file), str(root)], check=True)


def check(file: Path, sha256: str) -> None:
    """Compare a file with the expected SHA-256.

    Raises:
        ChecksumError: they differ.
    """
    actual = sha256_of(file)
    if actual != sha256:
        raise ChecksumError(f"{file.name} has SHA-256 {actual}. Expected: {sha256}")


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def unpack_wheels(folder: Path) -> None:
    """Install the aarch64 wheels of the serving lock, and pytest as the test lock has it.

    Raises:
        UnavailableError: a wheel cannot be downloaded.
    """
    serving, test = (str(REPOSITORY / "requirements" / f"{name}.txt") for name in LOCKS)
    install = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet"]
    install += ["--target", str(folder), "--only-binary", ":all:"]
    install += ["--python-platform", PLATFORM, "--python-version", PYTHON]
    _run_or_skip([*install, "--require-hashes", "--no-deps", "--requirement", serving])
    _run_or_skip([*install, *TEST_PACKAGES, "--constraint", test])  # its hashes hold too


def _download(wanted: list[Package], architecture: str) -> list[tuple[Path, Package]]:
    """Download packages of one architecture with apt-get, from the first archive that has them."""
    reason = ""
    for number, archive in enumerate(ARCHIVES):
        folder = CACHE / f"apt-{architecture}-{number}"
        (folder / "lists" / "partial").mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(f"{archive}\n")
        apt = ["apt-get", "-qq"]
        for option in (
            f"Dir::Etc::sourcelist={folder}/sources.list",
            "Dir::Etc::sourceparts=-",
            f"Dir::State::lists={folder}/lists",
            f"Dir::State::status={folder}/status",
            f"Dir::Cache={folder}/cache",
            f"APT::Architecture={architecture}",
            f"APT::Architectures={architecture}",
            "APT::Sandbox::User=root",
        ):
            apt += ["-o", option]
        try:
            _run_or_skip([*apt, "update"], folder)
            names = [f"{package.name}={package.version}" for package in wanted]
            _run_or_skip([*apt, "download", *names], folder)
        except UnavailableError as error:
            reason = str(error)
            continue
        return [(next(folder.glob(f"{package.name}_*.deb")), package) for package in wanted]
    raise UnavailableError(reason)


def _run_or_skip(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UnavailableError(f"{command[0]} failed: {last}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
