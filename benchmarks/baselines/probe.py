"""One model in one runtime in one process: how fast, how large. Prints one line of JSON.

    python benchmarks/baselines/probe.py ai-edge-litert model.tflite --threads 1 --seconds 4

It is run by path: it needs only NumPy and the runtime, in any of the virtual environments. A
process measures one model, so that the memory is that model's alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP_RUNS = 2
MIN_RUNS, MAX_RUNS = 5, 60


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtime", choices=("ai-edge-litert", "tflite-runtime"))
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True, help="at most, beyond 5 runs")
    options = parser.parse_args()
    before_mb = _status_mb("VmRSS")
    started = time.perf_counter()
    try:
        run = _load(options.runtime, options.model, options.threads)
        loaded_s = time.perf_counter() - started
        times_s = _time(run, options.seconds)
    except Exception as error:  # each runtime raises its own classes
        text = str(error).strip()
        print(json.dumps({"error": text.partition("\n")[0] or type(error).__name__}))
        return
    measured = {
        "load_s": loaded_s,
        "median_s": statistics.median(times_s),
        "fastest_s": min(times_s),
        "runs": len(times_s),
        "resident_mb": _status_mb("VmRSS"),
        "peak_mb": _status_mb("VmHWM"),
        "resident_before_mb": before_mb,
    }
    print(json.dumps(measured))


def _time(run: Callable[[], object], seconds: float) -> list[float]:
    for _ in range(WARM_UP_RUNS):
        run()
    times_s: list[float] = []
    end = time.perf_counter() + seconds
    while len(times_s) < MIN_RUNS or (time.perf_counter() < end and len(times_s) < MAX_RUNS):
        started = time.perf_counter()
        run()
        times_s.append(time.perf_counter() - started)
    return times_s


def _load(runtime: str, model: Path, threads: int) -> Callable[[], object]:
    """Return a function that classifies one image. The runtime is imported only now."""
    if runtime == "ai-edge-litert":
        from ai_edge_litert.interpreter import Interpreter
    else:
        from tflite_runtime.interpreter import Interpreter
    interpreter = Interpreter(model_path=str(model), num_threads=threads)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    output = interpreter.get_output_details()[0]["index"]
    image = _image(given["shape"])

    def run() -> object:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        return interpreter.get_tensor(output)

    return run


def _image(shape: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    pixels = np.random.default_rng(0).uniform(-1, 1, tuple(shape))
    return pixels.astype(np.float32)


def _status_mb(name: str) -> float | None:
    """Return a figure of /proc/self/status in MB, or None where there is no such file."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
