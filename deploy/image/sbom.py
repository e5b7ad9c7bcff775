"""List the contents of an image as CycloneDX 1.6 JSON: `python sbom.py DEPS MODEL`.

The Dockerfile runs this on the tree that it copies into the image, so the list equals the contents:
Python packages with versions and licences, the native libraries inside their wheels, and the model.
cyclonedx-py lists Python packages only, without the libraries inside wheels, so this is our own.
The list holds no time and no random number. Equal trees give equal lists.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import sys
from pathlib import Path
from typing import Any

from lambda_function.metadata import read_metadata

_VAGUE = ("License :: OSI Approved", "License :: Other/Proprietary License")


def sbom(deps: Path, model: Path) -> dict[str, Any]:
    """Return the list as a CycloneDX document.

    Args:
        deps: a tree made by ``pip install --target``.
        model: the artifact.
    """
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "image-classifier"}},
        "components": [*_packages(deps), *_native_libraries(deps), _model(model)],
    }


def licence(distribution: importlib.metadata.Distribution) -> str:
    """Return a distribution's licence.

    That is its SPDX expression, or else its metadata's text, or else its licence file's title.
    """
    metadata = distribution.metadata
    expression = metadata.get_all("License-Expression", [""])[0]
    if expression:
        return str(expression)
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in metadata.get_all("Classifier", [])
        if c.startswith("License :: ") and c not in _VAGUE
    ]
    stated = str(metadata.get_all("License", [""])[0]).strip()
    short = stated if stated and len(stated) < 60 and "\n" not in stated else ""
    return short or " AND ".join(classifiers) or _title_of_licence_file(distribution) or "unknown"


def _title_of_licence_file(distribution: importlib.metadata.Distribution) -> str:
    for file in distribution.files or []:
        if file.parent.name == "licenses" and file.name.upper().startswith(("LICENSE", "LICENCE")):
            lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
            return next((line for line in lines if line), "")
    return ""


def _packages(deps: Path) -> list[dict[str, Any]]:
    found = importlib.metadata.distributions(path=[str(deps)])
    packages = []
    for distribution in sorted(found, key=lambda d: d.metadata["Name"].lower()):
        name, version = distribution.metadata["Name"], distribution.version
        packages.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}",
                "licenses": [{"license": {"name": licence(distribution)}}],
            }
        )
    return packages


def _native_libraries(deps: Path) -> list[dict[str, Any]]:
    """Return the shared libraries that wheels contain (numpy.libs, pillow.libs)."""
    return [
        {
            "type": "file",
            "name": path.relative_to(deps).as_posix(),
            "hashes": [{"alg": "SHA-256", "content": _sha256(path)}],
        }
        for path in sorted(deps.glob("*.libs/*.so*"))
    ]


def _model(model: Path) -> dict[str, Any]:
    metadata = read_metadata(model)
    return {
        "type": "machine-learning-model",
        "name": metadata.name,
        "version": metadata.version,
        "hashes": [{"alg": "SHA-256", "content": _sha256(model)}],
        "licenses": [{"license": {"name": metadata.licence}}],
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    print(json.dumps(sbom(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
