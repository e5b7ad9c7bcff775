"""What a model says of images without a garment, and which score tells them apart.

    python -m benchmarks no-garment [MODEL] --archives FOLDER --write

Photographs, drawings and surfaces (``strangers``) and, where they are there, garments
of other kinds go through the serving path. ``rejection`` fixes the threshold of every
score on validation. A ``.tflite`` gives probabilities, and its feature distance if it measures it
(``python -m converter ... --uncertain``). A run's folder gives all other scores, and needs Keras.
Its activations are kept in .cache/no-garment/, so a second run takes seconds.
Needs the environment `benchmarks` (``make .venv/benchmarks/.ok``).
"""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from benchmarks.harness import RESULTS, command_line, origin, write_result
from benchmarks.no_garment.rejection import Activations, scores_of, summary
from benchmarks.no_garment.strangers import strangers
from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.classifier import Classifier
from lambda_function.images.decode import decode_image, preprocess
from training.data.dataset import find_dataset, load_split
from training.evaluation.loaded_model import load_model
from training.files import markdown_table, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lambda_function.metadata import InputSpec

    Run = Callable[[np.ndarray[Any, Any]], dict[str, np.ndarray[Any, Any]]]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CACHE = REPOSITORY / ".cache" / "no-garment"
OTHER_GARMENTS = REPOSITORY.parent / "shared" / "clothing-other"
BATCH = 16  # images
_GROUPS = {"photograph": "photographs", "drawing": "drawings", "surface": "surfaces"}


def main(arguments: list[str]) -> None:
    """Classify, print and keep the result."""
    parser = command_line("no-garment", __doc__)
    parser.add_argument("model", type=Path, nargs="?", default=SHIPPED_MODEL)
    parser.add_argument(
        "--archives",
        type=Path,
        required=True,
        help="pip download --no-deps --no-binary :all: of the locked pillow and pi-heif",
    )
    parser.add_argument("--dataset", type=Path, help="default: CLOTHING_DATASET or ../shared")
    parser.add_argument("--other", type=Path, default=OTHER_GARMENTS, help="garments not known")
    parser.add_argument("--write", action="store_true", help=f"into {RESULTS.name}/")
    options = parser.parse_args(arguments)
    record = origin()
    # Read before Keras is there: a HEIC's decoder and TensorFlow can block each other.
    images = strangers(options.archives)
    others = other_garments(options.other)
    model = load_model(options.model)
    look = _Look(options.model, model.sha256, model.input)
    found = look.at("strangers", [image.data for image in images])
    root = find_dataset(options.dataset)
    validation = load_split(root, "validation", model.labels)
    known = look.at("validation", validation.paths)
    trained, train = None, None
    if look.gives_features:
        train = load_split(root, "train", model.labels)
        trained = look.at("train", train.paths)
    groups = {
        title: found.subset([image.kind == kind for image in images])
        for kind, title in _GROUPS.items()
    }
    other_labels = list(others.values())
    if others:
        given = look.at("other garments", list(others))
        groups["other garments"] = given
        groups |= {
            label: given.subset([name == label for name in other_labels])
            for label in sorted(set(other_labels))
        }
    scores = scores_of(known, trained, train.labels if train else None)
    result = {
        **record,
        "model": f"{model.name} {model.version} ({model.kind})",
        "images": {
            image.name: {
                "kind": image.kind,
                "label": model.labels[int(row.argmax())],
                "score": float(row.max()),
            }
            for image, row in zip(images, found.probabilities, strict=True)
        },
        "counts": {
            "validation": len(validation),
            **{name: len(given.probabilities) for name, given in groups.items()},
        },
        "top_score": {
            name: describe(given.probabilities.max(axis=1).tolist())
            for name, given in {"validation": known, **groups}.items()
            if name not in other_labels
        },
        "scores": {name: summary(score, known, groups) for name, score in scores.items()},
    }
    print(f"{score_table(result)}\n\n{table(result)}")
    if options.write:
        write_result("no_garment" if model.kind == "tflite" else "no_garment_features", result)


