"""`python -m training release RUN --version 1.2.0` and `restore 1.2.0`: the trained state, kept.

training/releases/<version>.npz    the tensors that differ from the ImageNet file; kernels float16
                  <version>.json   the run's configuration and report, and what must fit

Machines come and go and only the repository stays. A whole ``.keras`` file is 84 MB; what training
changed is a tenth of that. Restoring puts it back on the ImageNet weights and writes a run's
folder, the same to the byte each time. A shipped artifact is converted from the restored model,
so that it can always be made again; rounding to float16 happens before it is scored.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.config import ConfigError, TrainConfig, WeightsError
from training.data.folds import refuse_fold
from training.files import replacing, sha256_of, write_json

RELEASES = Path(__file__).resolve().parent / "releases"
RUNS = Path("runs")
MODEL_NAME = "clothing-xception"
_VERSION = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")  # https://semver.org
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a ZIP can hold
# Always kept: the partial ImageNet file that a run may have started from holds no block 14.
_ALWAYS_KEPT = ("block14_", "inner/", "logits/")


def release(
    run: Path,
    version: str,
    *,
    weights: Path | None,
    name: str = MODEL_NAME,
    releases: Path = RELEASES,
) -> tuple[Path, Path]:
    """Write what a run's model has beyond the ImageNet weights.

    Args:
        run: the run's folder.
        version: such as ``1.2.0``; a version once written is never changed.
        weights: ImageNet weights that the run began with; None has Keras download them.
        name: of the model, which it will say.
        releases: folder of all releases.

    Returns:
        The ``.npz`` and the ``.json`` file. Equal runs give equal bytes.

    Raises:
        ConfigError: no finished run, a malformed version, or one that is taken.
        WeightsError: the ImageNet weights are missing or do not fit.
    """
    if not _VERSION.fullmatch(version):
        raise ConfigError(f"version must read like 1.2.0. Received: {version!r}")
    described, report = _read_run(run)
    trained, base = _trained_and_base(run, described, weights)
    changed = {
        name: _rounded(name, value)
        for name, value in trained.items()
        if _is_kept(name, value, base)
    }
    state = _to_npz(changed)
    facts = {
        "config": {**described, "name": name, "version": version, "run": described["name"]},
        "report": report,
        "tensors": {"changed": len(changed), "of": len(trained)},
        "npz_sha256": hashlib.sha256(state).hexdigest(),
        "base_sha256": _digest({n: v for n, v in base.items() if n not in changed}),
    }
    arrays, description = releases / f"{version}.npz", releases / f"{version}.json"
    _refuse_taken(arrays, state, description, facts)
    with replacing(arrays) as unfinished:
        unfinished.write_bytes(state)
    write_json(description, facts)
    return arrays, description


def restore(
    version: str, *, weights: Path | None, releases: Path = RELEASES, runs: Path = RUNS
) -> Path:
    """Write ``runs/release-<version>/`` from a release and the ImageNet weights.

    Args:
        version: of the release.
        weights: ImageNet weights; None has Keras download them.
        releases: folder of all releases.
        runs: folder of all runs.

    Returns:
        The run's folder: model.keras, config.json, report.json. Equal arguments, equal bytes.

    Raises:
        ConfigError: no such release, or its files do not belong together.
        WeightsError: the ImageNet weights are missing, or not those that the run began with.
    """
    import keras

    from training.fit.backbone import (
        assign_weights,
        build_backbone,
        build_network,
        named_weights,
        with_probabilities,
    )

    facts, arrays = _read_release(version, releases)
    config = TrainConfig.from_dict(facts["config"])
    keras.utils.clear_session()  # names of unnamed layers count from the start of a process
    backbone = build_backbone(config.input.height, config.input.width, weights)
    network = build_network(
        backbone, dataclasses.replace(config, precision="float32"), len(facts["config"]["labels"])
    )
    base = {n: v for n, v in named_weights(network.whole).items() if n not in arrays}
    if _digest(base) != facts["base_sha256"]:
        raise WeightsError(
            f"the ImageNet weights are not those that release {version} began with "
            f"(SHA-256 of the {len(base)} tensors that it left as they were: expected "
            f"{facts['base_sha256'][:16]}..., received {_digest(base)[:16]}...)"
        )
    assign_weights(network.whole, arrays)
    model = with_probabilities(network.whole, facts["report"]["temperature"])
    folder = runs / f"release-{version}"
    write_json(folder / "config.json", facts["config"])
    write_json(folder / "report.json", facts["report"])
    save_reproducibly(model, folder / "model.keras")
    return folder


def save_reproducibly(model: Any, path: Path) -> None:
    """Save a Keras model without the moment of saving: equal models give equal bytes."""
    with replacing(path) as unfinished:
        dated = unfinished.with_name(f"dated-{path.name}")
        try:
            model.save(dated)
            _copy_undated(dated, unfinished)
        finally:
            dated.unlink(missing_ok=True)


def add_arguments(commands: Any) -> None:
    """Add both commands to the others of ``python -m training``."""
    writer = commands.add_parser("release", help="keep a run's trained state in the repository")
    writer.add_argument("run_folder", metavar="RUN", type=Path, help="such as runs/mine")
    writer.add_argument("--version", required=True, help="such as 1.2.0")
    writer.add_argument("--name", default=MODEL_NAME, help=f"of the model; default {MODEL_NAME}")
    writer.set_defaults(run=_run_release)
    reader = commands.add_parser("restore", help="make a released model's run folder again")
    reader.add_argument("version", help="one of training/releases/")
    reader.set_defaults(run=_run_restore)
    for parser in (writer, reader):
        parser.add_argument(
            "--backbone-weights",
            type=Path,
            help="else $BACKBONE_WEIGHTS, data/, ../shared/, Keras's",
        )


def _refuse_taken(arrays: Path, state: bytes, description: Path, facts: dict[str, Any]) -> None:
    """Let a version be written again only as it is: what it names may be in use already."""
    if arrays.is_file() and arrays.read_bytes() != state:
        raise ConfigError(f"{arrays.name} holds another model already. Choose another version.")
    if not description.is_file():
        return
    kept = json.loads(description.read_text())
    if kept != facts:
        parts = sorted(key for key in facts if kept.get(key) != facts[key])
        raise ConfigError(
            f"{description.name} describes another run or name already (its {', '.join(parts)} "
            "differ). Choose another version."
        )


def _run_release(parsed: argparse.Namespace) -> None:
    from training.fit.backbone import find_weights

    weights = find_weights(parsed.backbone_weights)
    written = release(parsed.run_folder, parsed.version, weights=weights, name=parsed.name)
    for path in written:
        print(f"wrote {path.name}, {path.stat().st_size:,} bytes, SHA-256 {sha256_of(path)}")


def _run_restore(parsed: argparse.Namespace) -> None:
    from training.fit.backbone import find_weights

    folder = restore(parsed.version, weights=find_weights(parsed.backbone_weights))
    print(f"wrote {folder}/model.keras, SHA-256 {sha256_of(folder / 'model.keras')}")


def _read_run(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name in ("model.keras", "config.json", "report.json"):
        if not (run / name).is_file():
            raise ConfigError(f"{run} holds no finished run: {name} is missing")
    described, report = (
        json.loads((run / name).read_text()) for name in ("config.json", "report.json")
    )
    refuse_fold(described, run)
    return described, report


def _trained_and_base(
    run: Path, described: dict[str, Any], weights: Path | None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """Return all weights of a run's model, and of the same network as ImageNet left it."""
    import keras

    from training.fit.backbone import (
        build_backbone,
        build_network,
        named_weights,
        without_probabilities,
    )

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
    return name.startswith(_ALWAYS_KEPT) or not np.array_equal(value, base[name])


