"""An evaluation as one HTML file: no script, nothing fetched, light and dark.

``report.html`` holds the parts of the page. Its diagrams are SVG, so a report needs no plotting
library. A report with images of the data set belongs in ``runs/``, which git ignores.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.augment import encoded
from training.data.images import read_image
from training.evaluation.overlay import overlay

GALLERY = 24  # images in one gallery
THUMBNAIL_PIXELS = 220  # of the longer side
METRICS = {
    "accuracy": ("Accuracy", ".1%"),
    "macro_f1": ("Macro-F1", ".3f"),
    "expected_calibration_error": ("Calibration error", ".3f"),
    "negative_log_likelihood": ("Log loss", ".3f"),
    "brier_score": ("Brier score", ".3f"),
}
# Of the reliability diagram in report.html, in its units.
LEFT, TOP, WIDTH, HEIGHT, COUNTS_BOTTOM, COUNTS_HEIGHT, GAP = 56, 14, 500, 300, 420, 70, 3


class Html(str):
    """Text that is HTML already, so ``fill`` does not escape it."""

    __slots__ = ()


def fill(part: str, **values: object) -> Html:
    """Return a part of report.html with its names replaced. Everything but ``Html`` is escaped."""
    safe = {k: v if isinstance(v, Html) else escape(str(v)) for k, v in values.items()}
    return Html(_parts()[part].substitute(safe))


def join(parts: Iterable[Html]) -> Html:
    """Return parts one after the other."""
    return Html("".join(parts))


# By file: the activation map of the predicted class, float, (height, width).
Maps = Mapping[str, NDArray[np.floating[Any]]]


def render(
    result: dict[str, Any], files: Mapping[str, Path], maps: Sequence[Maps] | None = None
) -> str:
    """Return the page of an evaluation.

    Args:
        result: the contents of ``report.json``, see ``evaluate.run``.
        files: name -> file that galleries may show. Without any, there is no gallery.
        maps: of each model, shown beside its mistakes. A model may have none.
    """
    models = result["models"]
    title = " against ".join(title_of(figures["model"]) for figures in models)
    body = fill(
        "report",
        title=title,
        count=result["images"]["count"],
        images=result["images"]["name"],
        classes=len(result["images"]["classes"]),
        comparison=_comparison(result, files) if result["comparison"] else "",
        models=join(
            _model(figures, result["images"]["classes"], files, seen, headed=len(models) > 1)
            for figures, seen in zip(models, maps or [{}] * len(models), strict=True)
        ),
        origin=_origin(result),
    )
    return page(title, body)


def page(title: str, body: Html) -> str:
    """Return a whole HTML page around a body."""
    return fill("page", title=title, body=body)


def gallery(title: str, note: str, figures: Sequence[Html]) -> Html:
    """Return a titled gallery of ``figure`` parts."""
    return fill("gallery", title=title, note=note, figures=join(figures))


def figure(
    path: Path,
    file: str,
    part: str,
    values: Mapping[str, object],
    class_map: NDArray[np.floating[Any]] | None = None,
) -> Html:
    """Return a thumbnail of an image with a caption.

    Args:
        path: of the image.
        file: its name as it is shown.
        part: of report.html, for the caption.
        values: of the caption.
        class_map: float, (height, width), shown over a second thumbnail beside the first one.
    """
    image = read_image(path)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    shown = {"source": _data_uri(image), "caption": fill(part, **values), "file": file}
    if class_map is None:
        return fill("image", **shown)
    return fill("image_with_map", map=_data_uri(overlay(image, class_map)), **shown)


def _data_uri(image: Image.Image) -> str:
    jpeg = encoded(image, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def title_of(model: dict[str, Any]) -> str:
    """Return a model's name, version and kind."""
    return f"{model['name']} {model['version']} ({model['kind']})"


@functools.cache
def _parts() -> dict[str, Template]:
    text = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    _, *pieces = re.split(r"<!-- part (\w+) -->\n", text)
    names, bodies = pieces[::2], pieces[1::2]
    return {name: Template(body.strip()) for name, body in zip(names, bodies, strict=True)}


def _model(
    figures: dict[str, Any],
    classes: list[str],
    files: Mapping[str, Path],
    maps: Maps,
    *,
    headed: bool,
) -> Html:
    most = max(row["images"] for row in figures["reliability"])
    return fill(
        "model",
        heading=fill("heading", title=title_of(figures["model"])) if headed else "",
        tiles=join(_tiles(figures)),
        classes=join(_class_row(row) for row in figures["per_class"]),
        columns=join(fill("column", label=name) for name in classes),
        confusion=join(
            fill(
                "matrix_row",
                label=classes[row],
                cells=join(_cell(count, sum(counts), row == i) for i, count in enumerate(counts)),
            )
            for row, counts in enumerate(figures["confusion"])
        ),
        groups=_groups(figures),
        bins=join(_bin(row, most) for row in figures["reliability"] if row["images"]),
        mistakes=_mistakes(figures["mistakes"], files, maps),
    )


def _tiles(figures: dict[str, Any]) -> Iterable[Html]:
    summary, before = figures["metrics"], figures["metrics_before_temperature"]
    low, high = summary["accuracy_interval_95"]
    ece_low, ece_high = summary["expected_calibration_error_interval_95"]
    notes = {
        "accuracy": f"{summary['correct']} of {summary['images']}, 95 % interval {low:.1%} to "
        f"{high:.1%}",
        "macro_f1": "mean over classes, each with the same weight",
        "expected_calibration_error": f"ECE, 10 bins, 95 % interval {ece_low:.3f} to "
        f"{ece_high:.3f}, ",
        "negative_log_likelihood": "NLL in nats, ",
        "brier_score": "0 is perfect, 2 the worst, ",
    }
    for key, (name, style) in METRICS.items():
        note = notes[key]
        if note.endswith(", "):
            note += f"{before[key]:.3f} before temperature" if before else "temperature 1"
        yield fill("tile", name=name, value=format(summary[key], style), note=note)