def other_garments(folder: Path) -> dict[Path, str]:
    """Return the images of garments that the model does not know, with their labels.

    Args:
        folder: holds the images and ``labels.csv`` (image, label). It may be missing.
    """
    if not (folder / "labels.csv").is_file():
        return {}
    with (folder / "labels.csv").open(newline="", encoding="utf-8") as file:
        return {folder / row["image"]: row["label"] for row in csv.DictReader(file)}


def describe(scores: list[float]) -> dict[str, Any]:
    """Return the number of scores, their median, and the share below each threshold."""
    below = {str(t): float(np.mean(np.array(scores) < t)) for t in THRESHOLDS}
    return {"count": len(scores), "median": statistics.median(scores), "below": below}


def table(result: dict[str, Any]) -> str:
    """Return what ``MIN_SCORE`` would mark, as Markdown."""
    columns = result["top_score"]
    heads = [f"{name} ({scores['count']}):" for name, scores in columns.items()]
    rows = [
        [threshold, *(f"{scores['below'][threshold]:.0%} marked" for scores in columns.values())]
        for threshold in map(str, THRESHOLDS)
    ]
    medians = [f"{scores['median']:.2f}" for scores in columns.values()]
    rows.append(["median of the highest probability", *medians])
    return markdown_table(["`MIN_SCORE`", *heads], rows)


def score_table(result: dict[str, Any]) -> str:
    """Return what each score's threshold marks, as Markdown."""
    names = [f"{name} ({count}):" for name, count in result["counts"].items()]
    rows = [
        [name, *(f"{share:.0%}" for share in found["marked"].values())]
        for name, found in result["scores"].items()
    ]
    return markdown_table(["score", *names], rows)


class _Look:
    """Runs one model over images, and keeps what it gives."""

    def __init__(self, path: Path, sha256: str, spec: InputSpec) -> None:
        self.gives_features = path.is_dir()
        self._path, self._spec, self._sha256 = path, spec, sha256
        self._run: Run | None = None

    def at(self, name: str, images: Sequence[bytes | Path]) -> Activations:
        """Return the activations of images.

        Args:
            name: of the images, for the cache.
            images: encoded, or files.
        """
        file = CACHE / f"{self._sha256[:16]}-{name.replace(' ', '-')}-{len(images)}.npz"
        if not file.is_file():
            starts = tqdm(range(0, len(images), BATCH), desc=name, unit=f"{BATCH} images")
            parts = [self._batch(images[start : start + BATCH]) for start in starts]
            file.parent.mkdir(parents=True, exist_ok=True)
            with replacing(file) as unfinished, unfinished.open("wb") as output:
                whole: Any = {
                    key: np.concatenate([part[key] for part in parts]) for key in parts[0]
                }
                np.savez(output, **whole)
        return Activations(**{k: v.astype(np.float64) for k, v in np.load(file).items()})

    def _batch(self, images: Sequence[bytes | Path]) -> dict[str, np.ndarray[Any, Any]]:
        encoded = [data if isinstance(data, bytes) else data.read_bytes() for data in images]
        tensors = [preprocess(decode_image(d, target=self._spec), self._spec) for d in encoded]
        if self._run is None:
            self._run = _keras(self._path) if self.gives_features else _tflite(self._path)
        return self._run(np.concatenate(tensors))


def _tflite(path: Path) -> Run:
    classifier = Classifier(path)

    def run(images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        outputs = [classifier.predict_all(image[np.newaxis]) for image in images]
        found = {"probabilities": np.stack([each.probabilities for each in outputs])}
        if classifier.metadata.feature_distance:
            found["distances"] = np.array([each.feature_distance for each in outputs])
        return found

    return run


def _keras(folder: Path) -> Run:
    import keras  # a .tflite is scored without it

    model = keras.models.load_model(folder / "model.keras", compile=False)
    kernel = np.asarray(model.get_layer("logits").get_weights()[0])
    parts = [model.get_layer(name).input for name in ("pool", "temperature")]
    network = keras.Model(model.input, [*parts, model.output])

    def run(images: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
        features, logits, probabilities = map(np.asarray, network.predict_on_batch(images))
        return {
            "probabilities": probabilities,
            "logits": logits,
            "pooled": features.mean(axis=(1, 2)),
            "maps": features @ kernel,
        }

    return run
