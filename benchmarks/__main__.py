"""`python -m benchmarks`: all measurements of the serving side, one after another.

Writes benchmarks/results/*.json and the README's table. Wants a quiet machine and about
half an hour; ``--quick`` runs everything once, in a few minutes, and writes nothing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

FULL = (
    ("compare",),
    ("overhead", "--write"),
    ("limit", "--write"),
    ("growth", "--write"),
    ("large_photos", "--write"),
    ("batch", "--write"),
    ("coldstart", "--write"),
    ("table", "--write"),
)
QUICK = (
    ("compare", "--quick"),
    ("overhead", "--requests", "100"),
    ("limit", "--repeats", "3"),
    ("growth", "--quick"),
    ("batch", "--rounds", "1"),
)


def main() -> None:
    """Run each measurement in a process of its own, so that none warms up another."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true")
    for name, *options in QUICK if parser.parse_args().quick else FULL:
        print(f"\n=== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        status = subprocess.run(command, check=False).returncode
        if status:
            sys.exit(status)


if __name__ == "__main__":
    main()
