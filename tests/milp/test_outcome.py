"""The table of what SCIP's statuses mean."""

from __future__ import annotations

import pytest

from onnx_exact.milp.outcome import Outcome, outcome_of


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("infeasible", Outcome.IMPOSSIBLE),
        ("optimal", Outcome.CLAIMED),
        ("timelimit", Outcome.OPEN),
        ("memlimit", Outcome.OPEN),
    ],
)
def test_every_listed_status_has_its_meaning(status: str, outcome: Outcome) -> None:
    assert outcome_of(status) is outcome


@pytest.mark.parametrize(
    "status", ["unbounded", "inforunbd", "unknown", "nodelimit", "gaplimit", ""]
)
def test_a_status_that_is_not_listed_leaves_signs_open(status: str) -> None:
    assert outcome_of(status) is Outcome.OPEN


def test_a_user_who_interrupts_is_heard() -> None:
    with pytest.raises(KeyboardInterrupt):
        outcome_of("userinterrupt")
