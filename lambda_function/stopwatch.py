"""The one stopwatch of the repository: elapsed time in milliseconds."""

from __future__ import annotations

import time


class Stopwatch:
    """Starts when it is made. Values are rounded to a tenth of a millisecond.

    Example::

        stopwatch = Stopwatch()
        image = decode_image(data)
        decode_ms = stopwatch.lap_ms()
    """

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()

    def lap_ms(self) -> float:
        """Return the time since the last lap, or since the start."""
        now = time.perf_counter()
        lap, self._last = now - self._last, now
        return round(lap * 1e3, 1)

    def total_ms(self) -> float:
        """Return the time since the start."""
        return round((time.perf_counter() - self._start) * 1e3, 1)
