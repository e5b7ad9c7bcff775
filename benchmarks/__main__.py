"""Run one benchmark: ``python -m benchmarks NAME``.

``python -m benchmarks all`` runs the timed ones, one after another, and writes
benchmarks/results/ and README's table. It needs a quiet machine and about an hour.
``python -m benchmarks all --quick`` runs everything once, in a few minutes, and writes nothing.
"""

from __future__ import annotations

import importlib
import subprocess
import sys

from benchmarks.baselines import BaselineError
from benchmarks.masking import MaskingError
from converter.errors import ConverterError
from lambda_function.classifier import ArtifactError
from lambda_function.metadata import MetadataError
from tools.emulator import EmulatorError
from training.errors import TrainingError

EXPECTED = (
    ArtifactError,
    BaselineError,
    ConverterError,
    EmulatorError,
    FileNotFoundError,
    IsADirectoryError,
    MaskingError,
    MetadataError,
    TrainingError,
)
# Name -> (module, what it answers).
COMMANDS = {
    "compare": ("compare", "this function beside the usual handlers, in one interleaved run"),
    "startup": ("startup", "where a cold start spends its time, what a library adds to it"),
    "scaling": ("scaling", "time and memory against image size, batch, threads"),
    "micro": ("micro", "time around inference; a batch from slow image servers"),
    "pareto": ("pareto", "every recipe of trained models: accuracy, time, memory"),
    "accuracy": ("accuracy", "each handler on the test split, through its own decoding"),
    "no-garment": ("no_garment.study", "what the model says of images without a garment"),
    "image-size": ("image_size", "what the container image adds to its base"),
    "own-data": ("own_data", "what a team's own images give, with default settings"),
    "models": ("baselines.build", "write the models that the baselines load"),
    "report": ("report.pages", "write README's table and benchmarks/results/README.md"),
}
FULL = (
    ("compare", "--write"),
    ("micro", "--write"),
    ("scaling", "--write"),
    ("startup", "--write"),
    ("report", "--write"),
)
QUICK = (
    ("compare", "--quick"),
    ("micro", "--quick"),
    ("scaling", "--quick"),
    ("startup", "--rounds", "2"),
    ("report",),
)


def main(arguments: list[str]) -> int:
    """Import the named benchmark's module, and no other, and run it."""
    name, *rest = arguments or ["--help"]
    if name in ("--help", "-h"):
        print(usage())
        return 0
    if name == "all" and rest in ([], ["--quick"]):
        return run_all(QUICK if rest else FULL)
    if name not in COMMANDS:
        print(f"unknown benchmark: {' '.join(arguments)}\n\n{usage()}", file=sys.stderr)
        return 2
    try:
        importlib.import_module(f"benchmarks.{COMMANDS[name][0]}").main(rest)
    except ModuleNotFoundError as error:
        print(
            f"error: `{name}` needs {error.name}, which is not installed here: run it in the "
            "environment of benchmarks (make .venv/benchmarks/.ok)",
            file=sys.stderr,
        )
        return 1
    except EXPECTED as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def run_all(series: tuple[tuple[str, ...], ...]) -> int:
    """Run each benchmark in a process of its own, so that none warms up another."""
    for words in series:
        print(f"\n=== {' '.join(words)}", flush=True)
        status = subprocess.run([sys.executable, "-m", "benchmarks", *words], check=False)
        if status.returncode:
            return status.returncode
    return 0


def usage() -> str:
    """Return the list of commands."""
    lines = [f"  {name:<12}{answers}" for name, (_, answers) in COMMANDS.items()]
    return "\n".join([(__doc__ or "").strip(), "", *lines])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
