"""Proves that a lock installs on AWS's image: `python -m tools.wheels LOCK arm64`.

Asks pip to download, for CPython 3.13 on Amazon Linux 2023 (glibc 2.34), a wheel with a locked
hash for every line; nothing is installed. Works on any machine, for both of Lambda's processors.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

PYTHON = "3.13"
GLIBC_MINOR = 34  # of Amazon Linux 2023, which AWS's images for Python 3.12 and later are made of
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
OLDEST_MINOR = {"x86_64": 5, "aarch64": 17}  # manylinux's oldest glibc of each


def platforms(machine: str) -> list[str]:
    """Return pip's names of the platforms whose wheels run there, newest first."""
    minors = range(GLIBC_MINOR, OLDEST_MINOR[machine] - 1, -1)
    return [f"manylinux_2_{minor}_{machine}" for minor in minors] + [f"manylinux2014_{machine}"]


def lines_for(lock: str, machine: str) -> list[str]:
    """Return the lines of a lock that hold there, without their markers.

    pip would judge the markers by the machine and Python that it runs on itself.
    """
    environment = {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "os_name": "posix",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
    kept = [line for line in lock.splitlines() if not line.lstrip().startswith("#")]
    found = []
    for line in "\n".join(kept).replace("\\\n", " ").splitlines():
        text, *hashes = line.split(" --hash=")
        if not text.strip():
            continue
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            found.append(" --hash=".join([str(requirement), *(h.strip() for h in hashes)]))
    return found


def fits(lock: Path, architecture: str) -> str:
    """Return what pip has against it; ``""`` if every line has a wheel."""
    machine = MACHINES[architecture]
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("\n".join(lines_for(lock.read_text(), machine)) + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--requirement", str(wanted)]
        command += ["--dest", scratch, "--implementation", "cp", "--python-version", PYTHON]
        command += ["--abi", "cp313", "--abi", "abi3", "--abi", "none"]
        for platform in platforms(machine):
            command += ["--platform", platform]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Check one lock for one processor; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description=__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("architecture", choices=MACHINES)
    options = parser.parse_args(arguments)
    problem = fits(options.lock, options.architecture)
    print(problem or f"{options.lock}: wheels for Lambda, python{PYTHON}, {options.architecture}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
