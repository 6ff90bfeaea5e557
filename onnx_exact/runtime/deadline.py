"""A point in time by which work has to end."""

from __future__ import annotations

import math
from time import monotonic, time


class Deadline:
    """Counts down from `seconds`; None never ends."""

    def __init__(self, seconds: float | None = None) -> None:
        self._end = math.inf if seconds is None else monotonic() + seconds

    def __getstate__(self) -> float:
        # Another machine may have begun to count at another time.
        return time() + (self._end - monotonic())

    def __setstate__(self, end: float) -> None:
        self._end = monotonic() + (end - time())

    @property
    def remaining(self) -> float:
        """Seconds left, inf without a limit, never negative."""
        return max(0.0, self._end - monotonic())

    @property
    def passed(self) -> bool:
        """Whether the time is up."""
        return self.remaining == 0.0

    def earlier(self, seconds: float) -> Deadline:
        """The one that ends so many seconds before this one."""
        found = Deadline()
        found._end = self._end - seconds
        return found

    def share(self, share: float) -> Deadline:
        """The one that ends when a share, above 0, of what is left has passed."""
        return Deadline(share * self.remaining)

    def within(self, seconds: float) -> Deadline:
        """The one that ends in so many seconds, and no later than this one."""
        found = Deadline(seconds)
        found._end = min(found._end, self._end)
        return found
