"""A progress bar: tqdm's where it is installed, else a line that counts.

Scoring runs in the test environment as well, which does without tqdm.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

REFRESH_S = 0.5


class _Counter:
    """The part of tqdm's interface that is used here, on standard error."""

    def __init__(self, total: int, label: str, unit: str, *, quiet: bool) -> None:
        self._quiet = quiet
        self._total, self._label, self._unit = total, label, unit
        self._done, self._shown_at = 0, 0.0

    def __enter__(self) -> _Counter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._show()
        if not self._quiet:
            sys.stderr.write("\n")

    def update(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._shown_at > REFRESH_S:
            self._show()

    def _show(self) -> None:
        if self._quiet:
            return
        self._shown_at = time.monotonic()
        start = "\r" if sys.stderr.isatty() else ("\n" if self._done else "")
        sys.stderr.write(f"{start}{self._label}: {self._done} of {self._total} {self._unit}s")
        sys.stderr.flush()


def progress_bar(total: int, label: str, *, unit: str = "image", quiet: bool = False) -> Any:
    """Return a context manager with ``update(count)``; ``quiet`` shows nothing."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _Counter(total, label, unit, quiet=quiet)
    return tqdm(total=total, desc=label, unit=unit, disable=quiet)
