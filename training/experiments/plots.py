"""Plots of training, by Matplotlib. Every function writes one PNG and returns its path.

The colours are Okabe and Ito's. Colour-blind readers can tell them apart
(jfly.uni-koeln.de/color).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from PIL import Image

from training.files import replacing

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#666666", "#B8A800")
SIDE = 150  # of an image in a grid, in pixels
_STYLE = {
    "figure.dpi": 130,
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.edgecolor": "#888888",
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "legend.frameon": False,
    "axes.axisbelow": True,
}


def learning_curves(
    path: Path, histories: Mapping[str, Mapping[str, Sequence[float]]], title: str
) -> Path:
    """Draw the accuracy of every epoch: validation solid, training dotted, a colour per trial.

    Args:
        path: of the PNG.
        histories: by name, ``accuracy`` and ``val_accuracy`` of every epoch.
        title: of the plot.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
        for colour, (name, history) in zip(cycle(COLOURS), histories.items(), strict=False):
            epochs = np.arange(1, len(history["val_accuracy"]) + 1)
            axes.plot(epochs, history["val_accuracy"], color=colour, label=name, linewidth=1.9)
            axes.plot(epochs, history["accuracy"], color=colour, linestyle=":", linewidth=1.3)
        axes.set(xlabel="epoch", ylabel="accuracy", title=title)
        axes.set_ylim(top=1.005)
        axes.xaxis.get_major_locator().set_params(integer=True)
        legend = axes.legend(title="validation solid, training dotted", loc="lower right")
        legend.get_title().set_fontsize(9)
        return _save(figure, path)


def image_grid(path: Path, rows: Mapping[str, Sequence[Image.Image]], title: str) -> Path:
    """Draw images in rows, each row with a name."""
    columns = max(len(images) for images in rows.values())
    with plt.rc_context({**_STYLE, "axes.grid": False}):
        figure, grid = plt.subplots(
            len(rows), columns, figsize=(1.5 * columns + 0.6, 1.75 * len(rows) + 0.4),
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for line, (name, images) in zip(grid, rows.items(), strict=True):
            for axes, image in zip(line, images, strict=False):
                axes.imshow(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
            for axes in line:
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        return _save(figure, path)


def _save(figure: Any, path: Path) -> Path:
    try:
        with replacing(path) as unfinished:
            figure.savefig(unfinished, format="png")
    finally:
        plt.close(figure)
    return path
