"""`python -m training study NAME`: what a choice is worth, over several seeds.

    study size        input sizes, block 14 and head trained: accuracy against multiply-adds
    study ablation    the recipe, and the recipe with one part changed

Every variant and seed is a run of its own in ``runs/``, so an interrupted study continues. The
figures are of validation, of the best epoch, after temperature. One column scores the same images
saved as JPEG of quality 60, the variation that costs most (see ``robustness``). All seeds are
scored on the same images, so their spread is the spread of training alone, and the interval of
the images is wider. ``--folds 5`` cross-validates instead: a model that was not fitted to an image
judges it, every image once, and the interval is narrower. The judging images also choose the best
epoch and the temperature, as everywhere here. That flatters all variants alike.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

import keras
import numpy as np

from lambda_function.metadata import InputSpec
from training.config import TrainConfig, check_range, warmup_for
from training.data.dataset import find_dataset
from training.data.folds import Fold, load_parts
from training.data.imagenet import find_weights
from training.evaluation.loaded_model import load_model
from training.evaluation.metrics import wilson_interval
from training.evaluation.robustness import correct_predictions
from training.experiments.plots import cost_and_accuracy, variants_by_repeat
from training.files import markdown_table, sha256_of, write_json, write_text
from training.fit.train import train
from training.options import (
    add_dataset_option,
    add_limit_option,
    add_runs_option,
    add_weights_option,
)
from training.provenance import command, provenance, read_provenance

OUTPUT = Path("runs") / "study"
SIZES = (150, 224, 299)
# Shorter than a release's runs: three seeds of every variant take about an hour on 2 cores.
SIZE_RECIPE = TrainConfig(views=2, epochs=4)
ABLATION_RECIPE = TrainConfig(input=InputSpec(150, 150), views=4, epochs=4)
# What is changed -> the settings that change it. The first is the recipe itself.
ABLATIONS: dict[str, dict[str, Any]] = {
    "the recipe": {},
    "plain images alone": {"views": 1},
    "plain and mirrored alone": {"views": 2},
    "8 views": {"views": 8},
    "JPEG in the views": {"augmentation": "jpeg"},
    "RandAugment in the views": {"augmentation": "randaugment"},
    "no MixUp": {"mixup_alpha": 0.0},
    "CutMix instead of MixUp": {"mixup_alpha": 0.0, "cutmix_alpha": 1.0},
    "no label smoothing": {"label_smoothing": 0.0},
    "no averaged weights": {"ema_momentum": 0.0},
    "no weight decay": {"weight_decay": 0.0},
    "no dropout": {"dropout": 0.0},
}
VARIATION = "JPEG quality 60"  # one of ``robustness.VARIATIONS``


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, default=3, help="runs of each variant. Default: 3")
    parser.add_argument("--folds", type=int, default=0, help="cross-validate, instead of seeds")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=list(SIZES), help="for size, pixels"
    )
    parser.add_argument("--epochs", type=int, default=0, help="instead of the study's own")
    parser.add_argument("--precision", default="float32", help="see train. bfloat16 is faster")
    add_limit_option(parser)
    add_dataset_option(parser)
    add_weights_option(parser)
    add_runs_option(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--results", type=Path, help="write table and plot to this folder, too")


def run(parsed: argparse.Namespace) -> None:
    """Train the missing runs, and write the table and the plot."""
    check_range("seeds", parsed.seeds)
    if parsed.folds:
        Fold(0, parsed.folds)  # raises before anything is trained
    variants = STUDIES[parsed.study](parsed)
    rows = [_measure(title, config, parsed) for title, config in variants.items()]
    result = {
        "study": parsed.study,
        "command": _command(parsed),
        "repeats": f"{parsed.folds} folds" if parsed.folds else f"{parsed.seeds} seeds",
        "variants": rows,
        "trained_at": sorted({commit for row in rows for commit in row.pop("commits")}),
        "provenance": provenance(),
    }
    for folder in filter(None, (parsed.out, parsed.results)):
        base = folder / f"{parsed.study}_{'folds' if parsed.folds else 'study'}"
        write_json(base.with_suffix(".json"), result)
        write_text(base.with_suffix(".md"), table(result))
        plot = _draw(result, base.with_suffix(".png"))
    print(f"\n{table(result)}\nwrote {plot}")


def size_variants(parsed: argparse.Namespace) -> dict[str, TrainConfig]:
    """Return one configuration per input size, by title."""
    return {
        f"{size} px": _adapt(SIZE_RECIPE, parsed, input=InputSpec(size, size))
        for size in parsed.sizes
    }


def ablation_variants(parsed: argparse.Namespace) -> dict[str, TrainConfig]:
    """Return the recipe, and one configuration per changed part of it, by title."""
    return {
        title: _adapt(ABLATION_RECIPE, parsed, **changed) for title, changed in ABLATIONS.items()
    }


STUDIES = {"size": size_variants, "ablation": ablation_variants}


def table(result: dict[str, Any]) -> str:
    """Return a study's result as Markdown."""
    origin = result["provenance"]
    title = "Input size" if result["study"] == "size" else "Ablation"
    head = (
        f"# {title}: {result['repeats']} each, {result['variants'][0]['images']} images\n\n"
        f"`{result['command']}`, {origin['date']}, trained at commit "
        f"{', '.join(result['trained_at'])}, tabled at {origin['commit']}, "
        f"{origin['processor']}, {origin['cores']} cores. Means over {result['repeats']}, with "
        "ranges in brackets. The 95 % interval is that of the images (Wilson) at the mean "
        "accuracy.\n\n"
    )
    columns = ["variant", "G multiply-adds:", "accuracy:", "95 % interval:",
               "at JPEG quality 60:", "NLL:", "macro-F1:"]  # fmt: skip
    rows = [
        [
            row["title"],
            f"{row['gmacs']:.2f}",
            _spread(row["accuracy"], 4),
            "{:.3f} to {:.3f}".format(*row["interval_95"]),
            _spread(row["accuracy_jpeg_60"], 4),
            _spread(row["negative_log_likelihood"], 3),
            _spread(row["macro_f1"], 3),
        ]
        for row in result["variants"]
    ]
    return head + markdown_table(columns, rows)


