"""A point in time by which work has to end."""

from __future__ import annotations

import math
import time


class Deadline:
    """Counts down from `seconds`; None never ends."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left, inf without a limit, never negative."""
        return max(0.0, self._end - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self.remaining == 0.0
