"""Large photos: what reducing them early saves, and whether the answers stay the same.

    python -m benchmarks.large_photos --write

Time: a project-made 24-megapixel photo, bytes to tensor, the serving way (``target`` known)
against full decode plus resize, turn by turn. Bars: 0.35 for a JPEG, 0.65 for a progressive one.

Agreement: the validation photos and bicubic enlargements of them, saved as JPEG like a phone's
(quality 95, 4:2:0), each classified both ways; and every enlargement against the photo itself.
Bars: the same first class for 99 of 100, and a mean difference of 0.01 in the probabilities.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
from PIL import Image, features

from benchmarks.measure import Summary, summarise, surroundings, write_result
from lambda_function import REPOSITORY
from lambda_function.classifier import Classifier
from lambda_function.images import decode as image_module
from lambda_function.images.decode import decode_image, preprocess
from tests.support.images import encode, photo
from training.data.dataset import find_dataset, load_split
from training.errors import DatasetError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lambda_function.metadata import InputSpec

MODEL = REPOSITORY / "lambda_function" / "model.tflite"
HEIGHT, WIDTH = 4000, 6000  # 24 megapixels
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"kind": "JPEG", "quality": 95},
    "progressive JPEG": {"kind": "JPEG", "quality": 95, "progressive": True},
    "PNG": {"kind": "PNG", "compress_level": 6},
    "WebP": {"kind": "WebP", "quality": 90, "method": 0},
}
BARS = {"JPEG": 0.35, "progressive JPEG": 0.65}
MIN_AGREEMENT, MAX_DIFFERENCE = 0.99, 0.01
JPEG_OF_A_PHONE = {"kind": "JPEG", "quality": 95, "subsampling": "4:2:0"}


@dataclasses.dataclass(frozen=True)
class Timing:
    """Bytes to tensor, both ways."""

    megabytes: float
    full_s: Summary
    reduced_s: Summary
    ratio: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How nearly two ways to the probabilities agree.

    Attributes:
        images: compared.
        unchanged_tensors: share of the images whose tensors are equal, bit for bit.
        top1: share of the images with the same first class.
        mean_difference: mean absolute difference of a probability.
        max_difference: largest one.
        mean_levels: mean absolute difference of the tensors, in levels of 0..255.
    """

    images: int
    unchanged_tensors: float
    top1: float
    mean_difference: float
    max_difference: float
    mean_levels: float


def measure_times(spec: InputSpec, rounds: int) -> dict[str, Timing]:
    """Time every kind of file, the two ways in turn, the first round not counted."""
    picture = photo(HEIGHT, WIDTH)
    timings = {}
    for name, options in KINDS.items():
        data = encode(picture, **options)
        full, reduced = [], []
        for _ in range(rounds + 1):
            full.append(_seconds(lambda data=data: _tensor(data, spec, early=False)))
            reduced.append(_seconds(lambda data=data: _tensor(data, spec, early=True)))
        slow, quick = summarise(full[1:]), summarise(reduced[1:])
        timings[name] = Timing(len(data) / 1e6, slow, quick, quick.median / slow.median)
    return timings


