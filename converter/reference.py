"""The reference side of the parity gate: image bytes -> tensor -> probabilities.

``lambda_function.images.decode`` is what the gate tests. A gate that called it on both sides
would not see a fault in it. So the way from bytes to tensor is written here a second time, as
plainly as possible: Pillow at the image's full size, and one formula. Size, filter and
normalisation come from the model's description, not from the artifact.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps
from tqdm import tqdm

from converter.errors import SourceError
from converter.sources.pooled_head import find_pooled_head
from converter.sources.source import Source
from lambda_function.metadata import InputSpec
from training.files import replacing

CACHE = Path(".cache") / "parity"
BATCH = 32
# The published formulas of keras.applications.imagenet_utils.preprocess_input. A test compares.
NORMALISE: dict[str, Callable[[Any], Any]] = {
    "xception": lambda levels: levels / 127.5 - 1.0,
    "tf": lambda levels: levels / 127.5 - 1.0,
    "torch": lambda levels: (levels / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "caffe": lambda levels: levels[..., ::-1] - [103.939, 116.779, 123.68],
    "0..1": lambda levels: levels / 255.0,
    "0..255": lambda levels: levels,
}


@dataclasses.dataclass(frozen=True)
class ReferenceMaps:
    """The original model's activation maps.

    Attributes:
        maps: float32, (images, height, width, classes).
        bias: float32, (classes,). A map's mean over the cells plus the bias gives the logits.
    """

    maps: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class KerasPredictions:
    """What a Keras model gives for some images.

    Attributes:
        probabilities: float32, (images, classes).
        maps: the activation maps, if the source's metadata describes them.
        pooled: float32, (images, channels), the input of the last dense layer, if asked for.
    """

    probabilities: NDArray[np.float32]
    maps: ReferenceMaps | None = None
    pooled: NDArray[np.float32] | None = None


def keras_predictions(
    source: Source, paths: Sequence[Path], *, pooled: bool = False, cache: Path = CACHE
) -> KerasPredictions:
    """Return the Keras model's probabilities, its activation maps and its pooled features.

    They are the same for every recipe. Each batch is kept on disk under the hash of the model,
    the images and this file, so an interrupted gate resumes.

    Args:
        source: the model and its description.
        paths: of the images.
        pooled: whether the pooled features are wanted. The model must have a pooled head.
        cache: folder of what was predicted before.

    Raises:
        SourceError: not a Keras model, or an image that cannot be read.
    """
    grid = source.metadata.activation_map
    with_head = pooled or grid is not None
    folder = cache / _key(source, paths, with_head=with_head)
    folder.mkdir(parents=True, exist_ok=True)
    starts = range(0, len(paths), BATCH)
    # A batch's probabilities are written last. Their file means that the batch is complete.
    missing = [start for start in starts if not (folder / f"{start}.npy").is_file()]
    head = find_pooled_head(source.load()) if with_head else None
    model: Any = head.with_features if head else source.load() if missing else None
    for start in tqdm(missing, desc="Keras", unit=f"{BATCH} images", disable=not missing or None):
        values = model.predict_on_batch(_batch(paths[start : start + BATCH], source.spec))
        if head:
            values, features, averages = values
            cells = np.asarray(features, np.float64) @ head.kernel.astype(np.float64)
            _save(folder / f"{start}.map.npy", cells.astype(np.float32))
            _save(folder / f"{start}.pooled.npy", np.asarray(averages, np.float32))
        _save(folder / f"{start}.npy", complete(np.asarray(values), source.metadata.output))

    def load(end: str) -> NDArray[np.float32]:
        return np.concatenate([np.load(folder / f"{start}{end}.npy") for start in starts])

    maps = ReferenceMaps(load(".map"), head.bias) if head and grid else None
    return KerasPredictions(load(""), maps, load(".pooled") if pooled else None)


def output_in_words(output: str) -> str:
    """Return one of ``metadata.OUTPUTS`` as people read it, such as ``logit of the second label``.

    >>> output_in_words("logit_of_second")
    'logit of the second label'
    """
    return output.replace("_of_second", " of the second label")


def complete(values: NDArray[Any], output: str) -> NDArray[np.float32]:
    """Turn a model's outputs into probabilities, in float64 inside.

    Args:
        values: (images, outputs).
        output: what they are, one of ``metadata.OUTPUTS``.

    Returns:
        float32, (images, classes).
    """
    exact = values.astype(np.float64)
    if output == "logits":
        exact = np.exp(exact - exact.max(axis=1, keepdims=True))
        exact /= exact.sum(axis=1, keepdims=True)
    elif output != "probabilities":
        second = 1 / (1 + np.exp(-exact)) if output == "logit_of_second" else exact
        exact = np.concatenate([1 - second, second], axis=1)
    return exact.astype(np.float32)


def read_tensor(path: Path, spec: InputSpec) -> NDArray[np.float32]:
    """Return ``reference_tensor`` of a file.

    Raises:
        SourceError: the file cannot be read as an image. The message names it.
    """
    try:
        return reference_tensor(path.read_bytes(), spec)
    # What Pillow raises of damaged and of huge files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise SourceError(f"the image {path} cannot be read: {error}") from error


def reference_tensor(data: bytes, spec: InputSpec) -> NDArray[np.float32]:
    """Return an image as the model must see it.

    Args:
        data: the encoded image.
        spec: of the model's description.

    Returns:
        float32, (height, width, 3), normalised as ``spec`` says.
    """
    resample = Image.Resampling[spec.resize_filter.upper()]
    resized = _decode(data).resize((spec.width, spec.height), resample)
    levels = np.asarray(resized, dtype=np.float64)
    return np.ascontiguousarray(NORMALISE[spec.normalisation](levels), dtype=np.float32)


def _batch(paths: Sequence[Path], spec: InputSpec) -> NDArray[np.float32]:
    with ThreadPoolExecutor(2) as pool:
        return np.stack(list(pool.map(lambda path: read_tensor(path, spec), paths)))


def _save(file: Path, array: NDArray[np.float32]) -> None:
    with replacing(file) as unfinished:
        np.save(unfinished, array)


def _decode(data: bytes) -> Image.Image:
    if data[4:8] == b"ftyp" and b"avi" not in data[8:64]:
        import pi_heif  # HEIC, the one format that Pillow does not read itself

        pi_heif.register_heif_opener()
    image: Image.Image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
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
    """Convert by a profile that fits the image. Ignore any other."""
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


def _key(source: Source, paths: Sequence[Path], *, with_head: bool) -> str:
    metadata = source.metadata
    digest = hashlib.sha256(metadata.source_sha256.encode())
    digest.update(repr((source.spec, metadata.output, metadata.activation_map, with_head)).encode())
    digest.update(Path(__file__).read_bytes())
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:32]
