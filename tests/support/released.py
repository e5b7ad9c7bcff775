"""Tests about this project's own release are skipped when another model is shipped.

The name in the model file decides, never a hash or a figure. So a damaged release fails.
"""

from __future__ import annotations

import pytest

from lambda_function import SHIPPED_MODEL
from lambda_function.metadata import read_metadata
from training.evaluation.test_log import RELEASED_NAME

SHIPPED_NAME = read_metadata(SHIPPED_MODEL.read_bytes()).name

release_only = pytest.mark.skipif(
    SHIPPED_NAME != RELEASED_NAME,
    reason=f"the shipped model is {SHIPPED_NAME}, not this project's {RELEASED_NAME}",
)