def multiply_adds(model: Path) -> int:
    """Return the multiply-adds of one prediction, in convolutions and matrix products.

    Args:
        model: a ``.keras`` file with a fixed image size.
    """
    total = 0
    for layer in keras.models.load_model(model, compile=False).layers:
        places = int(np.prod(layer.output.shape[1:-1]))
        if isinstance(layer, keras.layers.SeparableConv2D):
            depthwise, pointwise = (int(np.prod(w.shape)) for w in layer.weights[:2])
            total += places * (depthwise + pointwise)
        elif isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
            total += places * int(np.prod(layer.kernel.shape))
    return total


def _command(parsed: argparse.Namespace) -> str:
    """Return the command line without the options that depend on the machine."""
    repeats = f"--folds {parsed.folds}" if parsed.folds else f"--seeds {parsed.seeds}"
    words = ["python -m training study", parsed.study, repeats]
    if parsed.study == "size":
        words.append("--sizes " + " ".join(str(size) for size in parsed.sizes))
    return command(" ".join(words), parsed, epochs=0, limit=0, precision="float32")


def _adapt(recipe: TrainConfig, parsed: argparse.Namespace, **changed: Any) -> TrainConfig:
    epochs = parsed.epochs or recipe.epochs
    return dataclasses.replace(
        recipe, epochs=epochs, warmup_epochs=warmup_for(epochs), precision=parsed.precision,
        **changed,
    )  # fmt: skip


def _measure(title: str, config: TrainConfig, parsed: argparse.Namespace) -> dict[str, Any]:
    """Train a variant with every seed or on every fold, or read the earlier runs."""
    reports, resaved, gmacs = [], [], 0.0
    for number in range(parsed.folds or parsed.seeds):
        fold = Fold(number, parsed.folds) if parsed.folds else None
        folder = _train(title, config, number, fold, parsed)
        reports.append(json.loads((folder / "report.json").read_text()))
        resaved.append(_resaved_accuracy(folder, fold, parsed))
        gmacs = gmacs or multiply_adds(folder / "model.keras") / 1e9
    scores = [report["metrics"]["validation"] for report in reports]
    correct, images = (sum(score[name] for score in scores) for name in ("correct", "images"))
    if not parsed.folds:  # the same images judge every seed
        correct, images = round(correct / parsed.seeds), scores[0]["images"]
    return {
        "title": title,
        "settings": config.to_dict(),
        "commits": [read_provenance(report)["commit"] for report in reports],
        "gmacs": round(gmacs, 3),
        "images": images,
        "interval_95": [round(edge, 4) for edge in wilson_interval(correct, images)],
        "temperature": [round(report["temperature"], 4) for report in reports],
        "seconds": [report["seconds"] for report in reports],
        "accuracy_jpeg_60": resaved,
        **{
            name: [round(score[name], 4) for score in scores]
            for name in ("accuracy", "negative_log_likelihood", "macro_f1", "brier_score")
        },
    }


def _train(
    title: str, config: TrainConfig, number: int, fold: Fold | None, parsed: argparse.Namespace
) -> Path:
    keras.utils.clear_session()  # a study builds many networks in one process
    slug = "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    repeat = f"fold{fold.index}of{fold.count}" if fold else f"seed{number}"
    name = f"{parsed.study}-{slug}-{repeat}"
    print(f"\n=== {title}, {repeat} ({name})", flush=True)
    return train(
        dataclasses.replace(config, name=name, seed=0 if fold else number),
        dataset=find_dataset(parsed.dataset),
        weights=find_weights(parsed.backbone_weights),
        runs=parsed.runs,
        limit=parsed.limit,
        fold=fold,
    )


def _resaved_accuracy(folder: Path, fold: Fold | None, parsed: argparse.Namespace) -> float:
    """Score a run on images saved as JPEG of quality 60, or read its earlier score."""
    file = folder / "jpeg_60.json"
    _, judging = load_parts(find_dataset(parsed.dataset), limit=parsed.limit, fold=fold)
    wanted = {"model_sha256": sha256_of(folder / "model.keras"), "images": len(judging.rows)}
    score = json.loads(file.read_text()) if file.is_file() else {}
    if not wanted.items() <= score.items():  # no score yet, or the score of an older model
        correct = correct_predictions(load_model(folder), judging.split, VARIATION)
        score = {"accuracy": round(float(correct.mean()), 4), **wanted}
        write_json(file, score)
    return float(score["accuracy"])


def _spread(values: list[float], digits: int) -> str:
    mean, low, high = statistics.mean(values), min(values), max(values)
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _draw(result: dict[str, Any], path: Path) -> Path:
    rows = result["variants"]
    title = f"{result['repeats']}, {rows[0]['images']} images"
    if result["study"] != "size":
        return variants_by_repeat(path, rows, title)
    points = [
        {"name": row["title"], "cost": row["gmacs"], "accuracies": row["accuracy"]} for row in rows
    ]
    return cost_and_accuracy(path, points, title)
