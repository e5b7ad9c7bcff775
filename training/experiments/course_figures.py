"""The course's published figures: what ours are put beside.

From the course's notebook (alexeygrigorev/mlbookcamp-code, deep-learning module) and the book
'Machine Learning Bookcamp', chapter 7: best validation accuracy of each trial at 150 px, and
test accuracy of the final model at 299 px.
"""

from __future__ import annotations

from typing import Any

from training.fit.heads import HeadConfig

# Experiment -> trials in the course's order, and its best validation accuracy of each.
EXPERIMENTS: dict[str, dict[str, Any]] = {
    "learning-rate": {
        "title": "Learning rate, no inner layer, 10 epochs",
        "field": "learning_rate",
        "trials": [HeadConfig(learning_rate=rate) for rate in (1e-4, 1e-3, 1e-2, 1e-1)],
        "course": [0.789, 0.830, 0.821, 0.789],
    },
    "inner": {
        "title": "Inner layer size, 10 epochs",
        "field": "inner_units",
        "trials": [HeadConfig(inner_units=units) for units in (10, 100, 1000)],
        "course": [0.815, 0.815, 0.812],
    },
    "dropout": {
        "title": "Dropout after an inner layer of 100, 30 epochs",
        "field": "dropout",
        "trials": [
            HeadConfig(inner_units=100, dropout=share, epochs=30) for share in (0.0, 0.2, 0.5, 0.8)
        ],
        "course": [0.842, 0.845, 0.853, 0.833],
    },
}
SIZE = 150  # pixels, height and width
EPOCHS = sum(t.epochs for e in EXPERIMENTS.values() for t in e["trials"])  # 190
