"""Copies a virtual environment and replaces CPUID by UD2 in its libraries.

For processors that cannot make CPUID fault, such as AMD's. ``hide_avx512.c`` answers UD2. The copy
shares all other files with the original through hard links.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\t0f a2\s+\tcpuid\b")
# Number, name, size, virtual address, load address, offset in the file.
_SECTION = re.compile(r"^\s*\d+\s+\S+" + r"\s+([0-9a-f]+)" * 4 + r"\s")


def patched_environment(original: Path) -> Path:
    """Return the patched copy of a virtual environment. Makes it when the original has changed.

    Disassembling takes seconds for most packages and some minutes for TensorFlow.
    """
    copy = original.with_name(f"{original.name}-avx2")
    stamp = copy / "patched.txt"
    state = _state_of(original)
    if not (stamp.is_file() and stamp.read_text() == state):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original, copy, symlinks=True, copy_function=os.link)
        for library in _libraries(copy):
            patch_library(library)
        stamp.write_text(state)
    return copy


def patch_library(library: Path) -> int:
    """Replace every CPUID instruction of a shared library and return their number.

    The library is written anew: a hard link keeps its old content elsewhere.

    Raises:
        ValueError: objdump's addresses and the file disagree.
    """
    content = bytearray(library.read_bytes())
    if CPUID not in content:
        return 0
    offsets = list(_cpuid_offsets(library))
    for offset in offsets:
        if content[offset : offset + 2] != CPUID:
            raise ValueError(f"{library}: no CPUID at offset {offset}")
        content[offset : offset + 2] = UD2
    if offsets:
        unfinished = library.with_name(f"unfinished-{library.name}")
        unfinished.write_bytes(content)
        unfinished.chmod(library.stat().st_mode)
        unfinished.replace(library)
    return len(offsets)


def _cpuid_offsets(library: Path) -> Iterator[int]:
    sections = [
        tuple(int(number, 16) for number in match.groups())
        for line in _objdump("-h", library)
        if (match := _SECTION.match(line))
    ]
    for line in _objdump("-d", library):
        if match := _INSTRUCTION.match(line):
            address = int(match[1], 16)
            for size, start, _, offset in sections:
                if start <= address < start + size:
                    yield address - start + offset
                    break


def _objdump(option: str, library: Path) -> Iterator[str]:
    command = ["objdump", option, str(library)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        yield from process.stdout
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)


def _libraries(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*.so*")) if not path.is_symlink()]


def _state_of(folder: Path) -> str:
    states = ((path, path.stat()) for path in _libraries(folder))
    return "\n".join(f"{path.name} {s.st_size} {s.st_mtime_ns}" for path, s in states)
