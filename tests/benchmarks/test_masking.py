"""Hiding AVX-512: a program in the lane avx2 must not see it, by either method."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks.masking import (
    AVX2,
    FAULT,
    HIDDEN,
    MACHINE,
    PATCHED,
    Lane,
    MaskingError,
    build_library,
    can_fault,
    lanes,
    masked_lane,
)
from benchmarks.masking.patch import patch_library, patched_environment
from lambda_function import processor
from lambda_function.processor import instruction_sets
from tests.support.processes import run_python

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler, cc")
needs_avx2 = pytest.mark.skipif("avx2" not in instruction_sets(), reason="needs x86_64 with AVX2")
needs_objdump = pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
pytestmark = [needs_compiler, needs_avx2]

# Built as a library of its own, as a runtime would be. Prints leaf 7's EBX: AVX2 and AVX512F.
ASKING = """
#include <cpuid.h>
unsigned leaf7_ebx(void) {
  unsigned a, b, c, d;
  __cpuid_count(7, 0, a, b, c, d);
  return b;
}
"""
AVX2_BIT, AVX512F_BIT = 5, 16


@pytest.fixture
def asking(tmp_path: Path) -> Path:
    """A shared library that executes CPUID itself."""
    source, library = tmp_path / "asking.c", tmp_path / "libasking.so"
    source.write_text(ASKING)
    command = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(source)]
    subprocess.run(command, check=True)
    return library


def ask(library: Path, lane: Lane) -> int:
    """Return leaf 7's EBX as the library sees it in a lane."""
    code = f"import ctypes; print(ctypes.CDLL({str(library)!r}).leaf7_ebx() & 0xFFFFFFFF)"
    environment = {**os.environ, **lane.environment}
    return int(run_python("-c", code, env=environment, check=True).stdout)


def has(ebx: int, bit: int) -> bool:
    return bool(ebx >> bit & 1)


@pytest.mark.skipif(not can_fault(), reason="this processor cannot make CPUID fault")
def test_a_library_sees_no_avx512_where_cpuid_faults(asking: Path) -> None:
    plain = ask(asking, Lane(MACHINE))
    masked = ask(asking, masked_lane(FAULT))

    assert has(plain, AVX512F_BIT) == ("avx512f" in instruction_sets())
    assert not has(masked, AVX512F_BIT)
    assert has(masked, AVX2_BIT)


@needs_objdump
def test_a_patched_library_sees_no_avx512(asking: Path) -> None:
    content = asking.read_bytes()
    assert patch_library(asking) == 1
    assert len(asking.read_bytes()) == len(content)
    masked = ask(asking, masked_lane(PATCHED))

    assert not has(masked, AVX512F_BIT)
    assert has(masked, AVX2_BIT)


@needs_objdump
def test_a_patched_environment_is_a_copy_and_leaves_the_original(
    tmp_path: Path, asking: Path
) -> None:
    original = tmp_path / "venv"
    original.mkdir()
    before = asking.read_bytes()
    shutil.move(asking, original / asking.name)
    (original / "module.py").write_text("x = 1")

    copy = patched_environment(original)

    assert copy == tmp_path / "venv-avx2"
    assert (original / asking.name).read_bytes() == before
    assert (copy / asking.name).read_bytes() != before
    assert (copy / "module.py").read_text() == "x = 1"
    made = (copy / "patched.txt").stat().st_mtime_ns
    assert patched_environment(original) == copy
    assert (copy / "patched.txt").stat().st_mtime_ns == made


def test_the_lane_of_lambda_comes_first_and_hides_what_lambda_lacks() -> None:
    here = lanes()
    assert next(iter(here)) == AVX2
    assert here[AVX2].instruction_sets() == ["avx2"]
    if HIDDEN & set(instruction_sets()):
        assert here[MACHINE].instruction_sets() == instruction_sets()


def test_a_lane_that_hides_nothing_is_an_error() -> None:
    if not HIDDEN & set(instruction_sets()):
        pytest.skip("this processor has nothing to hide")
    with pytest.raises(MaskingError, match=r"still visible in the lane avx2: .*avx512f"):
        Lane(AVX2, {}, FAULT).instruction_sets()


@pytest.mark.skipif(not can_fault(), reason="this processor cannot make CPUID fault")
@pytest.mark.parametrize("method", [FAULT, PATCHED])
def test_a_real_crash_stays_a_crash(method: str) -> None:
    environment = {**os.environ, **masked_lane(method).environment}
    crash = "import ctypes; ctypes.string_at(0)"
    assert run_python("-c", crash, env=environment).returncode == -11


def test_the_compiled_library_is_kept() -> None:
    library = build_library()
    assert library.is_file()
    assert ctypes.CDLL(str(library)).see_cpuid


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("processor : 0\nflags : fpu avx512f avx2\n\nflags : sve\n", ["avx2", "avx512f"]),
        ("processor : 0\nFeatures : fp asimd asimddp\n", ["asimddp"]),  # arm64
        (None, []),  # not Linux
    ],
)
def test_instruction_sets_are_read_from_the_first_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, expected: list[str]
) -> None:
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    if content:
        processor.CPU_INFO.write_text(content)

    assert instruction_sets() == expected
