r"""The program of a network that is solved by hand.

          +1 --> u0 = x + y - 1    in [-1, 1]   unstable
x ---+--- +1 --> u1 = x + y + 1    in [ 1, 3]   active
y ---+--- -1 --> u2 = -x - y - 1   in [-3, -1]  inactive
                 u3 = x - y        in [-1, 1]   unstable

v = u0 - u1 + 5 u2 + 1/2, does not read u3:  v = max(x + y - 1, 0) - x - y - 1/2
    from -1/2 at (0, 0) down to -3/2 at s = x + y = 1, and flat from there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.programs import settle_together
from onnx_exact.milp.encode import (
    LARGEST_NUMBER,
    Encoding,
    OutOfTimeError,
    Target,
    encode,
    encode_one,
)
from onnx_exact.milp.outcome import Outcome
from onnx_exact.milp.unit import ask
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from tests.nets import bounded, box_of, by_intervals, chain_of, cube, random_chain, targets
from tests.oracle.networks import random_case
from tests.oracle.regions import enumerate_regions

if TYPE_CHECKING:
    from pyscipopt import Model

SOLVER_TOLERANCE = 1e-6  # relative to numbers around 1
FIRST = ([[1, 1], [1, 1], [-1, -1], [1, -1]], [-1, 1, -1, 0])
DRAWN = chain_of(FIRST, ([[1, -1, 5, 0]], [0.5]), relu_at_end=True)


def target(knowledge: Knowledge, layer: int, unit: int, positive: bool) -> Target:
    wanted = Query(layer, unit, positive)
    return next(t for t in targets(knowledge) if t.query == wanted)


def names(model: Model) -> list[str]:
    return sorted(variable.name for variable in model.getVars())


def solve_at(encoding: Encoding, point: list[float]) -> dict[str, float]:
    """The values of all variables once the inputs are fixed."""
    model = encoding.model
    for variable, value in zip(encoding.inputs, point, strict=True):
        model.chgVarLb(variable, value)
        model.chgVarUb(variable, value)
    model.optimize()
    assert model.getStatus() == "optimal"
    return {variable.name: model.getVal(variable) for variable in model.getVars()}


def test_targets_are_the_open_signs_first_layer_first() -> None:
    knowledge = by_intervals(DRAWN, cube(2))
    expected = [
        (0, 0, True),
        (0, 3, True),
        (0, 0, False),
        (0, 3, False),
        (1, 0, True),
        (1, 0, False),
    ]
    # Intervals: v within 0 + [-3, -1] + 1/2 + [0, 1].
    expected = expected[:4] if knowledge.upper[1][0] <= 0.0 else expected
    assert [(t.query.layer, t.query.unit, t.query.positive) for t in targets(knowledge)] == expected
    knowledge.show(np.array([[1.0, 0.5]]))
    asked = [t.query for t in targets(knowledge)]
    assert Query(0, 0, True) not in asked
    assert Query(0, 0, False) in asked


def test_the_program_has_the_variables_and_rows_of_the_drawing() -> None:
    chain = chain_of(FIRST, ([[1, -1, 5, 0]], [1.5]), relu_at_end=True)
    knowledge = by_intervals(chain, cube(2))
    encoding = encode(knowledge.bounds, targets(knowledge))
    units = ["h_0_0", "h_0_1", "h_0_3", "h_1_0", "hbar_0_0", "hbar_0_3", "hbar_1_0"]
    switches = ["p_0_0", "p_0_3", "p_1_0", "q_0_0", "q_0_3", "q_1_0"]
    inputs, binaries = ["x_0", "x_1"], ["z_0_0", "z_0_3", "z_1_0"]
    assert names(encoding.model) == sorted(units + switches + inputs + binaries)
    # Three for each unstable unit, one for the active one, one for each target.
    assert encoding.model.getNConss() == 3 * 3 + 1 + 6
    kinds = {v.name for v in encoding.model.getVars() if v.vtype() == "BINARY"}
    assert kinds == {*switches, *binaries}


def test_the_program_ends_with_the_last_target() -> None:
    knowledge = by_intervals(DRAWN, cube(2))
    encoding = encode(knowledge.bounds, [target(knowledge, 0, 0, True)])
    assert not any(name.startswith(("h_1", "hbar_1", "z_1")) for name in names(encoding.model))


def test_a_single_target_brings_only_the_units_it_reads() -> None:
    chain = chain_of(FIRST, ([[1, -1, 5, 0]], [1.5]), relu_at_end=True)
    knowledge = by_intervals(chain, cube(2))
    model = encode_one(knowledge.bounds, target(knowledge, 1, 0, True)).model
    assert names(model) == ["g", "h_0_0", "h_0_1", "hbar_0_0", "x_0", "x_1", "z_0_0"]
    assert model.getNConss() == 3 + 1 + 1


@pytest.mark.parametrize("point", [[0.0, 0.0], [1.0, 1.0], [0.25, 0.75], [1.0, 0.0], [0.3, 0.1]])
def test_with_fixed_inputs_the_program_is_the_forward_pass(point: list[float]) -> None:
    chain = chain_of(FIRST, ([[1, -1, 5, 0]], [1.5]), relu_at_end=True)
    knowledge = by_intervals(chain, cube(2))
    encoding = encode(knowledge.bounds, targets(knowledge))
    values = solve_at(encoding, point)
    for layer, g in enumerate(chain.preactivations(np.array([point]))):
        for unit, value in enumerate(g[0]):
            name = f"{layer}_{unit}"
            if f"h_{name}" in values:
                assert values[f"h_{name}"] == pytest.approx(max(value, 0.0), abs=SOLVER_TOLERANCE)
            if f"hbar_{name}" in values:
                assert values[f"hbar_{name}"] == pytest.approx(
                    max(-value, 0.0), abs=SOLVER_TOLERANCE
                )
            if f"z_{name}" in values and abs(value) > SOLVER_TOLERANCE:
                assert round(values[f"z_{name}"]) == (value > 0.0)


@pytest.mark.parametrize(("positive", "best"), [(True, 0.5), (False, 0.5)])
def test_the_optimum_of_one_target_is_the_extreme_found_by_hand(
    positive: bool, best: float
) -> None:
    chain = chain_of(FIRST, ([[1, -1, 5, 0]], [1.5]), relu_at_end=True)
    knowledge = by_intervals(chain, cube(2))
    model = encode_one(knowledge.bounds, target(knowledge, 1, 0, positive)).model
    model.optimize()
    assert model.getObjVal() == pytest.approx(best, abs=SOLVER_TOLERANCE)


@pytest.mark.parametrize("seed", range(12))
def test_the_optimum_is_the_exact_maximum_of_random_networks(seed: int) -> None:
    case = random_case("normal", seed)
    ranges = enumerate_regions(case.chain, case.box).ranges
    knowledge, _ = bounded(case.chain, case.box)
    for t in targets(knowledge)[-4:]:
        model = encode_one(knowledge.bounds, t).model
        model.optimize()
        least, most = ranges[t.query.layer][t.query.unit]
        expected = float(most if t.query.positive else -least)
        scale = max(1.0, abs(expected))
        assert model.getObjVal() == pytest.approx(expected, abs=SOLVER_TOLERANCE * scale)


@pytest.mark.parametrize("seed", range(6))
def test_an_indicator_can_be_set_exactly_where_its_sign_occurs(seed: int) -> None:
    case = random_case("normal", seed)
    ranges = enumerate_regions(case.chain, case.box).ranges
    knowledge, _ = bounded(case.chain, case.box)
    for t in targets(knowledge)[-3:]:
        encoding = encode(knowledge.bounds, [t])
        encoding.model.setObjective(encoding.indicators[t.query], "maximize")
        encoding.model.optimize()
        least, most = ranges[t.query.layer][t.query.unit]
        reaches = (most if t.query.positive else -least) >= -t.margin
        assert round(encoding.model.getObjVal()) == reaches


def test_coefficients_that_scip_drops_widen_their_row() -> None:
    """1e-12 x over [0, 1e5] is not 0, and no more than 1e-7."""
    chain = chain_of(([[1e-12, 1.0]], [-0.5]), ([[1.0]], [-0.25]), relu_at_end=True)
    knowledge = by_intervals(chain, box_of([0.0, 0.0], [1e5, 1.0]))
    model = encode_one(knowledge.bounds, target(knowledge, 0, 0, True)).model
    model.optimize()
    assert model.getObjVal() >= 0.5 + 1e-8
    assert model.getObjVal() == pytest.approx(0.5, abs=SOLVER_TOLERANCE)
    (row,) = model.getConss()
    assert model.getRhs(row) - model.getLhs(row) == pytest.approx(1e-7, rel=1e-3)


def test_a_sign_without_room_for_its_margin_is_not_asked_for() -> None:
    """Numbers of 1e10 leave no certainty about 1."""
    chain = chain_of(
        ([[1e10], [-1e10]], [0, 0]),
        ([[1e-10, 1e-10], [1e-10, 1e-10]], [-0.5, -1e5]),
        relu_at_end=True,
    )
    knowledge = by_intervals(chain, cube(1, -1.0, 1.0))
    assert not [t for t in targets(knowledge) if t.query.layer == 1]
    assert [t for t in targets(knowledge) if t.query.layer == 0]


@pytest.mark.parametrize("scale", [10 * LARGEST_NUMBER, 1e25, 1e200])
def test_no_program_is_written_with_numbers_that_scip_takes_for_infinite(scale: float) -> None:
    chain = chain_of(([[scale]], [0]), ([[scale]], [-1.0]), relu_at_end=True)
    knowledge = by_intervals(chain, cube(1, -1.0, 1.0))
    assert knowledge.open_signs(0)[0].any()
    assert targets(knowledge) == []


def test_margins_grow_with_the_bounds() -> None:
    small = by_intervals(chain_of(([[1.0]], [0]), ([[1.0]], [0])), cube(1, -1.0, 1.0))
    large = by_intervals(chain_of(([[1000.0]], [0]), ([[1.0]], [0])), cube(1, -1.0, 1.0))
    assert 0.0 < 100 * targets(small)[0].margin < targets(large)[0].margin


def test_a_program_that_is_not_complete_in_time_is_none() -> None:
    """Some networks take longer to write down than there is to solve them."""
    knowledge = bounded(random_chain(0, 4, 5, 5, 3), cube(4, -1.0, 1.0))[0]
    asked = targets(knowledge)
    for late in (
        lambda: encode(knowledge.bounds, asked, Deadline(0.0)),
        lambda: encode_one(knowledge.bounds, asked[-1], Deadline(0.0)),
    ):
        with pytest.raises(OutOfTimeError):
            late()
    assert asked[-1].query.layer > 0
    answer = ask(knowledge.bounds, asked[-1], math.inf, Deadline(0.0))
    assert answer.outcome is Outcome.OPEN
    settle_together(knowledge, Deadline(0.0), lambda *_: None)
    assert targets(knowledge) == asked
