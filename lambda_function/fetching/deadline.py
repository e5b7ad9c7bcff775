"""The moment by which a fetch must be done."""

from __future__ import annotations

import time

from lambda_function.fetching.errors import too_slow


class Deadline:
    """A moment that every wait of a fetch asks for the time that is left.

    Example::

        deadline = Deadline(time.monotonic() + 2.0)
        sock.settimeout(deadline.remaining_s())
    """

    def __init__(self, at_s: float) -> None:
        """Set the moment.

        Args:
            at_s: a moment of ``time.monotonic()``.
        """
        self._at_s = at_s

    def remaining_s(self) -> float:
        """Return the seconds that are left.

        Raises:
            DeadlineError: none are left.
        """
        remaining_s = self._at_s - time.monotonic()
        if remaining_s <= 0:
            raise too_slow()
        return remaining_s

    def limit_s(self, seconds: float) -> float:
        """Return a wait of at most these seconds that ends at the deadline. Never raises."""
        return max(0.0, min(seconds, self._at_s - time.monotonic()))
