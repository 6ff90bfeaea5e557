"""The objective that shrinks: nothing shown is asked for again, and nothing is lost on the way."""

from __future__ import annotations

import math

import pytest

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.milp import solve
from onnx_exact.milp.encode import Candidate, Encoding, candidates_of, encode
from onnx_exact.milp.shrink import SHOWS_SOMETHING, attach_shrinking
from onnx_exact.network.affine import Array
from tests.milp.test_solving import by_intervals
from tests.nets import cube, random_chain, wrong_verdicts
from tests.oracle.regions import enumerate_regions


def program(knowledge: Knowledge, candidates: list[Candidate]) -> Encoding:
    """As `settle_with_one_milp` sets it up."""
    from pyscipopt import quicksum

    encoding = encode(knowledge, candidates)
    encoding.model.setObjective(quicksum(encoding.indicators.values()), "maximize")
    encoding.model.setObjlimit(SHOWS_SOMETHING)
    return encoding


def silent(stage: str, detail: str) -> None:
    pass


@pytest.mark.parametrize("seed", range(6))
def test_many_signs_take_few_programs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, box = random_chain(seed, 3, 8, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    count = len(candidates_of(knowledge))
    assert count >= 8
    sizes: list[int] = []

    def counted(known: Knowledge, candidates: list[Candidate], deadline: Deadline) -> Encoding:
        sizes.append(len(candidates))
        return encode(known, candidates, deadline)

    monkeypatch.setattr(solve, "encode", counted)
    unclear = solve.settle_with_one_milp(knowledge, Deadline(), silent)
    assert len(sizes) <= 1 + math.log2(count)
    assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert set(candidates_of(knowledge)) <= unclear


@pytest.mark.parametrize("seed", range(6))
def test_what_nothing_shows_is_stable_however_much_is_shown_on_the_way(seed: int) -> None:
    """Without the end once few are left, a single program settles every sign."""
    chain, box = random_chain(seed, 2, 5, 5, 4, shift=0.8), cube(2, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    candidates = candidates_of(knowledge)
    encoding = program(knowledge, candidates)

    def wanted(points: Array) -> set[Candidate]:
        knowledge.show(points)
        return set(solve._still_open(knowledge, candidates))

    handler = attach_shrinking(encoding, wanted, -1)
    encoding.model.optimize()
    assert handler.error is None
    assert encoding.model.getStatus() == "infeasible"
    solve.conclude(knowledge, [c for c in candidates if c not in handler.retired])
    assert not wrong_verdicts(knowledge.freeze(), enumerate_regions(chain, box))
    assert set(candidates_of(knowledge)) <= handler.claimed
    assert handler.retired - handler.claimed


def test_the_solve_ends_once_few_are_left() -> None:
    chain, box = random_chain(1, 3, 8, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    candidates = candidates_of(knowledge)
    encoding = program(knowledge, candidates)
    handler = attach_shrinking(encoding, lambda points: set(), len(candidates) - 1)
    encoding.model.optimize()
    assert handler.ended
    assert handler.retired == set(candidates)


def test_a_claim_that_its_own_forward_pass_denies_leaves_the_objective() -> None:
    chain, box = random_chain(2, 3, 6, 3), cube(3, -1.0, 1.0)
    knowledge = by_intervals(chain, box)
    candidates = candidates_of(knowledge)
    encoding = program(knowledge, candidates)
    # Whatever a point shows, the forward pass is made to say that it shows nothing.
    handler = attach_shrinking(encoding, lambda points: set(candidates), -1)
    encoding.model.optimize()
    assert encoding.model.getStatus() == "infeasible"
    assert handler.claimed == handler.retired
    assert handler.claimed
