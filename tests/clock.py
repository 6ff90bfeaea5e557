"""A clock on which time passes by being looked at, so that a test takes the same on any machine."""

from __future__ import annotations


class Ticking:
    """Goes on by so many seconds with each look at it; to be put in place of `time.monotonic`."""

    def __init__(self, seconds_a_look: float) -> None:
        self._seconds_a_look = seconds_a_look
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += self._seconds_a_look
        return self.now
