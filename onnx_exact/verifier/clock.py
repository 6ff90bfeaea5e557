"""When to stop, whatever a certificate asks for."""

from __future__ import annotations

import math
import time

from onnx_exact.verifier.refusals import require_known

# Sides of boxes that may be bounded in all; some minutes of work.
MOST_SIDES = 2**33


class Clock:
    """Counts down from `seconds`, and from the work that any honest certificate is done with."""

    def __init__(self, seconds: float | None = None) -> None:
        self._limit = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self._left = MOST_SIDES

    def spend(self, sides: int = 0) -> None:
        """Raises UncheckedError if the time is up, or that much work is too much."""
        self._left -= sides
        require_known(self._left >= 0, "the trees have too many leaves")
        require_known(
            time.monotonic() <= self._end,
            f"not done after {self._limit} s; give a larger --time-limit",
        )
