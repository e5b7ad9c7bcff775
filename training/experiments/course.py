"""`python -m training steps NAME`: the course's nine steps, each with a plot or a table.

Every step writes to ``runs/steps/<name>/``. Steps that train write a normal run folder there, so
``make convert MODEL=runs/steps/larger/model.keras`` turns step 8's model into an artifact, and
step 9 uses it. The figures, beside the course's, go to ``--results`` as JSON. ``steps table``
prints README's table from those files. No step reads the test set.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import InputSpec
from training.data.augment import augment
from training.data.clothing import fetch_dataset
from training.data.dataset import ENVIRONMENT_VARIABLE, FETCHED_ROOT, find_dataset, load_split
from training.data.imagenet import find_weights
from training.data.images import load_image, read_image
from training.errors import ConfigError, DatasetError, DownloadError
from training.evaluation.evaluate import evaluate
from training.evaluation.loaded_model import load_model
from training.evaluation.metrics import wilson_interval
from training.experiments.course_figures import (
    MARKS,
    NAMES,
    README,
    RESULTS,
    SEARCHES,
    STEPS,
    table,
)
from training.experiments.head_run import write_head_run
from training.experiments.heads import HeadConfig, PooledFeatures, pooled_features, train_head
from training.experiments.plots import image_grid, learning_curves
from training.experiments.searches import report, run_trials
from training.files import read_json, replace_marked, write_json, write_text
from training.options import add_options
from training.provenance import command, provenance

OUTPUT = Path("runs") / "steps"
SIZE = 150  # height and width of most steps, pixels
LARGER_SIZE = 299
IMAGENET_SIZE = 299  # of the network with ImageNet's 1000 classes
SAMPLES = 5  # images in the plot of augmented images
VIEWS = 4
POLL_S = 0.2

Guesses = list[tuple[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("step", help=f"a number, or one of {', '.join(NAMES)}, all, table")
    parser.add_argument("--image", type=Path, help="for look and use. Default: a validation image")
    parser.add_argument(
        "--model", type=Path, help="for use. Default: step 8's model, else the shipped one"
    )
    parser.add_argument("--size", type=int, default=0, help="instead of the step's own, pixels")
    parser.add_argument("--epochs", type=int, default=0, help="instead of the step's own")
    add_options(parser, "limit", "dataset", "backbone-weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUTPUT, help=f"default: {OUTPUT}")
    parser.add_argument("--results", type=Path, help="write the figures' JSON to this folder, too")
    parser.add_argument("--write", action="store_true", help="put the table into README.md")


def run(parsed: argparse.Namespace) -> None:
    """Run one step or all steps, or print the table."""
    if parsed.step == "table":
        text = table(parsed.results or RESULTS)
        print(text)
        if parsed.write:
            write_text(README, replace_marked(README.read_text(encoding="utf-8"), MARKS, text))
        return
    chosen = choose_steps(parsed.step)
    if chosen != ("look",) or not parsed.image:
        parsed.dataset = find_or_fetch_dataset(parsed.dataset)
    for name in chosen:
        number, (_, title, course) = NAMES.index(name) + 1, STEPS[NAMES.index(name)]
        print(f"\n=== step {number}: {title}")
        folder = parsed.out / name
        result = FUNCTIONS[name](parsed, folder)
        described = {
            "step": number,
            "title": title,
            "command": command(
                f"python -m training steps {name}", parsed, size=0, epochs=0, limit=0, seed=0
            ),
            "course": course,
            "provenance": provenance(),
            **result,
        }
        write_json(folder / "result.json", described)
        if parsed.results:
            write_json(parsed.results / f"{name}.json", described)


def choose_steps(wanted: str) -> tuple[str, ...]:
    """Return the names of the steps that a name, a number or ``all`` means."""
    if wanted == "all":
        return NAMES
    numbers = {str(number): name for number, name in enumerate(NAMES, 1)}
    name = numbers.get(wanted, wanted)
    if name not in NAMES:
        raise ConfigError(
            f"a step is a number from 1 to {len(NAMES)} or one of {', '.join(NAMES)}. "
            f"Received: {wanted!r}"
        )
    return (name,)


def find_or_fetch_dataset(
    named: Path | None,
    *,
    find: Callable[[Path | None], Path] = find_dataset,
    fetch: Callable[[Path], Path] = fetch_dataset,
) -> Path:
    """Return the data set. Fetch the course's if nobody named one and there is none.

    Raises:
        DatasetError: the named folder is missing, or nothing could be fetched. The message names
            the next command.
    """
    try:
        return find(named)
    except DatasetError:
        if named or os.environ.get(ENVIRONMENT_VARIABLE):
            raise
    print(f"fetching the course's data set to {FETCHED_ROOT} (once)")
    try:
        return fetch(FETCHED_ROOT)
    except DownloadError as error:
        raise DatasetError(
            f"{error} Run `make data` with a network, or name a copy of clothing-dataset-small: "
            "`make steps DATASET=folder`."
        ) from error


def look(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 1: an image as an array, and what ImageNet's classes say about it."""
    path = _image(parsed)
    image, size = read_image(path), parsed.size or IMAGENET_SIZE
    pixels, tensor = np.asarray(image), load_image(path, InputSpec(size, size))
    first = [round(float(value), 3) for value in tensor[0, 0]]
    print(
        f"{path.parent.name}/{path.name}: {pixels.shape} {pixels.dtype}, the first pixel RGB "
        f"{pixels[0, 0].tolist()}\nthe model's input: {tensor.shape} {tensor.dtype}, "
        f"{tensor.min():.2f} to {tensor.max():.2f}, the first pixel {first}"
    )
    channels = [image.getchannel(i).convert("RGB") for i in range(3)]
    rows = {"image and channels": [image, *channels]}
    print(f"wrote {image_grid(folder / 'image.png', rows, 'image, red, green, blue')}")
    guesses, skipped = classify_imagenet(tensor)
    for name, probability in guesses:
        print(f"  ImageNet: {name} {probability:.3f}")
    if skipped:
        print(f"ImageNet classification skipped: {skipped}")
    return {
        "array": list(pixels.shape),
        "ours": "array and plot" + (f"; {guesses[0][0]}" if guesses else ""),
        "note": skipped,
    }


