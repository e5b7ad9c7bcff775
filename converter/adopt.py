"""`python -m converter adopt MODEL.tflite`: make a checked artifact the one that is served.

Artifact, parity report, example image, golden predictions, model card, the demo page's example
and the README's figures move together, all or none. Tests of the old model skip themselves by
the artifact's name. A new version of the same model keeps the examples and its own texts.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import json
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from converter.errors import AdoptionError, PublishError
from converter.publish import passed_gate
from converter.reference import output_in_words
from lambda_function import REPOSITORY, SHIPPED_MODEL, example_image, example_images
from lambda_function.classifier import Classifier
from lambda_function.errors import ServiceError
from lambda_function.images.decode import decode_image, preprocess
from lambda_function.metadata import ModelMetadata, read_metadata
from training.data.augment import encoded
from training.data.dataset import find_dataset, load_split
from training.evaluation.loaded_model import load_model
from training.evaluation.model_card import MARKS, card_without_figures
from training.files import file_name, markdown_table, replace_marked
from training.options import add_options

GOLDEN_IMAGES_PER_CLASS = 5
MEASURE = (
    ".venv/test/bin/python -m training evaluate lambda_function/model.tflite --folder photos "
    "--out runs/mine-report",
    ".venv/test/bin/python -m training card runs/mine-report/report.json --into MODEL_CARD.md",
)
EXAMPLE_WIDTH_PX = 240  # of the demo page's own copy
_PAGE_EXAMPLE = re.compile(r"// examples/[^\n]*\nconst EXAMPLE_WEBP = '[^']*';")
# As the project words it, or as an adoption before this one does.
_README_KNOWS = re.compile(r"the shipped one( knows ten kinds of clothing|, .*, knows \d+ classes)")
_README_LICENCE = re.compile(r"(?m)^MIT licence( for the code\. .*|\. The data set is CC0\.)$")
_README_SCREENSHOT = re.compile(r"(?ms)^<picture>.*?^</picture>\n\n")
_README_FIGURES = re.compile(r"(?<=^## How good it is\n).*?(?=^## )", re.DOTALL | re.MULTILINE)
_README_PREDICTION = re.compile(r"(?<=^\$ make predict\n).*?(?=^```)", re.DOTALL | re.MULTILINE)
_README_RESPONSE = re.compile(
    r"(?<=^\$ curl )[^\n]*--data-binary.*?(?=^```)", re.DOTALL | re.MULTILINE
)
_COSTS = re.compile(
    r"(?<=^<!-- costs: )(.*? -->\n).*?(?=^<!-- end of costs)", re.DOTALL | re.MULTILINE
)
_NO_COSTS = (
    "The price of a million predictions was not measured for this model. `make predict` shows its\n"
    "time, and `python -m deploy.costs --ms 300 --write` puts the price of 300 ms here.\n"
)


@dataclasses.dataclass(frozen=True)
class Checkout:
    """Where the files stand that belong to the shipped model.

    Attributes:
        root: of the checkout.
    """

    root: Path = REPOSITORY

    @property
    def model(self) -> Path:
        """The artifact."""
        return self.root / SHIPPED_MODEL.relative_to(REPOSITORY)

    @property
    def examples(self) -> Path:
        """Folder of example images."""
        return self.root / "examples"

    @property
    def golden(self) -> Path:
        """Folder of golden predictions."""
        return self.root / "tests" / "golden"

    def shown(self, path: Path) -> str:
        """Return a path below the checkout as text."""
        return path.relative_to(self.root).as_posix()


Changes = dict[Path, bytes | None]  # file -> new content, or None to remove the file


def main(arguments: list[str]) -> int:
    """Adopt one artifact."""
    parser = argparse.ArgumentParser(prog="python -m converter adopt", description=__doc__)
    parser.add_argument("model", type=Path, help="a .tflite with its .parity.json beside it")
    parser.add_argument("--example", type=Path, help="image for make predict and the demo page")
    add_options(parser, "dataset")
    parser.add_argument("--yes", action="store_true", help="replace uncommitted files unasked")
    options = parser.parse_args(arguments)
    checkout = Checkout()
    changes = plan(options.model.expanduser(), options.example, checkout, options.dataset)
    if not options.yes and not _may_replace(changes, checkout):
        print("nothing was changed", file=sys.stderr)
        return 2
    apply(changes)
    for path, content in sorted(changes.items()):
        print(f"  {'removed' if content is None else 'wrote  '} {checkout.shown(path)}")
    metadata = read_metadata(checkout.model)
    print(f"To undo: {_way_back(changes, checkout)}")
    print(f"The function serves {metadata.name} {metadata.version}.")
    print("Next: make test, make run (demo page), make deploy")
    return 0


def _way_back(changes: Changes, checkout: Checkout) -> str:
    """Return the commands that bring back what the last commit holds.

    Examples and golden predictions are named by their folders: an adoption before this one may
    have removed some of their files.
    """
    folders = (checkout.examples, checkout.golden)
    places = {path.parent if path.parent in folders else path for path in changes}
    new = [path for path, content in changes.items() if content and path.parent == folders[0]]
    commands = [["rm", "--", *map(checkout.shown, new)]] if new else []
    commands += [["git", "restore", "--", *sorted(map(checkout.shown, places))]]
    return " && ".join(map(shlex.join, commands))


def plan(
    model: Path, example: Path | None, checkout: Checkout, dataset: Path | None = None
) -> Changes:
    """Return all files that change with the shipped model. Nothing is written.

    Args:
        model: the artifact.
        example: image that stands for it. Default: the examples of the same model, or a drawing.
        checkout: to change.
        dataset: where golden predictions of a data set are recorded again. Default: of
            ``find_dataset``.

    Raises:
        AdoptionError: a file is missing, no gate has passed it, or the example cannot be read.
        MetadataError, ArtifactError: the artifact cannot be served.
        DatasetError: golden predictions of a data set exist, and the data set is not here.
        OSError: a file cannot be read.
    """
    for file in (model, example or model):
        if not file.is_file():
            raise AdoptionError(f"there is no file {file}")
    content = model.read_bytes()
    try:
        report = passed_gate(model, hashlib.sha256(content).hexdigest())
    except PublishError as error:
        raise AdoptionError(str(error)) from error
    classifier = Classifier(content)
    is_same = _name_of(checkout.model) == classifier.metadata.name and example is None
    changes: Changes = {
        checkout.model: content,
        checkout.model.with_suffix(".parity.json"): model.with_suffix(".parity.json").read_bytes(),
    }
    if is_same:
        return changes | _new_version(classifier, model, checkout, dataset)
    return changes | _new_model(classifier, model, example, report, checkout)


def apply(changes: Mapping[Path, bytes | None]) -> None:
    """Write and remove all files, or none: an error restores what was there.

    Raises:
        OSError: a file cannot be written.
    """
    before = {path: path.read_bytes() if path.is_file() else None for path in changes}
    unfinished = {
        path: path.with_name(f"unfinished-{secrets.token_hex(8)}-{path.name}") for path in changes
    }
    try:
        for path, content in changes.items():  # a full disk shows here, before anything moved
            if content is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished[path].write_bytes(content)
        try:
            for path, content in changes.items():
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    unfinished[path].replace(path)
        except BaseException:
            for path, old in before.items():
                if old is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(old)
            raise
    finally:
        for path in unfinished.values():
            path.unlink(missing_ok=True)


def probabilities(classifier: Classifier, data: bytes) -> dict[str, float]:
    """Return one image's class probabilities by label, through the serving path."""
    spec = classifier.metadata.input
    tensor = preprocess(decode_image(data, target=spec), spec)
    values = (round(float(value), 6) for value in classifier.predict(tensor))
    return dict(zip(classifier.metadata.labels, values, strict=True))


