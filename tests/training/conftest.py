"""A small network for the tests of what happens around one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def small_network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put a small network in Xception's place, and return a file with its weights."""
    import keras

    from tests.support import small_network

    file = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    keras.utils.set_random_seed(0)
    small_network.build(71, 71).save_weights(file)
    with small_network.in_place_of_xception():
        yield file