def _rounded(name: str, value: NDArray[np.float32]) -> NDArray[Any]:
    """Return kernels in float16; vectors, a hundredth of the bytes, as they are."""
    if value.ndim < 2:
        return value
    half = value.astype(np.float16)
    if not np.isfinite(half).all():
        raise ConfigError(f"tensor {name!r} does not fit float16: it reaches {abs(value).max():g}")
    return half


def _to_npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Uncompressed, by name: NumPy stamps such files with 1980, so equal arrays, equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()


def _digest(arrays: dict[str, NDArray[np.float32]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def _read_release(
    version: str, releases: Path
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    description, file = releases / f"{version}.json", releases / f"{version}.npz"
    if not (description.is_file() and file.is_file()):
        known = sorted(path.stem for path in releases.glob("*.json")) or ["none"]
        raise ConfigError(f"there is no release {version!r}. There are: {', '.join(known)}")
    facts = json.loads(description.read_text())
    state = file.read_bytes()
    found = hashlib.sha256(state).hexdigest()
    if found != facts["npz_sha256"]:
        raise ConfigError(
            f"{file.name} is not the file that {description.name} describes: SHA-256 expected "
            f"{facts['npz_sha256'][:16]}..., received {found[:16]}..."
        )
    with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
        return facts, {name: arrays[name].astype(np.float32) for name in arrays.files}


def _copy_undated(source: Path, target: Path) -> None:
    with zipfile.ZipFile(source) as dated, zipfile.ZipFile(target, "w") as undated:
        for name in sorted(dated.namelist()):
            content = dated.read(name)
            if name == "metadata.json":
                fields = {**json.loads(content), "date_saved": "1980-01-01@00:00:00"}
                content = json.dumps(fields, sort_keys=True).encode()
            elif name == "config.json":
                content = _renumbered(content.decode()).encode()
            undated.writestr(zipfile.ZipInfo(name, date_time=_ZIP_EPOCH), content)


def _renumbered(config: str) -> str:
    """Number shared objects from 1; Keras takes their addresses in memory."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        return f"{match[1]}{numbers.setdefault(match[2], len(numbers) + 1)}"

    return re.sub(r'("shared_object_id": )(\d+)', number, config)