def _class_row(row: dict[str, Any]) -> Html:
    low, high = row["recall_interval_95"]
    x_low, x, x_high = (f"{6 + 388 * value:.1f}" for value in (low, row["recall"], high))
    shown = {name: f"{row[name]:.3f}" for name in ("precision", "recall", "f1")}
    return fill(
        "class_row", label=row["label"], images=row["images"], low=f"{low:.3f}",
        high=f"{high:.3f}", x_low=x_low, x=x, x_high=x_high, **shown,
    )  # fmt: skip


def _groups(figures: dict[str, Any]) -> Html:
    groups = figures["per_group"]
    if groups is None:
        return Html()
    low, high = groups["accuracy_interval_95"]
    rows = join(_group_row(row) for row in groups["rows"])
    return fill("groups", count=groups["count"], low=f"{low:.1%}", high=f"{high:.1%}", rows=rows)


def _group_row(row: dict[str, Any]) -> Html:
    low, high = row["accuracy_interval_95"]
    return fill(
        "group_row", group=row["group"], images=row["images"], correct=row["correct"],
        accuracy=f"{row['accuracy']:.3f}", low=f"{low:.3f}", high=f"{high:.3f}",
    )  # fmt: skip


def _cell(count: int, total: int, right: bool) -> Html:
    if not count:
        return fill("empty_cell")
    share = count / total
    # Mistakes are few. Their shade rises faster, so that they can be seen.
    depth = 0.15 + 0.85 * (share if right else min(1.0, share * 3))
    return fill(
        "cell",
        strength="strong" if depth > 0.55 else "",
        colour="--blue" if right else "--orange",
        depth=f"{depth:.2f}",
        share=f"{share:.1%}",
        count=count,
    )


def _bin(row: dict[str, Any], most: int) -> Html:
    x = LEFT + WIDTH * row["low"] + GAP
    count_height, height = COUNTS_HEIGHT * row["images"] / most, HEIGHT * row["accuracy"]
    low, high = row["accuracy_interval_95"]
    places = {
        "x": x,
        "middle": x + WIDTH * (row["high"] - row["low"]) / 2 - GAP,
        "count_y": COUNTS_BOTTOM - count_height,
        "count_height": count_height,
        "label_y": COUNTS_BOTTOM - count_height - 4,
        "y": TOP + HEIGHT - height,
        "height": height,
        "whisker_low": TOP + HEIGHT * (1 - low),
        "whisker_high": TOP + HEIGHT * (1 - high),
    }
    return fill("bin", images=row["images"], **{k: f"{v:.1f}" for k, v in places.items()})


def _mistakes(mistakes: list[dict[str, Any]], files: Mapping[str, Path], maps: Maps) -> Html:
    shown = [
        figure(
            files[found["file"]],
            found["file"],
            "mistake",
            {
                "predicted": found["predicted"],
                "probability": f"{found['probability']:.0%}",
                "label": found["label"],
                "label_probability": f"{found['label_probability']:.0%}",
            },
            maps.get(found["file"]),
        )
        for found in mistakes[:GALLERY]
        if found["file"] in files
    ]
    note = (
        f"{len(shown)} of {len(mistakes)}, the most confident first. Some may be wrong labels "
        "rather than wrong predictions."
    )
    if maps:
        note += " Beside each image: where the model sees the class that it predicted."
    return gallery("The worst mistakes", note, shown) if shown else Html()


def _comparison(result: dict[str, Any], files: Mapping[str, Path]) -> Html:
    comparison = result["comparison"]
    first, second = result["models"]
    counts = ("both_right", "only_first_right", "only_second_right", "both_wrong", "sentence")
    return fill(
        "comparison",
        first=title_of(first["model"]),
        second=title_of(second["model"]),
        rows=join(
            fill(
                "comparison_row",
                name=name,
                first=format(first["metrics"][key], style),
                second=format(second["metrics"][key], style),
            )
            for key, (name, style) in METRICS.items()
        ),
        disagreements=_disagreements(comparison["disagreements"], files),
        **{key: comparison[key] for key in counts},
    )


def _disagreements(disagreements: list[dict[str, Any]], files: Mapping[str, Path]) -> Html:
    shown = []
    for found in disagreements[:GALLERY]:
        file = found["first"]["file"]
        if file in files:
            values: dict[str, object] = {"label": found["first"]["label"]}
            for which in ("first", "second"):
                values[which] = found[which]["predicted"]
                values[f"{which}_probability"] = f"{found[which]['probability']:.0%}"
                values[f"{which}_class"] = "good" if found["right"] == which else "bad"
            shown.append(figure(files[file], file, "disagreement", values))
    title = "Where one is right and the other wrong"
    return gallery(title, "One of each in turn.", shown) if shown else Html()


def _origin(result: dict[str, Any]) -> Html:
    origin = result["provenance"]
    facts = {"date": origin["date"], "commit": origin["commit"]}
    for figures in result["models"]:
        model = figures["model"]
        facts[title_of(model)] = (
            f"SHA-256 {model['sha256']}, {model['size_bytes'] / 1e6:.1f} MB, input "
            f"{model['input'][0]}x{model['input'][1]}, temperature {model['temperature']:.3f}"
        )
    packages = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    facts["machine"] = f"{origin['processor']}, {origin['cores']} cores"
    facts["software"] = f"Python {origin['python']}, {packages}"
    return join(fill("fact", name=name, value=value) for name, value in facts.items())
