"""What a library adds to the function's start: `python -m benchmarks.imports --write`.

Whole processes are started, base and base plus library by turns, so that a change of the
machine's speed meets both. The base is what Lambda starts: the runtime client and the function
with everything it imports. Processor time is shown beside elapsed time: a busy machine disturbs
it less. A library is kept out when it adds 20 ms or more without a reason worth that.

Measured by default: the parts of Powertools for AWS Lambda, which this project does not install.
To repeat it: `pip install aws-lambda-powertools` into a copy of `.venv/test`.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

from benchmarks.measure import Summary, at_least_one, summarise, surroundings, write_result

BASE = "import awslambdaric.bootstrap, lambda_function.app"
LIBRARIES = {
    "logger and metrics": "aws_lambda_powertools.logging, aws_lambda_powertools.metrics",
    "resolver": "aws_lambda_powertools.event_handler",
    "all three": "aws_lambda_powertools.logging, aws_lambda_powertools.metrics, "
    "aws_lambda_powertools.event_handler",
}


def start_ms(code: str) -> tuple[float, float]:
    """Return a fresh interpreter's (elapsed, processor) milliseconds for a line of code."""
    before, start = _children_s(), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(f"{code!r} fails: {done.stderr.decode().strip().splitlines()[-1]}")
    return (time.perf_counter() - start) * 1e3, (_children_s() - before) * 1e3


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(libraries: dict[str, str], rounds: int) -> dict[str, dict[str, Summary]]:
    """Return, for "base" and each library, elapsed and processor milliseconds of a start."""
    code = {"base": BASE} | {name: f"{BASE}, {what}" for name, what in libraries.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in code}
    for _ in range(rounds):
        for name, line in code.items():
            taken[name].append(start_ms(line))
    return {
        name: {
            "elapsed_ms": summarise(elapsed for elapsed, _ in times),
            "processor_ms": summarise(used for _, used in times),
        }
        for name, times in taken.items()
    }


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports")
    parser.add_argument("--rounds", type=at_least_one, default=15)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/imports.json")
    parser.add_argument("modules", nargs="*", help="instead of Powertools")
    arguments = parser.parse_args()
    context = surroundings()
    libraries = {name: name for name in arguments.modules} or LIBRARIES
    found = measure(libraries, arguments.rounds)
    base = found["base"]
    for name, times in found.items():
        added = {kind: times[kind].median - base[kind].median for kind in times}
        print(
            f"{name:20} {times['elapsed_ms'].median:5.0f} ms elapsed ({added['elapsed_ms']:+4.0f})"
            f" {times['processor_ms'].median:5.0f} ms processor ({added['processor_ms']:+4.0f})"
        )
    if arguments.write:
        print(f"written: {write_result('imports', {**context, 'starts': found})}")


if __name__ == "__main__":
    main()