def golden(classifier: Classifier, images: Mapping[str, bytes]) -> bytes:
    """Return the golden predictions of some images as a JSON file."""
    record = {name: probabilities(classifier, data) for name, data in images.items()}
    return (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode()


def _name_of(model: Path) -> str | None:
    return read_metadata(model).name if model.is_file() else None


def _new_version(
    classifier: Classifier, model: Path, checkout: Checkout, dataset: Path | None
) -> Changes:
    """Keep examples and texts, record the predictions again, and clear the card's figures."""
    images = {path.name: path.read_bytes() for path in example_images(checkout.examples)}
    changes: Changes = {checkout.golden / "examples.json": golden(classifier, images)}
    record = checkout.golden / "dataset.json"
    if record.is_file():
        root = find_dataset(dataset)
        split = load_split(root, "validation", classifier.metadata.labels)
        first = [
            np.flatnonzero(split.labels == label)[:GOLDEN_IMAGES_PER_CLASS]
            for label in range(len(split.class_names))
        ]
        chosen = split.subset(np.concatenate(first)).paths
        changes[record] = golden(
            classifier, {path.relative_to(root).as_posix(): path.read_bytes() for path in chosen}
        )
    card = checkout.root / "MODEL_CARD.md"
    try:
        text = replace_marked(card.read_text(encoding="utf-8"), MARKS, _figures(model))
    except ValueError as error:
        raise AdoptionError(f"{checkout.shown(card)} cannot be filled: {error}") from error
    return {**changes, card: text.encode()}


def _new_model(
    classifier: Classifier,
    model: Path,
    example: Path | None,
    report: dict[str, Any],
    checkout: Checkout,
) -> Changes:
    """Replace everything that speaks of the old model."""
    name, data = _example(example)
    changes: Changes = dict.fromkeys(example_images(checkout.examples))
    changes |= {
        checkout.examples / name: data,
        checkout.golden / "examples.json": golden(classifier, {name: data}),
        checkout.root / "MODEL_CARD.md": model_card(classifier, model, report).encode(),
    }
    if (checkout.golden / "dataset.json").is_file():
        changes[checkout.golden / "dataset.json"] = None
    page = checkout.root / "lambda_function" / "http" / "page.html"
    script = f"// examples/{name}, made small.\nconst EXAMPLE_WEBP = '{_small_copy(data)}';"
    changes[page] = _PAGE_EXAMPLE.sub(lambda _: script, page.read_text(encoding="utf-8")).encode()
    shown = checkout.shown(example_image(checkout.examples))
    for path in (checkout.root / "template.yaml", checkout.root / "docs" / "deploy.md"):
        text = path.read_text(encoding="utf-8").replace(shown, f"examples/{name}")
        changes[path] = _without_costs(text).encode()
    readme = checkout.root / "README.md"
    changes[readme] = _readme(readme.read_text(encoding="utf-8"), classifier, name, data).encode()
    return changes


def _example(example: Path | None) -> tuple[str, bytes]:
    """Return the example's file name and content."""
    if example is None:
        return "drawing.png", _drawing()
    path = example.expanduser()
    data = path.read_bytes()
    try:
        decode_image(data)
    except ServiceError as error:
        raise AdoptionError(f"the example {path} cannot be used: {error}") from error
    suffix = path.suffix.lower() or ".jpg"
    return file_name(path.stem, "example") + suffix, data


def _drawing() -> bytes:
    """Draw an image for a team that gave none: waves of colour."""
    y, x = np.mgrid[0:400, 0:300] / 40.0
    waves = np.stack([np.sin(x + y), np.sin(2 * x - y), np.cos(x) * np.sin(y)], axis=-1)
    return encoded(Image.fromarray((waves * 100 + 128).astype(np.uint8)), "PNG")


def _small_copy(data: bytes) -> str:
    image = decode_image(data)
    height = max(1, round(EXAMPLE_WIDTH_PX * image.height / image.width))
    small = image.resize((EXAMPLE_WIDTH_PX, height), Image.Resampling.BOX)
    return base64.b64encode(encoded(small, "WEBP", quality=60)).decode()


def _figures(model: Path) -> str:
    return card_without_figures(load_model(model).describe()).strip()


def model_card(classifier: Classifier, model: Path, report: dict[str, Any]) -> str:
    """Return the card of a model that nobody has evaluated here, as Markdown."""
    metadata = classifier.metadata
    spec = metadata.input
    rows = [
        ["Question", metadata.title],
        ["Classes, in model order", ", ".join(metadata.labels)],
        ["Artifact", f"{model.stat().st_size / 1e6:.1f} MB, recipe `{metadata.recipe}`"],
        ["Input", f"{spec.height}x{spec.width} px, {spec.resize_filter}, {spec.normalisation}"],
        ["Output of the graph", output_in_words(metadata.output)],
        ["Training data", metadata.dataset],
        ["Licence", metadata.licence],
        ["Imported from", metadata.conversion.get("imported_from", "trained with this project")],
        ["Own description", "`python -m converter inspect`, or `GET /model`"],
    ]
    return "\n".join(
        [
            f"# Model card: {metadata.name} {metadata.version}",
            "",
            markdown_table(["", ""], rows),
            "## How good it is",
            "",
            MARKS[0],
            _figures(model),
            MARKS[1],
            "",
            "`photos` holds one folder of images per class. The second line fills this card:",
            "",
            "```console",
            *(f"$ {line}" for line in MEASURE),
            "```",
            "",
            "## What was checked",
            "",
            *_gate_sentences(metadata, report),
            "",
        ]
    )


def _gate_sentences(metadata: ModelMetadata, report: dict[str, Any]) -> list[str]:
    figures = report["figures"]
    sentences = [
        f"The parity gate compared the served predictions with the original's on "
        f"{report['images']}. The most probable label is the same for "
        f"{figures['agreement']:.1%}, and the largest difference of a probability is "
        f"{figures['largest_difference']:.5f}.",
        *(f"Note: {note}." for note in report.get("notes", ())),
    ]
    if "accuracy_served" in figures:
        served = figures["accuracy_served"]
        low, high = served["interval_95"]
        sentences.append(
            f"On the {figures['held_out_images']} labelled images of the gate, accuracy is "
            f"{served['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}). Whether training "
            "saw them is not known here."
        )
    if metadata.metrics:
        sentences.append("Figures of the training run are in the artifact's own description.")
    return sentences


def _readme(text: str, classifier: Classifier, name: str, data: bytes) -> str:
    """Put the new model's predictions in place of the old one's, and take its figures away."""
    metadata = classifier.metadata
    scores = sorted(probabilities(classifier, data).items(), key=lambda pair: -pair[1])[:3]
    lines = "".join(f"  {label:<12} {score:7.2%}\n" for label, score in scores)
    shown = f"examples/{name}\n\n{lines}  ...\n  model {metadata.name} {metadata.version}\n"
    predictions = [{"label": label, "score": score} for label, score in scores]
    model = {"name": metadata.name, "version": metadata.version}
    response = json.dumps({"predictions": predictions, "model": model}, ensure_ascii=False)
    request = f"'http://127.0.0.1:8080/predict?top_k=3' --data-binary @examples/{name}"
    figures = (
        f"\n{metadata.title} This checkout serves **{metadata.name} {metadata.version}**. Its\n"
        "accuracy is in the [model card](MODEL_CARD.md), or is not measured yet.\n\n"
        "<!-- benchmark:begin -->\nNot measured for this model.\n<!-- benchmark:end -->\n\n"
    )
    knows = f"the shipped one, {metadata.name}, knows {len(metadata.labels)} classes"
    licence = f"MIT licence for the code. The model's licence: {metadata.licence}."
    text = _README_KNOWS.sub(lambda _: knows, text)
    text = _without_costs(_README_LICENCE.sub(lambda _: licence, text))
    text = _README_SCREENSHOT.sub("", text)
    text = _README_PREDICTION.sub(lambda _: shown, text)
    text = _README_FIGURES.sub(lambda _: figures, text)
    return _README_RESPONSE.sub(lambda _: f"-sS {request}\n{response[:-1]}, ...}}\n", text)


def _without_costs(text: str) -> str:
    return _COSTS.sub(lambda block: block[1] + _NO_COSTS, text)


def _may_replace(changes: Changes, checkout: Checkout) -> bool:
    """Ask before files are replaced that no commit holds."""
    paths = [checkout.shown(path) for path in changes if path.exists()]
    command = ["git", "-C", str(checkout.root), "status", "--porcelain", "--", *paths]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        uncommitted = [line[3:] for line in done.stdout.splitlines()]
        if done.returncode:
            uncommitted = paths
    except OSError:  # no git here
        uncommitted = paths
    if not uncommitted:
        return True
    listed = ", ".join(uncommitted)
    if not (sys.stdin and sys.stdin.isatty()):
        raise AdoptionError(f"no commit holds {listed}. Commit these files, or add --yes (YES=1).")
    return input(f"No commit holds {listed}. Replace? [y/N] ").strip().lower() in ("y", "yes")
