"""Options that several commands share, each defined once."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_dataset_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--dataset`` for ``training.data.dataset.find_dataset``."""
    parser.add_argument(
        "--dataset",
        type=Path,
        help="folder of the data set; else $CLOTHING_DATASET, data/, ../shared/",
    )


def add_groups_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--groups`` for ``training.data.split.read_groups``."""
    parser.add_argument(
        "--groups", type=Path, help="CSV with columns image,group: a group stays on one side"
    )


def add_weights_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--backbone-weights`` for ``training.data.imagenet.find_weights``."""
    parser.add_argument(
        "--backbone-weights",
        type=Path,
        help="ImageNet weights; else $BACKBONE_WEIGHTS, data/, ../shared/, Keras's download",
    )


def add_limit_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--limit`` for ``Split.subsample``."""
    parser.add_argument(
        "--limit", type=int, default=0, help="images per split, for a quick try; 0 for all"
    )


def add_runs_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--runs``, the folder of all runs."""
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="folder of all runs; default: runs"
    )
