"""The Keras side of the parity gate, from raw image bytes, sharing no code with serving.

``lambda_function.images.decode`` is what the gate tests. A gate that called it on both sides
would not see a fault in it. So the way from bytes to tensor is written here a second time, as
plainly as it can be: Pillow at the image's full size, and one division. Size, filter and scaling
come from the training run's configuration, not from the artifact.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from tqdm import tqdm

from converter.errors import SourceError
from converter.source import Source
from lambda_function.metadata import InputSpec

CACHE = Path(".cache") / "parity"
BATCH = 32


def keras_probabilities(
    source: Source, paths: Sequence[Path], *, cache: Path = CACHE
) -> NDArray[np.float32]:
    """Return the Keras model's answers, float32, (images, classes).

    Kept on disk batch by batch, under the model's and the images' content and this file's own:
    they are the same for every recipe, and an interrupted gate goes on where it stopped.
    """
    folder = cache / _key(source, paths)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(paths), BATCH)
    missing = [start for start in starts if not (folder / f"{start}.npy").is_file()]
    if missing:
        model = source.load()
        for start in tqdm(missing, desc="Keras", unit=f"{BATCH} images"):
            answers = model.predict_on_batch(_batch(paths[start : start + BATCH], source.spec))
            _save(folder / f"{start}.npy", np.asarray(answers, dtype=np.float32))
    return np.concatenate([np.load(folder / f"{start}.npy") for start in starts])


def _batch(paths: Sequence[Path], spec: InputSpec) -> NDArray[np.float32]:
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(lambda path: _tensor(path, spec), paths)))


def _tensor(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    try:
        return reference_tensor(path.read_bytes(), spec)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of damaged files
        raise SourceError(f"the image {path} cannot be read: {error}") from error


def _save(file: Path, array: NDArray[np.float32]) -> None:
    unfinished = file.with_suffix(".part.npy")
    np.save(unfinished, array)
    unfinished.replace(file)


def reference_tensor(data: bytes, spec: InputSpec) -> NDArray[np.float32]:
    """Return an image as the model must see it.

    Args:
        data: the encoded image.
        spec: of the training run.

    Returns:
        float32, (height, width, 3), RGB, -1..1.
    """
    if spec.normalisation != "xception":
        raise ValueError(f"no reference for normalisation {spec.normalisation!r}")
    filters = {
        "bilinear": Image.Resampling.BILINEAR,
        "bicubic": Image.Resampling.BICUBIC,
        "lanczos": Image.Resampling.LANCZOS,
    }
    resized = _decode(data).resize((spec.width, spec.height), filters[spec.resize_filter])
    return (np.asarray(resized, dtype=np.float64) / 127.5 - 1.0).astype(np.float32)


def _decode(data: bytes) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):  # 16 bits: Pillow's conversion would cut, not scale
        image = Image.fromarray((np.asarray(image) // 256).astype(np.uint8))
    alpha = None
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    rgb = _to_srgb(image, profile) if profile else image.convert("RGB")
    if alpha:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)
    return rgb


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert by a profile that fits the image; any other is as good as none."""
    for mode in dict.fromkeys((image.mode, "RGB")):
        try:
            embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            srgb = ImageCms.createProfile("sRGB")
            converted = ImageCms.profileToProfile(
                image.convert(mode), embedded, srgb, outputMode="RGB"
            )
        except (ImageCms.PyCMSError, OSError):
            continue
        if converted:
            return converted
    return image.convert("RGB")


def _key(source: Source, paths: Sequence[Path]) -> str:
    digest = hashlib.sha256(source.sha256.encode())
    digest.update(repr(source.spec).encode())
    digest.update(Path(__file__).read_bytes())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