def measure_agreement(
    classifier: Classifier, root: Path, *, scales: list[int], limit: int | None
) -> dict[str, Agreement]:
    """Compare both ways at every scale, and every scale with the photo itself."""
    spec, answers = classifier.metadata.input, _Answers(classifier)
    paths = load_split(root, "validation").paths
    step = max(1, len(paths) // limit) if limit else 1
    pairs: dict[str, list[tuple[Any, Any]]] = {}
    for path in paths[::step]:
        original = path.read_bytes()
        itself = answers(_tensor(original, spec, early=False))
        for scale, data in _enlarged(original, scales):
            full = answers(_tensor(data, spec, early=False))
            reduced = answers(_tensor(data, spec, early=True))
            pairs.setdefault(f"{scale}x: reduced early / full", []).append((reduced, full))
            pairs.setdefault(f"{scale}x / the photo itself", []).append((reduced, itself))
    return {name: _agreement(found) for name, found in pairs.items()}


class _Answers:
    """Tensors with their probabilities; equal tensors are classified once."""

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._last: dict[bytes, NDArray[np.float32]] = {}

    def __call__(self, tensor: NDArray[np.float32]) -> tuple[Any, Any]:
        key = hashlib.sha256(tensor.tobytes()).digest()
        if key not in self._last:
            self._last[key] = self._classifier.predict(tensor)
        return tensor, self._last[key]


def _enlarged(original: bytes, scales: list[int]) -> Iterator[tuple[int, bytes]]:
    picture = decode_image(original)
    for scale in scales:
        if scale == 1:
            yield 1, original
            continue
        size = (picture.width * scale, picture.height * scale)
        yield scale, encode(picture.resize(size, Image.Resampling.BICUBIC), **JPEG_OF_A_PHONE)


def _agreement(pairs: list[tuple[Any, Any]]) -> Agreement:
    differences = np.array([np.abs(one[1] - other[1]) for one, other in pairs])
    levels = [float(np.abs(one[0] - other[0]).mean()) * 127.5 for one, other in pairs]
    return Agreement(
        images=len(pairs),
        unchanged_tensors=statistics.mean(level == 0 for level in levels),
        top1=statistics.mean(bool(a[1].argmax() == b[1].argmax()) for a, b in pairs),
        mean_difference=float(differences.mean()),
        max_difference=float(differences.max()),
        mean_levels=statistics.mean(levels),
    )


def _tensor(data: bytes, spec: InputSpec, *, early: bool) -> NDArray[np.float32]:
    return preprocess(decode_image(data, target=spec if early else None), spec)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print; ``--write`` also keeps the result file."""
    arguments = _arguments()
    image_module.REDUCE_MARGIN = arguments.margin
    context, dataset = surroundings(), find_dataset(arguments.dataset)
    classifier = Classifier(arguments.model)
    spec = classifier.metadata.input
    timings = measure_times(spec, arguments.rounds) if arguments.rounds else {}
    for name, timing in timings.items():
        print(
            f"{name}, {timing.megabytes:.1f} MB: {timing.reduced_s.median:.3f} s instead of "
            f"{timing.full_s.median:.3f} s, ratio {timing.ratio:.2f} (bar {BARS.get(name, '-')})"
        )
    agreements = measure_agreement(
        classifier, dataset, scales=arguments.scales, limit=arguments.images
    )
    for name, found in agreements.items():
        print(
            f"{name}: same first class {found.top1:.4f} (bar {MIN_AGREEMENT}), mean difference "
            f"{found.mean_difference:.5f} (bar {MAX_DIFFERENCE}), largest "
            f"{found.max_difference:.3f}, n={found.images}"
        )
    if arguments.write:
        result = {
            **context,
            "versions": _versions(classifier),
            "input": dataclasses.asdict(spec),
            "reduce_margin": arguments.margin,
            "time": timings,
            "agreement": agreements,
        }
        print(f"written: {write_result('large_photos', result)}")


def _versions(classifier: Classifier) -> dict[str, str]:
    metadata = classifier.metadata
    return {
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo") or "not in use",
        "numpy": np.__version__,
        "model": f"{metadata.name} {metadata.version} {metadata.recipe}",
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.large_photos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=9, help="of timing; 0 leaves it out")
    parser.add_argument("--scales", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--images", type=int, help="about this many, evenly spread; default: all")
    parser.add_argument("--margin", type=float, default=image_module.REDUCE_MARGIN)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--dataset", type=Path, help="default: CLOTHING_DATASET or ../shared")
    parser.add_argument("--write", action="store_true", help="benchmarks/results/large_photos.json")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except DatasetError as error:
        sys.exit(str(error))
