"""Measure what decoding a file costs: `python -m tests.support.decode_cost REFERENCE FILE`.

Prints JSON. Runs in a process of its own, whose peak of memory can be read. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path

from lambda_function.errors import ServiceError
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import InputSpec

SPEC = InputSpec(height=224, width=224)
ROUNDS = 3  # the best counts
_LIBC = ctypes.CDLL(None)


def cpu_s(data: bytes, target: InputSpec | None) -> tuple[float, str, int]:
    """Return processor seconds, the outcome, and how many pixels the image has."""
    start = time.process_time()
    try:
        image = decode_image(data, target=target)
        height, width = image.info["encoded_size"]
        outcome, pixels = "read", height * width
        if target:
            preprocess(image, target)
    except ServiceError as error:
        outcome, pixels = f"{error.status} {error.detail}", 0
    return time.process_time() - start, outcome, pixels


def memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    """Measure the file beside a reference that is decoded in full."""
    reference, data = (Path(name).read_bytes() for name in sys.argv[1:])
    reference_s = min(cpu_s(reference, None)[0] for _ in range(ROUNDS))
    rounds = []
    for _ in range(ROUNDS):
        _LIBC.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, proc(5)
        before_mb = memory_mb("VmRSS")
        used_s, outcome, pixels = cpu_s(data, SPEC)
        rounds.append((used_s, memory_mb("VmHWM") - before_mb))
        if used_s < 5 * reference_s:
            break  # far below the budget, and a second round would show the same
    cost = {
        "outcome": outcome,
        "pixels": pixels,
        "cpu_s": min(used_s for used_s, _ in rounds),
        "times": min(used_s for used_s, _ in rounds) / reference_s,
        "peak_mb": min(peak_mb for _, peak_mb in rounds),
    }
    sys.stdout.write(json.dumps(cost))


if __name__ == "__main__":
    main()
