"""The time limit of a run: until when each stage may go on, and what it cut short.

Deciding and proving can end at any moment and stop in time for what has to come after them, by an
estimate of how long that takes. Reducing stops between two rewrites. What is not certified,
validated and written soon after the limit never is.
"""

from __future__ import annotations

from collections.abc import Mapping

from onnx_exact.errors import TimeLimitError
from onnx_exact.runtime.deadline import Deadline

STAGES = ("read", "decide", "prove", "reduce", "certify", "rewrite", "validate", "write")
# Stages that end whenever they are told to, with less to show for it.
ANY_TIME = ("decide", "prove")
# By how much a run may exceed its limit: this share of it, or these seconds where that is more.
# Half of it is for stages that took longer than estimated, half for the step that is under way.
GRACE_SHARE, GRACE_SECONDS = 0.1, 5.0


class TimeLimit:
    """Counts down from the start of a run.

    Attributes:
        seconds: the limit, None for none.
        cut_short: the stages that it ended, in the order in which they were.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self.cut_short: list[str] = []
        self._deadline = Deadline(seconds)
        grace = 0.0 if seconds is None else max(GRACE_SHARE * seconds, GRACE_SECONDS)
        self._last = self._deadline.earlier(-grace / 2)
        self._expected: dict[str, float] = {}

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Takes in how long stages will take, as far as that can be told."""
        self._expected.update(seconds)

    def until(self, stage: str) -> Deadline:
        """The time by which a stage has to end so that there is enough for those after it."""
        after = STAGES[STAGES.index(stage) + 1 :]
        end = self._deadline if stage in ANY_TIME else self._last
        return end.earlier(sum(self._expected.get(later, 0.0) for later in after))

    def cut(self, stage: str) -> None:
        """Remembers that a stage was ended."""
        if stage not in self.cut_short:
            self.cut_short.append(stage)

    def require(self, stage: str) -> None:
        """Raises unless there is time left for a stage that cannot be cut short.

        Raises:
            TimeLimitError: there is none.
        """
        self._refuse(stage, self._last)

    def require_rest(self, stage: str) -> None:
        """Raises unless there is time left for a stage and, by the estimate, those after it.

        Raises:
            TimeLimitError: there is none.
        """
        self._refuse(stage, self.until(stage))

    def _refuse(self, stage: str, end: Deadline) -> None:
        if end.passed:
            raise TimeLimitError(
                f"the time limit of {self.seconds:g} s leaves no time for the stage {stage!r} and"
                " those after it, so that nothing is written; give more with --time-limit"
            )
