"""`python -m training steps NAME`: the course's nine steps, each a command with a plot or table.

Every step writes to ``runs/steps/<name>/``, and its figures, beside the course's, as JSON to
``--results``; ``steps table`` prints README's table from those files. Nothing here reads test:
``use`` scores on validation, and `python -m training evaluate --split test` is for releases.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from lambda_function import REPOSITORY, SHIPPED_MODEL
from lambda_function.images.decode import preprocess
from lambda_function.metadata import InputSpec
from training.data.augment import augment
from training.data.dataset import find_dataset, load_split
from training.data.images import load_image, read_image
from training.errors import ConfigError, DatasetError
from training.evaluation.metrics import wilson_interval
from training.files import replace_marked, replacing, write_json, write_text
from training.options import add_dataset_option, add_limit_option, add_weights_option
from training.provenance import command, provenance

OUTPUT = Path("runs") / "steps"
RESULTS = REPOSITORY / "benchmarks" / "results" / "course"
README = REPOSITORY / "README.md"
MARKS = ("<!-- course:begin -->", "<!-- course:end -->")
KERAS_CACHE = Path.home() / ".keras" / "models"
IMAGENET_FILES = (
    "xception_weights_tf_dim_ordering_tf_kernels.h5",
    "imagenet_class_index.json",
)

# What the course publishes for the steps that `tune` does not cover (see course_figures.py).
COURSE_FIGURES = {
    "look": "no figure",
    "transfer": "0.82 to 0.85 (validation)",
    "checkpoint": "no figure",
    "augmentation": "no figure",
    "larger": "0.8978 notebook, 0.9032 book (test)",
    "use": "no figure",
}


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of the course: its number and name there, and what does it here."""

    number: int
    name: str
    title: str
    run: Callable[[argparse.Namespace, Path], dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    names = [step.name for step in STEPS]
    parser.add_argument("step", help=f"a number, or one of {', '.join(names)}, all, table")
    parser.add_argument("--image", type=Path, help="for look and use; default: a validation image")
    parser.add_argument("--model", type=Path, default=SHIPPED_MODEL, help="for use; default: ours")
    parser.add_argument("--size", type=int, default=0, help="instead of the step's own, pixels")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the step's own")
    add_limit_option(parser)
    parser.add_argument("--seed", type=int, default=0)
    add_dataset_option(parser)
    add_weights_option(parser)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--results", type=Path, help="also write the figures' JSON to this folder")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")


def run(parsed: argparse.Namespace) -> None:
    """Run one step, or all, or print the table."""
    if parsed.step == "table":
        text = table(parsed.results or RESULTS)
        print(text)
        if parsed.write:
            write_text(README, replace_marked(README.read_text(), MARKS, text))
        return
    for step in _chosen(parsed.step):
        print(f"\n=== step {step.number}: {step.title}")
        folder = parsed.out / step.name
        found = step.run(parsed, folder)
        written = {
            "step": step.number,
            "title": step.title,
            "command": command(
                f"python -m training steps {step.name}", parsed, size=0, epochs=0, limit=0, seed=0
            ),
            "course": COURSE_FIGURES.get(step.name),
            "provenance": provenance(),
            **found,
        }
        if step.name not in _SEARCHES:  # tune writes its own
            write_json(folder / "result.json", written)
            if parsed.results:
                write_json(parsed.results / f"{step.name}.json", written)


def table(results: Path) -> str:
    """Return 'Follow the course' as Markdown, from the figures that have been measured.

    Args:
        results: folder of the steps' figures. Figures on test are not these steps' to make: they
            are read from ``accuracy.json`` beside it (``python -m benchmarks.accuracy``).
    """
    on_test = _figures_on_test(results.parent / "accuracy.json")
    lines = [
        "| step | command | course | ours |",
        "| --- | --- | --- | --- |",
    ]
    for step in STEPS:
        file = results / f"{step.name}.json"
        found = json.loads(file.read_text()) if file.is_file() else None
        command = f"`python -m training steps {step.name}`"
        lines.append(
            f"| {step.number}. {step.title} | {command} | {_course_cell(step, found)} | "
            f"{_our_cell(found)}{on_test.get(step.name, '')} |"
        )
    return "\n".join(lines)


# --- the steps ---------------------------------------------------------------


def look(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 1: an image as an array, and what ImageNet's classes say about it."""
    path = _image(parsed)
    image = read_image(path)
    pixels = np.asarray(image)
    spec = InputSpec(parsed.size or 299, parsed.size or 299)
    tensor = preprocess(image, spec)
    first = [round(float(value), 3) for value in tensor[0, 0, 0]]
    print(
        f"{path.parent.name}/{path.name}: {pixels.shape} {pixels.dtype}, the first pixel RGB "
        f"{pixels[0, 0].tolist()}\nthe model's input: {tensor.shape} {tensor.dtype}, "
        f"{tensor.min():.2f} to {tensor.max():.2f}, the first pixel {first}"
    )
    from training.experiments.plots import picture_grid

    channels = [image.getchannel(i).convert("RGB") for i in range(3)]
    plot = picture_grid(
        folder / "image.png", {"image and channels": [image, *channels]}, "image, red, green, blue"
    )
    print(f"wrote {plot}")
    guesses, skipped = _imagenet_guesses(tensor)
    for name, probability in guesses:
        print(f"  ImageNet: {name} {probability:.3f}")
    if skipped:
        print(f"ImageNet classification skipped: {skipped}")
    return {
        "array": list(pixels.shape),
        "ours": "array and plot" + (f"; {guesses[0][0]}" if guesses else ""),
        "note": skipped,
    }


def transfer(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 2: frozen base, average pooling, dense layer, at 150 px."""
    from training.fit.heads import HeadConfig

    config = HeadConfig(learning_rate=1e-2, epochs=parsed.epochs or 10, seed=parsed.seed)
    size = parsed.size or 150
    return _train_head(parsed, folder, config, size, f"Frozen base, {size} px")


def search(name: str) -> Callable[[argparse.Namespace, Path], dict[str, Any]]:
    """Return steps 3, 5 and 6: ``tune`` under the course's numbers."""

    def step(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
        from training.experiments import tune

        options = argparse.Namespace(
            **{**vars(parsed), "searches": [name], "grid": None, "out": folder.parent / "tune"}
        )
        options.size = parsed.size or 150
        tune.run(options)
        return {}

    return step


def checkpoint(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 4: keep the best epoch; kill the training and go on with it."""
    size, epochs = parsed.size or 150, parsed.epochs or 8
    name = f"step4-{size}px"
    command = [sys.executable, "-m", "training", "train", f"--name={name}", f"--size={size}",
               "--views=1", f"--epochs={epochs}", f"--limit={parsed.limit}",
               f"--seed={parsed.seed}"]  # fmt: skip
    sources = {"dataset": parsed.dataset, "backbone-weights": parsed.backbone_weights}
    command += [f"--{option}={value}" for option, value in sources.items() if value]
    history = Path("runs") / name / "history.csv"
    if (history.parent / "model.keras").is_file():
        return _seen_before(folder / "result.json", history.parent)
    if epochs < 2:
        raise ConfigError(f"a training killed between epochs has 2 or more. Received: {epochs}")
    killed_after = _kill_after_epochs(command, history, min(3, epochs - 1))
    if killed_after >= epochs:
        raise ConfigError(
            f"all {epochs} epochs were done before the training could be killed: remove "
            f"{history.parent} and see this step again, with more --epochs"
        )
    print(f"killed after epoch {killed_after}; starting the same command again", flush=True)
    if subprocess.run(command, check=False).returncode:
        raise ConfigError("the training that went on failed; its own message, above, says why")
    rows = [line.split(",") for line in history.read_text().splitlines()[1:]]
    resumed_at = int(rows[killed_after][0]) + 1
    kept = sorted(file.name for file in (history.parent / "checkpoints").glob("*.keras"))
    text = (
        f"Killed after epoch {killed_after}, went on with epoch {resumed_at}.\n"
        + "".join(f"- {name}\n" for name in kept)
    )  # fmt: skip
    print(text)
    write_text(folder / "checkpoints.md", text)
    return {
        "killed_after_epoch": killed_after,
        "resumed_with_epoch": resumed_at,
        "checkpoints": kept,
        "ours": f"killed after epoch {killed_after}, resumed with {resumed_at}; best epoch kept",
    }


def _seen_before(result: Path, finished: Path) -> dict[str, Any]:
    """Return step 4's figures of an earlier call: a finished training cannot be killed."""
    if not result.is_file():
        raise ConfigError(f"{finished} is finished; remove it to see this step again")
    print(f"{finished} is finished, so nothing was killed; remove it to see this step again")
    found: dict[str, Any] = json.loads(result.read_text())  # with the date and commit of then
    return found


def augmentation(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 7: augmented training images, plain validation; with a picture of them."""
    from training.data.imagenet import find_weights
    from training.experiments.plots import learning_curves, picture_grid
    from training.fit.heads import HeadConfig, pooled_features, train_head

    split = load_split(find_dataset(parsed.dataset), "train").subsample(parsed.limit)
    chosen = np.linspace(0, len(split) - 1, 5).astype(int)
    rows = {
        f"view {view}": [
            augment(read_image(split.paths[i]), view=view, index=int(i),
                    seed=parsed.seed)
            for i in chosen
        ]
        for view in range(4)
    }  # fmt: skip
    print(f"wrote {picture_grid(folder / 'samples.png', rows, 'augmented training images')}")
    size = parsed.size or 150
    features = pooled_features(
        find_dataset(parsed.dataset),
        InputSpec(size, size),
        weights=find_weights(parsed.backbone_weights),
        views=4,
        limit=parsed.limit,
        seed=parsed.seed,
    )
    config = HeadConfig(
        inner_units=100, dropout=0.2, epochs=parsed.epochs or 40, seed=parsed.seed
    )  # fmt: skip
    plain = dataclasses.replace(features, training=features.training[:1])
    histories = {
        "plain images": train_head(plain, config)[1],
        "4 views": train_head(features, config)[1],
    }
    learning_curves(folder / "curves.png", histories, f"Augmentation, {size} px")
    best = {name: max(history["val_accuracy"]) for name, history in histories.items()}
    print(best)
    images = len(features.validation_labels)
    return {
        "best_validation_accuracy": best,
        "validation_images": images,
        "frozen_blocks": features.block,
        "ours": ", ".join(f"{name} {value:.3f}" for name, value in best.items()) + " (validation)",
    }


def larger(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 8: the course's final recipe at 299 px; the best epoch is kept as ``model.keras``."""
    from training.fit.heads import HeadConfig

    config = HeadConfig(
        learning_rate=5e-4, inner_units=100, dropout=0.2, epochs=parsed.epochs or 50,
        seed=parsed.seed,
    )  # fmt: skip
    size = parsed.size or 299
    return _train_head(parsed, folder, config, size, f"The larger model, {size} px", save=True)


def use(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 9: load the model, score it on validation, classify one image."""
    from training.evaluation.evaluate import evaluate, to_text
    from training.evaluation.loaded_model import load_scorer

    scorer = load_scorer(parsed.model)
    split = load_split(find_dataset(parsed.dataset), "validation").subsample(parsed.limit)
    figures = evaluate(scorer, split).to_dict()
    print(to_text(figures))
    path = _image(parsed)
    probabilities = scorer.answer(load_image(path, scorer.input)[np.newaxis])[0]
    ranked = sorted(zip(scorer.labels, probabilities.tolist(), strict=True), key=lambda r: -r[1])
    print(f"\n{path.parent.name}/{path.name}:")
    for label, probability in ranked:
        print(f"  {label:<12}{probability:.4f}")
    write_json(folder / "prediction.json", dict(ranked))
    accuracy = figures["metrics"]["accuracy"]
    return {
        "model": scorer.describe(),
        "metrics": figures["metrics"],
        "prediction": ranked[0][0],
        "ours": f"a picture of {path.parent.name}: {ranked[0][0]} {ranked[0][1]:.2f}; "
        f"{accuracy:.3f} (validation)",
    }


_SEARCHES = ("learning-rate", "inner", "dropout")
STEPS = (
    Step(1, "look", "Load an image, look at it as an array", look),
    Step(2, "transfer", "Transfer learning at 150 px", transfer),
    Step(3, "learning-rate", "Learning rate", search("learning-rate")),
    Step(4, "checkpoint", "Checkpointing and resuming", checkpoint),
    Step(5, "inner", "Inner layer size", search("inner")),
    Step(6, "dropout", "Dropout", search("dropout")),
    Step(7, "augmentation", "Data augmentation", augmentation),
    Step(8, "larger", "The larger model, 299 px", larger),
    Step(9, "use", "Using the model", use),
)


def _chosen(wanted: str) -> list[Step]:
    if wanted == "all":
        return list(STEPS)
    chosen = [step for step in STEPS if wanted in (step.name, str(step.number))]
    if not chosen:
        names = [step.name for step in STEPS]
        raise ConfigError(f"a step is a number from 1 to 9 or one of {names}. Received: {wanted!r}")
    return chosen


def _image(parsed: argparse.Namespace) -> Path:
    if parsed.image:
        if not parsed.image.is_file():
            raise DatasetError(f"no image at {parsed.image}")
        return Path(parsed.image)
    split = load_split(find_dataset(parsed.dataset), "validation")
    wanted = "pants" if "pants" in split.class_names else split.class_names[0]
    return split.paths[int(np.flatnonzero(split.labels == split.class_names.index(wanted))[0])]


def _imagenet_guesses(tensor: Any) -> tuple[list[tuple[str, float]], str | None]:
    """Return ImageNet's five best classes, or why there are none."""
    missing = [name for name in IMAGENET_FILES if not (KERAS_CACHE / name).is_file()]
    if missing:
        return [], (
            f"{' and '.join(missing)} not in ~/.keras/models; with a network, "
            '`keras.applications.Xception(weights="imagenet")` fetches them'
        )
    if tensor.shape[1:3] != (299, 299):
        return [], "ImageNet's Xception takes 299 px"
    from keras.applications.xception import Xception, decode_predictions

    answers = np.asarray(Xception(weights="imagenet").predict_on_batch(tensor))
    return [(name, float(value)) for _, name, value in decode_predictions(answers, top=5)[0]], None


def _train_head(
    parsed: argparse.Namespace,
    folder: Path,
    config: Any,
    size: int,
    title: str,
    *,
    save: bool = False,
) -> dict[str, Any]:
    from tqdm import tqdm

    from training.data.imagenet import find_weights
    from training.experiments.plots import learning_curves
    from training.fit.heads import frozen_base, pooled_features, train_head, whole_model

    spec, weights = InputSpec(size, size), find_weights(parsed.backbone_weights)
    features = pooled_features(
        find_dataset(parsed.dataset),
        spec,
        weights=weights,
        limit=parsed.limit,
        seed=parsed.seed,
    )
    with tqdm(total=config.epochs, desc=title, unit="epoch") as bar:
        head, history = train_head(
            features, config, keep_best=True, on_epoch_end=lambda: bar.update(1)
        )
    if save:
        with replacing(folder / "model.keras") as unfinished:
            whole_model(frozen_base(spec, weights)[0], head).save(unfinished)
        print(f"wrote {folder / 'model.keras'}")
    best = max(history["val_accuracy"])
    images = len(features.validation_labels)
    low, high = wilson_interval(round(best * images), images)
    plot = learning_curves(folder / "curves.png", {"head": history}, title)
    print(
        f"best validation accuracy {best:.4f} ({low:.4f} to {high:.4f}, {images} images), epoch "
        f"{history['val_accuracy'].index(best) + 1} of {config.epochs}; blocks 1-{features.block} "
        f"frozen; wrote {plot}"
    )
    return {
        "config": dataclasses.asdict(config),
        "size": list(features.size),
        "frozen_blocks": features.block,
        "best_validation_accuracy": best,
        "interval_95": [low, high],
        "validation_images": images,
        "history": history,
        "ours": f"{best:.3f} (validation)",
    }


def _kill_after_epochs(command: list[str], history: Path, epochs: int) -> int:
    """Start a training, kill it when so many epochs are written; return how many are."""
    process = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        while process.poll() is None:
            lines = history.read_text().splitlines() if history.is_file() else []
            if len(lines) - 1 >= epochs:
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.2)
    finally:
        process.kill()
        process.wait()
    done = len(history.read_text().splitlines()) - 1 if history.is_file() else 0
    if done < epochs:
        raise ConfigError(
            "the training ended before it could be killed; its own message, above, says why"
        )
    return done


def _figures_on_test(file: Path) -> dict[str, str]:
    """Return what to add to a step's cell: the course's recipe, trained by us, and our release."""
    if not file.is_file():
        return {}
    peers = json.loads(file.read_text())["handlers"]
    named = {"larger": peers.get("course"), "use": peers.get("ours")}
    return {name: f", {found['accuracy']:.4f} (test)" for name, found in named.items() if found}


def _course_cell(step: Step, found: dict[str, Any] | None) -> str:
    course = found.get("course") if found else COURSE_FIGURES.get(step.name)
    if isinstance(course, dict):
        return ", ".join(f"{key}: {value:.3f}" for key, value in course.items())
    return course or ""


def _our_cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not measured yet"
    if isinstance(found["ours"], dict):
        return ", ".join(f"{key}: {value:.3f}" for key, value in found["ours"].items())
    return str(found["ours"])
