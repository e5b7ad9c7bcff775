"""The command line writes an artifact with its report, or says why not in one sentence."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from converter.__main__ import main
from lambda_function import REPOSITORY
from lambda_function.metadata import read_metadata
from tests.support.paths import TESTS

TINY = TESTS / "data" / "tiny.tflite"


def run(*words: str | Path) -> int:
    return main([*map(str, words)])


@pytest.mark.training
def test_a_passed_gate_writes_artifact_and_report(source, dataset, tmp_path):
    output = tmp_path / "out" / "model.tflite"

    words = ("--recipe", "float32", "--version", "9.1.0", "--dataset", dataset)
    assert run(source.path, *words, "--output", output) == 0

    metadata = read_metadata(output)
    assert (metadata.recipe, metadata.version) == ("float32", "9.1.0")
    report = json.loads(output.with_name("model.parity.json").read_text())
    assert report["passed"] is True
    assert report["figures"]["images"] == 9 + 12
    files = sorted(path.name for path in output.parent.iterdir())
    assert files == ["model.parity.json", "model.tflite"]


@pytest.mark.training
def test_a_failed_gate_shows_why_and_leaves_the_old_file(source, dataset, tmp_path, capsys):
    # Calibrated on images that are nearly grey, the integer model saturates on real ones.
    dull = tmp_path / "dull"
    shutil.copytree(dataset, dull)
    rng = np.random.default_rng(0)
    for image in (dull / "train").rglob("*.png"):
        pixels = rng.integers(128, 134, (90, 70, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(image)
    output = tmp_path / "out" / "model.tflite"
    output.parent.mkdir()
    output.write_bytes(b"published before")

    status = run(
        source.path, "--recipe", "int8", "--output", output, "--dataset", dull,
        "--images", dataset / "validation",
    )  # fmt: skip

    printed = capsys.readouterr().out
    assert status == 3
    assert "FAILED mean probability difference" in printed
    assert "worst images" in printed
    assert "/0.png" in printed
    assert output.read_bytes() == b"published before"
    assert [path.name for path in output.parent.iterdir()] == ["model.tflite"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nowhere.keras", "--recipe", "int8"), "no model at nowhere.keras"),
        ((TINY, "--recipe", "int3"), "Received: 'int3'"),
        ((TINY, "--recipe", "int8", "--output", TESTS), "--output must be a .tflite file"),
        (("inspect", __file__), "TFL3"),
    ],
)
def test_bad_input_gets_one_sentence(words, expected, capsys):
    assert run(*words) == 2

    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert expected in errors


def test_an_unknown_option_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        run("model.keras", "--recipe", "int8", "--force")

    assert ended.value.code == 2
    assert "unrecognized arguments: --force" in capsys.readouterr().err


PROBE = """
import sys
from converter.__main__ import main
main(sys.argv[1:])
print(",".join(sorted(name for name in sys.modules if name.startswith("converter."))))
"""


def test_a_command_imports_only_what_it_needs():
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "inspect", str(TINY)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.splitlines()[-1].split(",") == [
        *("converter.__main__", "converter.errors", "converter.inspect", "converter.sources"),
        "converter.sources.tflite_file",
    ]
