"""Which instruction sets of the processor decide the speed of inference and training.

AWS documents AVX2 for x86_64. A processor with AVX-512 VNNI runs an int8 model several times as
fast, so a figure without its instruction sets says little.
"""

from __future__ import annotations

from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# By the kernel's names: x86_64, then arm64, where `asimddp` is the dot product instruction.
RELEVANT = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8", "asimddp", "i8mm", "sve"
)  # fmt: skip


def instruction_sets() -> list[str]:
    """Return the names of the relevant instruction sets, in the order of ``RELEVANT``.

    Reads up to the first core's flags only: the kernel writes the file while it is read. The list
    is empty where there is no such file.
    """
    try:
        with CPU_INFO.open("rb") as lines:
            flags = next((line for line in lines if line.startswith((b"flags", b"Features"))), b"")
    except OSError:  # not Linux
        return []
    present = set(flags.decode("latin-1").split())
    return [name for name in RELEVANT if name in present]
