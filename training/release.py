"""`python -m training release RUN --version 1.2.0`: keep a run's trained weights in the repository.

See ``training.archive`` for the files. A shipped artifact is converted from the restored model, so
kernels are rounded to float16 before the model is scored.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.archive import RELEASES, pack_arrays
from training.config import TrainConfig
from training.data.folds import refuse_fold
from training.data.imagenet import find_weights
from training.errors import ConfigError
from training.files import read_json, replacing, sha256_of, write_json
from training.fit.backbone import (
    arrays_sha256,
    build_backbone,
    build_network,
    named_weights,
    without_probabilities,
)
from training.options import add_options

_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")  # https://semver.org
# Always kept: a run may have started from an ImageNet file that holds no block 14.
_ALWAYS_KEPT = ("block14_", "inner/", "logits/")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="such as runs/mine")
    parser.add_argument("--version", required=True, help="such as 1.2.0")
    parser.add_argument("--name", default="", help="of the model; default: the run's")
    add_options(parser, "backbone-weights")


def run(parsed: argparse.Namespace) -> None:
    """Write the release and print its files."""
    weights = find_weights(parsed.backbone_weights)
    written = release(parsed.run_folder, parsed.version, weights=weights, name=parsed.name)
    for path in written:
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes, SHA-256 {sha256_of(path)}")


def release(
    run: Path,
    version: str,
    *,
    weights: Path | None,
    name: str = "",
    releases: Path = RELEASES,
) -> tuple[Path, Path]:
    """Write what a run's model has beyond the ImageNet weights.

    Args:
        run: the run's folder.
        version: such as ``1.2.0``. A written version is never changed.
        weights: ImageNet weights that the run began with. None has Keras download them.
        name: of the model. The model will report it. Default: the run's.
        releases: folder of all releases.

    Returns:
        The ``.npz`` and the ``.json`` file. Equal runs give equal bytes.

    Raises:
        ConfigError: the run is not finished, or the version is malformed or taken.
        WeightsError: the ImageNet weights are missing or do not fit.
    """
    if not _VERSION.fullmatch(version):
        raise ConfigError(f"version must read like 1.2.0. Received: {version!r}")
    described, report = _read_run(run)
    trained, base = _trained_and_base(run, described, weights)
    if described["first_trainable_block"] == 1:  # no tensor is ImageNet's
        base = {}
    changed = {
        tensor: _rounded(tensor, value)
        for tensor, value in trained.items()
        if _is_kept(tensor, value, base)
    }
    state = pack_arrays(changed)
    facts = {
        "config": {
            **described,
            "name": name or described["name"],
            "version": version,
            "run": described["name"],
        },
        "report": report,
        "tensors": {"changed": len(changed), "of": len(trained)},
        "npz_sha256": hashlib.sha256(state).hexdigest(),
        "base_sha256": arrays_sha256({n: v for n, v in base.items() if n not in changed}),
    }
    arrays, description = releases / f"{version}.npz", releases / f"{version}.json"
    _refuse_taken(arrays, state, description, facts)
    with replacing(arrays) as unfinished:
        unfinished.write_bytes(state)
    write_json(description, facts)
    return arrays, description


def _refuse_taken(arrays: Path, state: bytes, description: Path, facts: dict[str, Any]) -> None:
    """Refuse to change a written version. It may be in use already."""
    if arrays.is_file() and arrays.read_bytes() != state:
        raise ConfigError(f"{arrays.name} holds another model already. Choose another version.")
    if not description.is_file():
        return
    kept = read_json(description)
    if kept != facts:
        parts = sorted(key for key in facts if kept.get(key) != facts[key])
        raise ConfigError(
            f"{description.name} describes another run or name already (its {', '.join(parts)} "
            "differ). Choose another version."
        )


def _read_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name in ("model.keras", "config.json", "report.json"):
        if not (run / name).is_file():
            raise ConfigError(f"{run} holds no finished run: {name} is missing")
    described, report = (read_json(run / name) for name in ("config.json", "report.json"))
    refuse_fold(described, run)
    return described, report


def _trained_and_base(
    run: Path, described: dict[str, Any], weights: Path | None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Return the weights of a run's model, and of the same network with ImageNet's weights."""
    config = dataclasses.replace(TrainConfig.from_dict(described), precision="float32")
    backbone = build_backbone(config.input.height, config.input.width, weights)
    network = build_network(backbone, config, len(described["labels"]))
    model = keras.models.load_model(run / "model.keras", compile=False)
    trained, base = named_weights(without_probabilities(model)), named_weights(network.whole)
    if trained.keys() != base.keys():
        raise ConfigError(
            f"{run}/model.keras is not the network that its config.json describes: "
            f"{len(trained)} tensors, expected {len(base)}"
        )
    return trained, base


def _is_kept(name: str, value: NDArray[np.float32], base: dict[str, NDArray[np.float32]]) -> bool:
    kept = name not in base or name.startswith(_ALWAYS_KEPT)
    return kept or not np.array_equal(value, base[name])


def _rounded(name: str, value: NDArray[np.float32]) -> NDArray[Any]:
    """Return kernels as float16. Vectors are a hundredth of the bytes and stay float32."""
    if value.ndim < 2:
        return value
    half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise ConfigError(f"tensor {name!r} does not fit float16: it reaches {abs(value).max():g}")
    return half
