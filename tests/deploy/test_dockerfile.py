"""Checks of the Dockerfile that need no build. tests/docker builds it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.baselines import IMAGE_ENVIRONMENT
from deploy.image import check_model, prune
from lambda_function import REPOSITORY
from lambda_function.metadata import embed_metadata, read_metadata
from tests.conftest import TINY_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable

DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
LINES = [line for line in DOCKERFILE.splitlines() if not line.startswith("#")]


def instructions(word: str) -> list[str]:
    joined = "\n".join(LINES).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith(f"{word} ")]


def test_it_installs_only_locked_wheels() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert len(installs) == 1
    assert "--require-hashes" in installs[0] and "--only-binary=:all:" in installs[0]


def test_the_benchmarks_give_the_handler_the_environment_of_the_image() -> None:
    function = "\n".join(LINES).split(" AS function\n")[1]
    found = re.findall(r'([A-Z_]+)="([^"]*)"', "".join(re.findall(r"(?m)^ENV .*$", function)))
    assert dict(found) == IMAGE_ENVIRONMENT


def test_model_and_code_have_layers_of_their_own() -> None:
    """So a deployment of other code uploads no model, and another model no code."""
    function = "\n".join(LINES).split(" AS function\n")[1]
    copied = re.findall(r"^COPY --from=build (/build/\w+)/ ", function, re.MULTILINE)
    assert copied == ["/build/deps", "/build/model", "/build/app"]


def test_everything_that_it_copies_is_there_and_let_through() -> None:
    """.dockerignore refuses everything but what is named."""
    let_through = [
        line[1:]
        for line in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for line in instructions("COPY"):
        words = [word for word in line.split()[1:-1] if not word.startswith("--")]
        if "--from=" in line:
            continue
        for word in words:
            for name in ("serving", "tflite-runtime"):
                path = word.replace("${REQUIREMENTS}", name).rstrip("/")
                assert (REPOSITORY / path).exists(), path
                assert path in let_through, path
    assert not [p for p in let_through if p.startswith(("tests", "training", "runs", "shared"))]


# --- prune.py -------------------------------------------------------------------------------


def put(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 10)


def patterns(owner: str) -> list[str]:
    found = [p for unused in prune.UNUSED_FILES if unused.owner == owner for p in unused.patterns]
    return [pattern.replace("**", "a").replace("*", "z") for pattern in found]


def test_prune_removes_the_listed_files_and_keeps_the_rest(tmp_path: Path) -> None:
    kept = ("ai_edge_litert/interpreter.py", "numpy/core.py", "keras_image_helper/__init__.py")
    put(tmp_path, *kept, *patterns("ai_edge_litert"), *patterns("numpy"), "bin/f2py", "a/b.pyi")
    assert prune.prune(tmp_path) > 0
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == set(kept)


def test_prune_refuses_a_release_that_renamed_its_parts(tmp_path: Path) -> None:
    put(tmp_path, *patterns("ai_edge_litert"))
    (tmp_path / "ai_edge_litert/tools").unlink()
    with pytest.raises(FileNotFoundError, match=r"ai_edge_litert/tools .* deploy/image/prune\.py"):
        prune.prune(tmp_path)


def test_prune_keeps_the_files_of_tflite_runtime(tmp_path: Path) -> None:
    kept = ("tflite_runtime/interpreter.py", "google/__init__.py", "numpy/core.py")
    put(tmp_path, *kept)
    assert prune.prune(tmp_path) == 0


# --- check_model.py -------------------------------------------------------------------------


def test_a_model_that_can_be_served_is_described() -> None:
    said = check_model.check_model(TINY_MODEL)
    assert said.startswith("model tiny ") and "4 classes, 32x48 pixels" in said


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), r"There is no model at model\.tflite.*git checkout"),
        (lambda path: path.write_bytes(TINY_MODEL.read_bytes()[:900]), "cannot be served"),
        (lambda path: path.write_bytes(_with_other_labels()), "metadata says"),
    ],
    ids=["missing", "cut", "labels"],
)
def test_a_model_that_cannot_be_served_ends_the_build_with_a_sentence(
    tmp_path: Path, spoil: Callable[[Path], object], sentence: str
) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(TINY_MODEL.read_bytes())
    spoil(path)
    with pytest.raises(SystemExit, match=sentence):
        check_model.check_model(path)


def _with_other_labels() -> bytes:
    import dataclasses

    model = TINY_MODEL.read_bytes()
    flatbuffer = model[: model.index(b"PK\3\4")]
    metadata = dataclasses.replace(read_metadata(TINY_MODEL), labels=("a", "b"))
    return embed_metadata(flatbuffer, metadata)
