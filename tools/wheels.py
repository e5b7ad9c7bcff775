"""Proves that a lock installs on AWS's image: `python -m tools.wheels LOCK arm64`.

Asks pip to download, for CPython 3.13 on Amazon Linux 2023 (glibc 2.34), a wheel with a locked
hash for every line; nothing is installed. Works on any machine, for both of Lambda's processors.
`--python 3.11` is the other image, Amazon Linux 2 (glibc 2.26), of the tflite-runtime lock.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

# glibc of AWS's images: 3.12 and later are made of Amazon Linux 2023, the earlier ones of 2.
# https://docs.aws.amazon.com/lambda/latest/dg/python-image.html
GLIBC_MINOR = {"3.13": 34, "3.11": 26}
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
OLDEST_MINOR = {"x86_64": 5, "aarch64": 17}  # manylinux's oldest glibc of each


def platforms(machine: str, python: str) -> list[str]:
    """Return pip's names of the platforms whose wheels run there, newest first."""
    minors = range(GLIBC_MINOR[python], OLDEST_MINOR[machine] - 1, -1)
    return [f"manylinux_2_{minor}_{machine}" for minor in minors] + [f"manylinux2014_{machine}"]


def lines_for(lock: str, machine: str, python: str) -> list[str]:
    """Return the lines of a lock that hold there, without their markers.

    pip would judge the markers by the machine and Python that it runs on itself.
    """
    environment = {
        "implementation_name": "cpython",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "os_name": "posix",
        "python_full_version": f"{python}.0",
        "python_version": python,
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


def fits(lock: Path, architecture: str, python: str) -> str:
    """Return what pip has against it; ``""`` if every line has a wheel."""
    machine = MACHINES[architecture]
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("\n".join(lines_for(lock.read_text(), machine, python)) + "\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--require-hashes", "--only-binary=:all:", "--requirement", str(wanted)]
        command += ["--dest", scratch, "--implementation", "cp", "--python-version", python]
        command += ["--abi", f"cp{python.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
        for platform in platforms(machine, python):
            command += ["--platform", platform]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr or done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Check one lock for one processor; see the module."""
    parser = argparse.ArgumentParser(prog="python -m tools.wheels", description=__doc__)
    parser.add_argument("lock", type=Path)
    parser.add_argument("architecture", choices=MACHINES)
    parser.add_argument("--python", choices=GLIBC_MINOR, default="3.13")
    options = parser.parse_args(arguments)
    python, architecture = options.python, options.architecture
    problem = fits(options.lock, architecture, python)
    print(problem or f"{options.lock}: wheels for Lambda, python{python}, {architecture}")
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
