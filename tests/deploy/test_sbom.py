"""The list of what an image holds, made from a small tree whose contents are known."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import TINY_MODEL
from tests.support.processes import run_python
from tests.support.template import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

METADATA = {
    "Alpha_One": "License-Expression: MIT AND Zlib",
    "beta": "License: Apache-2.0",
    "gamma": "Classifier: License :: OSI Approved :: BSD License",
    "delta": "License: " + "a whole text " * 20 + "\nClassifier: License :: OSI Approved",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, licence in METADATA.items():
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{licence}\n"
        )
    vague = tmp_path / "epsilon-1.0.dist-info"
    (vague / "licenses").mkdir(parents=True)
    (vague / "licenses" / "LICENCE").write_text("\n   DO WHAT YOU LIKE LICENSE\n   Version 2\n")
    (vague / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: epsilon\nVersion: 1.0\n"
        "Classifier: License :: Other/Proprietary License\n"
    )
    (vague / "RECORD").write_text("epsilon-1.0.dist-info/licenses/LICENCE,,\n")
    (tmp_path / "beta.libs").mkdir()
    (tmp_path / "beta.libs" / "libjpeg-0123.so.62").write_bytes(b"jpeg")
    return tmp_path


def listed(tree: Path) -> str:
    environment = {"PYTHONPATH": str(REPOSITORY)}
    words = ("deploy/image/sbom.py", tree, TINY_MODEL)
    return run_python(*words, env=environment, check=True).stdout


def test_packages_native_libraries_and_model_are_listed_with_licences(tree: Path) -> None:
    document = json.loads(listed(tree))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    by_name = {component["name"]: component for component in document["components"]}
    licences = {
        name: component["licenses"][0]["license"]["name"]
        for name, component in by_name.items()
        if "licenses" in component
    }
    assert licences == {
        "Alpha_One": "MIT AND Zlib",
        "beta": "Apache-2.0",
        "gamma": "BSD License",
        "delta": "unknown",
        "epsilon": "DO WHAT YOU LIKE LICENSE",
        "tiny": "MIT",
    }
    assert by_name["Alpha_One"]["purl"] == "pkg:pypi/alpha-one@1.0"
    native = by_name["beta.libs/libjpeg-0123.so.62"]
    assert native["hashes"][0]["content"] == hashlib.sha256(b"jpeg").hexdigest()
    assert by_name["tiny"]["type"] == "machine-learning-model"


def test_equal_trees_give_equal_lists(tree: Path) -> None:
    assert listed(tree) == listed(tree)
