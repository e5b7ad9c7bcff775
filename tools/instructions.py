"""How many arm64 instructions one prediction executes, counted by QEMU.

    python -m tools.instructions [MODEL ...] --qemu qemu-aarch64 --plugin libinsn.so

The plugin ``insn`` belongs to QEMU's source (tests/tcg/plugins). Debian's QEMU loads no plugins:
the command then says that the counts are missing. A count is no time, and alone it never decides
for an architecture.

Each model runs once and twice, as Neoverse N1 (``tools.arm64``). The difference is one prediction.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from pathlib import Path

from lambda_function import SHIPPED_MODEL
from tools import arm64

PROGRAM = """
import sys
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
for _ in range(int(sys.argv[2])):
    interpreter.invoke()
"""
_TOTAL = re.compile(r"total insns: (\d+)")


def main() -> None:
    """Count and print, or say why the counts are missing."""
    parser = argparse.ArgumentParser(prog="python -m tools.instructions", description=__doc__)
    parser.add_argument("models", nargs="*", type=Path, default=[SHIPPED_MODEL])
    parser.add_argument("--qemu", help="a build that loads plugins; default: Debian's")
    parser.add_argument("--plugin", type=Path, help="its libinsn.so")
    options = parser.parse_args()
    try:
        root, wheels = arm64.prepare()
    except arm64.UnavailableError as error:
        print(f"instruction counts: missing ({error})")
        return
    qemu, *rest = arm64.interpreter(root)
    command = [options.qemu or qemu, "-plugin", str(options.plugin), "-d", "plugin", *rest]
    for model in options.models:
        try:
            once, twice = (count(command, model, wheels, runs) for runs in (1, 2))
        except ValueError as error:
            print(f"{model.name}: missing ({error})")
        else:
            print(f"{model.name}: {(twice - once) / 1e9:.3f} G instructions a prediction")


def count(command: list[str], model: Path, wheels: Path, runs: int) -> int:
    """Return the instructions of a process that loads a model and runs it.

    Args:
        command: starts the arm64 Python under QEMU, with the plugin.
        model: TFLite file.
        wheels: folder of the aarch64 packages.
        runs: predictions.

    Raises:
        ValueError: there is no count in the output. The message is its last line.
    """
    done = subprocess.run(
        [*command, "-c", PROGRAM, str(model), str(runs)],
        env={**os.environ, "PYTHONPATH": str(wheels)},
        capture_output=True,
        text=True,
        check=False,
    )
    total = _TOTAL.search(done.stderr + done.stdout)
    if total is None:
        raise ValueError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return int(total[1])


if __name__ == "__main__":
    main()
