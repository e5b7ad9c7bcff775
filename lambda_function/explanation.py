"""Where in the image the model sees a class: the activation map of one class, for people.

The map is the last features times the dense layer's weights of one class (Zhou et al., Learning
deep features for discriminative localization, 2016). Cells with high values speak for the class.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HALF = 0.5  # of the largest value. Cells from here on are inside the box
_DECIMALS = 4  # of a cell in the response


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Where the model sees one class.

    Attributes:
        label: of the class.
        grid: rows of cells, 0..1. 1 is the cell that speaks most for the class. All cells are 0
            if none speaks for it.
        box: (left, top, right, bottom) in pixels of the upright image, end exclusive: the
            smallest box of whole pixels around all cells of at least ``HALF``. None if all are 0.
    """

    label: str
    grid: tuple[tuple[float, ...], ...]
    box: tuple[int, int, int, int] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the part of a response."""
        box = None if self.box is None else list(self.box)
        return {"label": self.label, "grid": [list(row) for row in self.grid], "box": box}


def explain_class(
    class_map: NDArray[np.float32], label: str, image_size: tuple[int, int]
) -> Explanation:
    """Turn the activation map of one class into an explanation.

    Args:
        class_map: float32, (height, width). Negative values count as 0.
        label: of the class.
        image_size: (height, width) of the upright image, in pixels.

    Raises:
        ValueError: the map holds NaN or infinity.
    """
    if not np.isfinite(class_map).all():
        raise ValueError("the activation map is not finite")
    positive = np.maximum(class_map.astype(np.float64), 0)
    highest = positive.max()
    grid = positive / highest if highest > 0 else positive
    rounded = np.round(grid, _DECIMALS)
    return Explanation(label, tuple(map(tuple, rounded.tolist())), _box(grid, image_size))


def _box(
    grid: NDArray[np.float64], image_size: tuple[int, int]
) -> tuple[int, int, int, int] | None:
    rows, columns = np.nonzero(grid >= HALF)
    if not rows.size:
        return None
    top, bottom = _bounds(rows, grid.shape[0], image_size[0])
    left, right = _bounds(columns, grid.shape[1], image_size[1])
    return left, top, right, bottom


def _bounds(cells: NDArray[np.intp], count: int, pixels: int) -> tuple[int, int]:
    """Return the first pixel of the first of these cells, and the one behind the last's last.

    Args:
        cells: positions on one axis.
        count: number of cells on the axis.
        pixels: of the image on the axis.
    """
    first, behind = int(cells.min()), int(cells.max()) + 1
    return first * pixels // count, -(-behind * pixels // count)
