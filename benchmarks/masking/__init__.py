"""Runs programs with the instruction sets of AWS Lambda's x86_64: AVX2, no AVX-512.

A **lane** is a set of instruction sets to measure with. On a processor with AVX-512 there are two:
``avx2``, as on Lambda, and ``machine``, the processor as it is. Elsewhere there is one.

``hide_avx512.c`` does the work. It is compiled with ``cc`` when it is first needed. On Intel it
makes the CPUID instruction fault. Elsewhere the libraries are copied and patched (``patch.py``).
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.masking.patch import patched_environment
from lambda_function import REPOSITORY
from lambda_function.processor import CPU_INFO, instruction_sets

if TYPE_CHECKING:
    from collections.abc import Mapping

AVX2, MACHINE = "avx2", "machine"
SOURCE = Path(__file__).with_name("hide_avx512.c")
CACHE = REPOSITORY / ".cache" / "benchmarks"
FAULT, PATCHED = "fault", "patched"
VARIABLE = "HIDE_AVX512"
HIDDEN = frozenset({"avx512f", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8"})
# Name -> (leaf, subleaf, register, bit) of CPUID. Intel SDM, volume 2A.
CPUID_BITS = {
    "avx2": (7, 0, 1, 5),
    "avx512f": (7, 0, 1, 16),
    "avx512_vnni": (7, 0, 2, 11),
    "avx_vnni": (7, 1, 0, 4),
    "amx_bf16": (7, 0, 3, 22),
    "amx_int8": (7, 0, 3, 25),
}
SHOW = "import json; from benchmarks.masking import visible; print(json.dumps(visible()))"
# glibc chooses its string functions before any library is loaded.
GLIBC_TUNABLES = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX512CD"


class MaskingError(RuntimeError):
    """Instruction sets cannot be hidden here. The message says why."""


@dataclasses.dataclass(frozen=True)
class Lane:
    """Instruction sets to measure with.

    Attributes:
        name: ``avx2`` or ``machine``.
        environment: variables that a program needs.
        method: ``fault`` or ``patched``, or None where nothing is hidden.
    """

    name: str
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    method: str | None = None

    def python(self, virtual_environment: Path) -> Path:
        """Return the interpreter to start for a virtual environment."""
        if self.method == PATCHED:
            virtual_environment = patched_environment(virtual_environment)
        return virtual_environment / "bin" / "python"

    def instruction_sets(self) -> list[str]:
        """Return what a program in this lane sees.

        Raises:
            MaskingError: an instruction set is visible that must be hidden.
        """
        shown = subprocess.run(
            [sys.executable, "-c", SHOW],
            cwd=REPOSITORY,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if shown.returncode:
            raise MaskingError(f"the lane {self.name} does not start: {shown.stderr.strip()}")
        seen: list[str] = json.loads(shown.stdout)
        if self.method and HIDDEN & set(seen):
            raise MaskingError(f"still visible in the lane {self.name}: {seen}")
        return seen


def lanes() -> dict[str, Lane]:
    """Return this machine's lanes by name. The first one is nearest to Lambda.

    Raises:
        MaskingError: there is no C compiler.
    """
    present = set(instruction_sets())
    if not HIDDEN & present:
        name = AVX2 if "avx2" in present else MACHINE
        return {name: Lane(name)}
    method = FAULT if can_fault() else PATCHED
    return {AVX2: masked_lane(method), MACHINE: Lane(MACHINE)}


def lambda_lane() -> Lane:
    """Return the lane that is nearest to Lambda."""
    return next(iter(lanes().values()))


def masked_lane(method: str) -> Lane:
    """Return the lane ``avx2``, made by one method.

    Args:
        method: ``fault`` or ``patched``.
    """
    environment = {
        "LD_PRELOAD": str(build_library()),
        VARIABLE: method,
        "GLIBC_TUNABLES": GLIBC_TUNABLES,
    }
    return Lane(AVX2, environment, method)


def enter_lane(lane: Lane) -> None:
    """Start this command again in a lane, unless it runs there already."""
    wanted = lane.environment
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        python = str(lane.python(Path(sys.prefix)))
        command = [python, "-m", "benchmarks", *sys.argv[1:]]
        os.execve(python, command, {**os.environ, **wanted})  # noqa: S606


def visible() -> list[str]:
    """Return the instruction sets that this process sees: by CPUID where some are hidden."""
    if os.environ.get(VARIABLE) not in (FAULT, PATCHED):
        return instruction_sets()
    library = ctypes.CDLL(os.environ["LD_PRELOAD"])
    seen = []
    for name, (leaf, subleaf, register, bit) in CPUID_BITS.items():
        registers = (ctypes.c_uint32 * 4)()
        library.see_cpuid(ctypes.c_uint32(leaf), ctypes.c_uint32(subleaf), registers)
        if registers[register] >> bit & 1:
            seen.append(name)
    return seen


def can_fault() -> bool:
    """Return whether the processor can make CPUID fault."""
    return CPU_INFO.is_file() and "cpuid_fault" in CPU_INFO.read_text().split()


@functools.cache
def build_library() -> Path:
    """Compile the C program unless that is done, and return the shared library.

    Raises:
        MaskingError: there is no C compiler, or it fails.
    """
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    library = CACHE / f"hide_avx512-{digest}.so"
    if library.is_file():
        return library
    compiler = shutil.which("cc")
    if compiler is None:
        raise MaskingError("hiding AVX-512 needs a C compiler: no `cc` on the PATH")
    library.parent.mkdir(parents=True, exist_ok=True)
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(unfinished), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MaskingError(f"{SOURCE.name} does not compile: {done.stderr.strip()}")
    unfinished.replace(library)
    return library
