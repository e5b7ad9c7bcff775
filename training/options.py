"""Options that several commands share, each defined once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

OPTIONS: dict[str, dict[str, Any]] = {
    # for training.data.dataset.find_dataset
    "dataset": {
        "type": Path,
        "help": "folder of the data set; else $CLOTHING_DATASET, data/, ../shared/",
    },
    # for training.data.split.read_groups
    "groups": {
        "type": Path,
        "help": "CSV with columns image and group (or sender): a group stays on one side",
    },
    # for training.data.imagenet.find_weights
    "backbone-weights": {
        "type": Path,
        "help": "ImageNet weights; else $BACKBONE_WEIGHTS, data/, ../shared/, Keras's download",
    },
    # for Split.subsample
    "limit": {"type": int, "default": 0, "help": "images per split, for a quick try; 0 for all"},
    "no-next": {"action": "store_true", "help": "do not name the next command, as in make model"},
    "runs": {"type": Path, "default": Path("runs"), "help": "folder of all runs; default: runs"},
}


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add some of ``OPTIONS`` to a command, by their names without the dashes."""
    for name in names:
        parser.add_argument(f"--{name}", **OPTIONS[name])
