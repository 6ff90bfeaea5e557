"""The objective that shrinks: nothing shown is asked for again, and nothing is lost on the way."""

from __future__ import annotations

import math

import pytest

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.programs import settle_together
from onnx_exact.milp import solve
from onnx_exact.milp.encode import Encoding, Target, encode
from onnx_exact.milp.shrink import SHOWS_SOMETHING, attach_shrinking
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.milp.test_solving import by_intervals
from tests.nets import cube, random_chain, targets, wrong_verdicts
from tests.oracle.regions import enumerate_regions


def program(knowledge: Knowledge, asked: list[Target]) -> Encoding:
    """As `settle_together` sets it up."""
    from pyscipopt import quicksum

    encoding = encode(knowledge.bounds, asked)
    encoding.model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    encoding.model.setObjlimit(SHOWS_SOMETHING)
    return encoding


def silent(stage: str, detail: str) -> None:
    pass


@pytest.mark.parametrize("seed", range(6))
def test_many_signs_take_few_programs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, box = random_chain(seed, 3, 8, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    count = len(targets(knowledge))
    assert count >= 8
    sizes: list[int] = []

    def counted(known: ChainBounds, asked: list[Target], deadline: Deadline) -> Encoding:
        sizes.append(len(asked))
        return encode(known, asked, deadline)

    monkeypatch.setattr(solve, "encode", counted)
    unclear = settle_together(knowledge, Deadline(), silent)
    assert len(sizes) <= 1 + math.log2(count)
    assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert {t.query for t in targets(knowledge)} <= unclear


@pytest.mark.parametrize("seed", range(6))
def test_what_nothing_shows_is_stable_however_much_is_shown_on_the_way(seed: int) -> None:
    """Without the end once few are left, a single program settles every sign."""
    chain, box = random_chain(seed, 2, 5, 5, 4, shift=0.8), cube(2, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    asked = targets(knowledge)
    encoding = program(knowledge, asked)

    def wanted(points: Array) -> set[Query]:
        knowledge.show(points)
        return {t.query for t in asked if not knowledge.is_shown(t.query)}

    handler = attach_shrinking(encoding, wanted, -1)
    encoding.model.optimize()
    assert handler.error is None
    assert encoding.model.getStatus() == "infeasible"
    for t in asked:
        if t.query not in handler.retired:
            knowledge.claim(t.query, t.margin)
    assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert {t.query for t in targets(knowledge)} <= handler.claimed
    assert handler.retired - handler.claimed


def test_the_solve_ends_once_few_are_left() -> None:
    chain, box = random_chain(1, 3, 8, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    asked = targets(knowledge)
    encoding = program(knowledge, asked)
    handler = attach_shrinking(encoding, lambda points: set(), len(asked) - 1)
    encoding.model.optimize()
    assert handler.ended
    assert handler.retired == {t.query for t in asked}


def test_a_claim_that_its_own_forward_pass_denies_leaves_the_objective() -> None:
    chain, box = random_chain(2, 3, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    asked = targets(knowledge)
    encoding = program(knowledge, asked)
    # Whatever a point shows, the forward pass is made to say that it shows nothing.
    handler = attach_shrinking(encoding, lambda points: {t.query for t in asked}, -1)
    encoding.model.optimize()
    assert encoding.model.getStatus() == "infeasible"
    assert handler.claimed == handler.retired
    assert handler.claimed