def classify_imagenet(tensor: NDArray[np.float32]) -> tuple[Guesses, str | None]:
    """Return ImageNet's five best classes, or why there are none and what to do.

    Args:
        tensor: float32, (299, 299, 3), RGB, -1..1.
    """
    if tensor.shape != (IMAGENET_SIZE, IMAGENET_SIZE, 3):
        return [], f"ImageNet's Xception takes {IMAGENET_SIZE} px"
    xception = keras.applications.xception
    try:
        model = xception.Xception(weights="imagenet")
        output = np.asarray(model.predict_on_batch(tensor[np.newaxis]))
        decoded = xception.decode_predictions(output, top=5)[0]
    except Exception as error:  # Keras raises no other class for a failed download
        return [], (
            f"the network with 1000 classes cannot be fetched ({error}). Where there is a "
            "network, `make steps STEP=look` fetches it (92 MB) to ~/.keras/models. Copy that "
            "folder here, or go on with `make steps STEP=transfer`, which does not need it"
        )
    return [(name, float(value)) for _, name, value in decoded], None


def transfer(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 2: frozen base, average pooling, dense layer, at 150 px."""
    config = HeadConfig(learning_rate=1e-2, epochs=parsed.epochs or 10, seed=parsed.seed)
    features = _features(parsed, SIZE)
    return _train_head(parsed, folder, features, config, f"Frozen base, {features.size[0]} px")


def search(name: str) -> Callable[[argparse.Namespace, Path], dict[str, Any]]:
    """Return step 3, 5 or 6: the trials of a search, the best one as a run folder."""

    def step(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
        changed = {"seed": parsed.seed} | ({"epochs": parsed.epochs} if parsed.epochs else {})
        trials = [HeadConfig(**{**settings, **changed}) for settings in SEARCHES[name].trials]
        features = _features(parsed, SIZE)
        rows = run_trials(features, trials, folder.parent)
        best = max(rows, key=lambda row: max(row["history"]["val_accuracy"]))
        config = HeadConfig(**best["config"])
        head, history = train_head(features, config, keep_best=True)
        write_head_run(folder, features, config, head, history, **_sources(parsed))
        return report(SEARCHES[name], rows, features, folder)

    return step


def checkpoint(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 4: keep the best epoch. Kill the training and resume it."""
    epochs = parsed.epochs or 8
    if (folder / "model.keras").is_file():
        return _earlier_result(folder)
    if epochs < 2:
        raise ConfigError(f"a training killed between epochs has 2 or more. Received: {epochs}")
    options = {
        "name": folder.name,
        "runs": folder.parent,
        "size": parsed.size or SIZE,
        "views": 1,
        "epochs": epochs,
        "limit": parsed.limit,
        "seed": parsed.seed,
        "dataset": parsed.dataset,
        "backbone-weights": parsed.backbone_weights,
    }
    words = [f"--{name}={value}" for name, value in options.items() if value is not None]
    train = [sys.executable, "-m", "training", "train", *words]
    killed_after = kill_after_epochs(train, folder / "history.csv", min(3, epochs - 1))
    if killed_after >= epochs:
        raise ConfigError(
            f"all {epochs} epochs were done before the training could be killed: remove {folder} "
            "and see this step again, with more --epochs"
        )
    print(f"killed after epoch {killed_after}; starting the same command again", flush=True)
    if subprocess.run(train, check=False).returncode:
        raise ConfigError("the resumed training failed; its own message, above, says why")
    rows = [line.split(",") for line in (folder / "history.csv").read_text().splitlines()[1:]]
    resumed_with = int(rows[killed_after][0]) + 1
    (kept,) = (file.name for file in (folder / "checkpoints").glob("*.keras"))
    print(f"Killed after epoch {killed_after}, resumed with epoch {resumed_with}. Kept: {kept}")
    return {
        "killed_after_epoch": killed_after,
        "resumed_with_epoch": resumed_with,
        "checkpoint": kept,
        "ours": f"killed after epoch {killed_after}, resumed with {resumed_with}; best epoch kept",
    }


def kill_after_epochs(train: list[str], history: Path, epochs: int) -> int:
    """Start a training and kill it when so many epochs are done.

    Args:
        train: its command line.
        history: the run's ``history.csv``, one line per epoch.
        epochs: to wait for.

    Returns:
        How many epochs are done.

    Raises:
        ConfigError: the training ended before that.
    """

    def done() -> int:
        return len(history.read_text().splitlines()) - 1 if history.is_file() else 0

    process = subprocess.Popen(train, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        while process.poll() is None and done() < epochs:
            time.sleep(POLL_S)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    if done() < epochs:
        raise ConfigError(
            "the training ended before it could be killed; its own message, above, says why"
        )
    return done()


def augmentation(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 7: augmented training images, plain validation images, and a plot of both."""
    split = load_split(parsed.dataset, "train").subsample(parsed.limit)
    chosen = np.linspace(0, len(split) - 1, SAMPLES).astype(int)
    samples = {
        f"view {view}": [
            augment(read_image(split.paths[i]), view=view, index=int(i), seed=parsed.seed)
            for i in chosen
        ]
        for view in range(VIEWS)
    }
    print(f"wrote {image_grid(folder / 'samples.png', samples, 'augmented training images')}")
    features = _features(parsed, SIZE, views=VIEWS)
    config = HeadConfig(inner_units=100, dropout=0.2, epochs=parsed.epochs or 40, seed=parsed.seed)
    plain = dataclasses.replace(features, training=features.training[:1])
    _, plain_history = train_head(plain, config)
    result = _train_head(parsed, folder, features, config, f"{VIEWS} views")
    histories = {"plain images": plain_history, f"{VIEWS} views": result["history"]}
    learning_curves(folder / "curves.png", histories, f"Augmentation, {features.size[0]} px")
    best = {name: max(history["val_accuracy"]) for name, history in histories.items()}
    ours = ", ".join(f"{name} {value:.3f}" for name, value in best.items())
    return {**result, "best_validation_accuracy": best, "ours": f"{ours} (validation)"}


def larger(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 8: the course's final recipe at 299 px. The best epoch becomes ``model.keras``."""
    config = HeadConfig(
        learning_rate=5e-4,
        inner_units=100,
        dropout=0.2,
        epochs=parsed.epochs or 50,
        seed=parsed.seed,
    )
    features = _features(parsed, LARGER_SIZE)
    title = f"The larger model, {features.size[0]} px"
    result = _train_head(parsed, folder, features, config, title)
    print(
        f"next: `make convert MODEL={folder}/model.keras RECIPE=float32` writes "
        f"{folder}/model.tflite, the file that Lambda serves; then `make steps STEP=use`"
    )
    return result


def use(parsed: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Step 9: load the model, score it on validation, classify one image."""
    file = parsed.model or find_trained_model(folder.parent)
    model = load_model(file)
    print(f"the model is {file}")
    split = load_split(parsed.dataset, "validation").subsample(parsed.limit)
    summary = evaluate(model, split).to_dict()["metrics"]
    low, high = summary["accuracy_interval_95"]
    print(
        f"validation accuracy {summary['accuracy']:.4f} ({summary['correct']} of "
        f"{summary['images']}, 95 % interval {low:.4f} to {high:.4f})"
    )
    path = _image(parsed)
    probabilities = model.predict_proba(load_image(path, model.input)[np.newaxis])[0]
    ranked = sorted(zip(model.labels, probabilities.tolist(), strict=True), key=lambda r: -r[1])
    print(f"\n{path.parent.name}/{path.name}:")
    for label, probability in ranked:
        print(f"  {label:<12}{probability:.4f}")
    write_json(folder / "prediction.json", dict(ranked))
    return {
        "model": model.describe(),
        "metrics": summary,
        "prediction": ranked[0][0],
        "ours": f"an image of {path.parent.name}: {ranked[0][0]} {ranked[0][1]:.2f}; "
        f"{summary['accuracy']:.3f} (validation)",
    }


def find_trained_model(out: Path) -> Path:
    """Return the newest model of step 8, or the shipped model before that step has run."""
    made = [out / "larger" / name for name in ("model.keras", "model.tflite")]
    return max(
        (file for file in made if file.is_file()),
        key=lambda file: file.stat().st_mtime,
        default=SHIPPED_MODEL,
    )


FUNCTIONS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "look": look,
    "transfer": transfer,
    **{name: search(name) for name in SEARCHES},
    "checkpoint": checkpoint,
    "augmentation": augmentation,
    "larger": larger,
    "use": use,
}


def _image(parsed: argparse.Namespace) -> Path:
    if parsed.image:
        if not parsed.image.is_file():
            raise DatasetError(f"no image at {parsed.image}")
        return Path(parsed.image)
    split = load_split(parsed.dataset, "validation")
    wanted = "pants" if "pants" in split.class_names else split.class_names[0]
    return split.paths[int(np.flatnonzero(split.labels == split.class_names.index(wanted))[0])]


def _features(parsed: argparse.Namespace, size: int, views: int = 1) -> PooledFeatures:
    size = parsed.size or size
    return pooled_features(
        parsed.dataset,
        InputSpec(size, size),
        weights=find_weights(parsed.backbone_weights),
        views=views,
        limit=parsed.limit,
        seed=parsed.seed,
    )


def _train_head(
    parsed: argparse.Namespace,
    folder: Path,
    features: PooledFeatures,
    config: HeadConfig,
    title: str,
) -> dict[str, Any]:
    """Train a head, write its run folder and learning curves, and return the figures."""
    with tqdm(total=config.epochs, desc=title, unit="epoch", disable=None) as bar:
        head, history = train_head(features, config, keep_best=True, on_epoch_end=bar.update)
    file = write_head_run(folder, features, config, head, history, **_sources(parsed))
    best = max(history["val_accuracy"])
    images = len(features.validation_labels)
    low, high = wilson_interval(round(best * images), images)
    plot = learning_curves(folder / "curves.png", {"head": history}, title)
    print(
        f"best validation accuracy {best:.4f} ({low:.4f} to {high:.4f}, {images} images), epoch "
        f"{history['val_accuracy'].index(best) + 1} of {config.epochs}; wrote {file} and {plot}"
    )
    return {
        "config": dataclasses.asdict(config),
        "size": list(features.size),
        "best_validation_accuracy": best,
        "interval_95": [low, high],
        "validation_images": images,
        "history": history,
        "ours": f"{best:.3f} (validation)",
    }


def _sources(parsed: argparse.Namespace) -> dict[str, Any]:
    return {"weights": find_weights(parsed.backbone_weights), "dataset": parsed.dataset}


def _earlier_result(folder: Path) -> dict[str, Any]:
    """Return step 4's figures of an earlier call. A finished training cannot be killed."""
    result = folder / "result.json"
    if not result.is_file():
        raise ConfigError(f"{folder} is finished; remove it to see this step again")
    print(f"{folder} is finished, so nothing was killed; remove it to see this step again")
    earlier: dict[str, Any] = read_json(result)  # with its own date and commit
    return earlier
