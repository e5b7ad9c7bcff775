"""Where a cold start spends its time, and what one more library would add to it.

    python -m benchmarks startup --write
    python -m benchmarks startup json asyncio      what these modules add, instead of the default

Fresh processes are started by turns, with the instruction sets of Lambda, so a change of the
machine's speed meets all. Each does a little more than the one before it: the interpreter, the
runtime client, the function's imports, the model, the first inference. The difference is what the
step costs. Processor time is shown beside elapsed time: a busy machine disturbs it less.

A library is kept out when it adds 20 ms or more without a reason worth that. ``python -m benchmarks
compare`` has the ratio of the whole cold start to the course handler's.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness import (
    Summary,
    at_least_one,
    command_line,
    origin,
    summarise,
    write_result,
)
from benchmarks.masking import lambda_lane
from lambda_function import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.masking import Lane

CLIENT = "import awslambdaric.bootstrap"
IMPORTS = f"{CLIENT}; import lambda_function.app"
MODEL = (
    f"{IMPORTS}; from lambda_function import SHIPPED_MODEL as m; "
    "from lambda_function.classifier import Classifier; c = Classifier(m)"
)
STEPS = {
    "interpreter": "pass",
    "runtime client": CLIENT,
    "imports": IMPORTS,
    "model and first inference": MODEL,  # the loader runs one inference
    "second inference": f"{MODEL}; import numpy as n; s = c.metadata.input; "
    "c.predict(n.zeros((1, s.height, s.width, 3), n.float32))",
}


def main(arguments: list[str]) -> None:
    """Measure, print and keep the result."""
    parser = command_line("startup", __doc__)
    parser.add_argument("--rounds", type=at_least_one, default=15)
    parser.add_argument("--write", action="store_true", help="benchmarks/results/startup.json")
    parser.add_argument("modules", nargs="*", help="libraries, instead of the steps")
    options = parser.parse_args(arguments)
    if options.write and options.modules:
        parser.error("--write keeps the steps, not libraries")
    lane = lambda_lane()
    record = origin({lane.name: lane})
    libraries = {name: f"{IMPORTS}; import {name}" for name in options.modules}
    starts = measure(
        {"imports": IMPORTS, **libraries} if libraries else STEPS, lane, options.rounds
    )
    before: dict[str, Summary] | None = None
    for name, times in starts.items():
        shown = [f"{kind.removesuffix('_ms')} {_added(times, before, kind)}" for kind in times]
        print(f"{name:28}{', '.join(shown)}")
        before = starts["imports"] if libraries else times
    if options.write:
        write_result("startup", {**record, "starts": starts})


def measure(programs: Mapping[str, str], lane: Lane, rounds: int) -> dict[str, dict[str, Summary]]:
    """Return the elapsed and processor milliseconds of a start, for each program.

    Args:
        programs: lines of Python by name.
        lane: instruction sets that they see.
        rounds: starts of each, after one that fills the file cache.
    """
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for _ in range(rounds + 1):
        for name, code in programs.items():
            taken[name].append(start_ms(code, lane))
    return {
        name: {
            "elapsed_ms": summarise(elapsed for elapsed, _ in times[1:]),
            "processor_ms": summarise(used for _, used in times[1:]),
        }
        for name, times in taken.items()
    }


def start_ms(code: str, lane: Lane) -> tuple[float, float]:
    """Return a fresh interpreter's (elapsed, processor) milliseconds for a line of code."""
    python = lane.python(Path(sys.prefix))
    before_s, start = _children_s(), time.perf_counter()
    done = subprocess.run(
        [python, "-c", code],
        cwd=REPOSITORY,
        env={"PATH": "/usr/bin:/bin", **lane.environment},
        stderr=subprocess.PIPE,
        check=False,
    )
    elapsed_ms = (time.perf_counter() - start) * 1e3
    if done.returncode:
        sys.exit(f"{code!r} fails: {done.stderr.decode().strip().splitlines()[-1]}")
    return elapsed_ms, (_children_s() - before_s) * 1e3


def _added(times: dict[str, Summary], before: dict[str, Summary] | None, kind: str) -> str:
    added = f" ({times[kind].median - before[kind].median:+.0f})" if before else ""
    return f"{times[kind].median:.0f} ms{added}"


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
