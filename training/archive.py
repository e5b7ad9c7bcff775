"""What a release stores, and how its files are read and written.

training/releases/<version>.npz    tensors that differ from the ImageNet file, kernels as float16
                  <version>.json   the run's configuration, its report and the hashes

A whole ``.keras`` file has 84 MB. What training changed is a tenth of that. ``training.release``
writes these files and ``training.restore`` makes a run folder of them again.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.errors import ConfigError
from training.files import read_json

RELEASES = Path(__file__).resolve().parent / "releases"
HASH_DIGITS = 16  # of a hash in a message


def pack_arrays(arrays: dict[str, NDArray[Any]]) -> bytes:
    """Return an uncompressed ``.npz``, sorted by name: equal arrays give equal bytes.

    NumPy dates the members of such a file to 1980.
    """
    buffer = io.BytesIO()
    # allow_pickle is NumPy's default. Naming it tells mypy that the rest are arrays.
    np.savez(buffer, allow_pickle=True, **{name: arrays[name] for name in sorted(arrays)})
    return buffer.getvalue()


def read_release(
    version: str, releases: Path
) -> tuple[dict[str, Any], dict[str, NDArray[np.float32]]]:
    """Return a release's description and its arrays as float32.

    Raises:
        ConfigError: the release does not exist, or its files do not belong together.
    """
    description, file = releases / f"{version}.json", releases / f"{version}.npz"
    if not (description.is_file() and file.is_file()):
        known = sorted(path.stem for path in releases.glob("*.json")) or ["none"]
        raise ConfigError(f"there is no release {version!r}. There are: {', '.join(known)}")
    facts = read_json(description)
    state = file.read_bytes()
    received = hashlib.sha256(state).hexdigest()
    if received != facts["npz_sha256"]:
        raise ConfigError(
            f"{file.name} is not the file that {description.name} describes: SHA-256 expected "
            f"{facts['npz_sha256'][:HASH_DIGITS]}..., received {received[:HASH_DIGITS]}..."
        )
    with np.load(io.BytesIO(state), allow_pickle=False) as arrays:
        return facts, {name: arrays[name].astype(np.float32) for name in arrays.files}
