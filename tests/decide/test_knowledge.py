"""Where bounds become verdicts and points become witnesses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.decide.knowledge import FORWARD_BATCH, Knowledge
from onnx_exact.decide.verdict import Evidence, Status
from onnx_exact.errors import ContradictionError
from onnx_exact.network import Affine, Chain, Layer
from onnx_exact.network.affine import Array
from tests.nets import DENORMAL, box_of, chain_of, cube, random_chain

INF = np.inf
# x - y, and its double.
DIFFERENCE = chain_of(([[1.0, -1.0], [2.0, -2.0]], [0, 0]), ([[1.0, 1.0]], [0]))


def exact_preactivations(chain: Chain, point: Array) -> list[list[Fraction]]:
    h, values = [Fraction(float(x)) for x in point], []
    for layer in chain.layers:
        rows = zip(layer.affine.weight.tolist(), layer.affine.bias.tolist(), strict=True)
        g = [
            sum((Fraction(w) * x for w, x in zip(row, h, strict=True)), Fraction(b))
            for row, b in rows
        ]
        values.append(g)
        h = [max(x, Fraction(0)) for x in g] if layer.relu else g
    return values


def test_nothing_is_known_at_first() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    assert knowledge.status(0).tolist() == [Status.UNDECIDED] * 2
    assert knowledge.lower[0].tolist() == [-INF, -INF]
    assert (knowledge.open_units, knowledge.relu_layers) == (2, [0])
    assert knowledge.witnesses.shape == (0, 2)
    assert [s.tolist() for s in knowledge.open_signs(0)] == [[True, True], [True, True]]


def test_a_box_of_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 inputs"):
        Knowledge(DIFFERENCE, cube(3))


def test_a_point_shows_the_sign_of_every_unit_at_once() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    assert knowledge.show(np.array([[1.0, 0.0]])) == 2
    assert knowledge.seen_positive[0].tolist() == [True, True]
    assert not knowledge.seen_negative[0].any()
    assert [s.tolist() for s in knowledge.open_signs(0)] == [[False, False], [True, True]]
    assert knowledge.show(np.array([[0.75, 0.0]])) == 0
    assert knowledge.witnesses.tolist() == [[1.0, 0.0]]
    assert knowledge.show(np.array([[0.0, 1.0]])) == 2
    assert knowledge.status(0).tolist() == [Status.UNSTABLE] * 2


def test_a_point_within_its_rounding_error_shows_nothing() -> None:
    """0.1 + 0.2 - 0.3 is 5.6e-17 in float64 and 2.8e-17 in truth: no proof."""
    chain = chain_of(([[1.0, 1.0, -1.0]], [0.0]), ([[1.0]], [0.0]))
    knowledge = Knowledge(chain, cube(3))
    point = np.array([[0.1, 0.2, 0.3]])
    assert chain.preactivations(point)[0][0, 0] > 0.0
    assert knowledge.show(point) == 0
    assert not knowledge.seen_positive[0].any()
    assert knowledge.witnesses.size == 0
    assert knowledge.show(np.array([[0.1, 0.2, 0.2999]])) == 1


def test_the_error_of_a_layer_below_is_carried_on() -> None:
    """h = 1e10 x - 1e10 y is off by 1e-6 at most: a second layer cannot tell 1e-7 from 0."""
    chain = chain_of(([[1e10, -1e10]], [1.0]), ([[1.0]], [-1.0]), ([[1.0]], [0.0]))
    knowledge = Knowledge(chain, cube(2))
    close = np.array([[0.1 + 1e-17, 0.1], [np.nextafter(0.1, 1.0), 0.1]])
    assert (np.abs(chain.preactivations(close)[1]) < 1e-6).all()
    knowledge.show(close)
    assert not knowledge.seen_positive[1].any()
    assert not knowledge.seen_negative[1].any()
    knowledge.show(np.array([[0.1 + 1e-5, 0.1]]))
    assert knowledge.seen_positive[1].all()


@pytest.mark.parametrize("g", [0.0, DENORMAL, -DENORMAL])
def test_a_value_of_zero_or_the_smallest_shows_nothing(g: float) -> None:
    knowledge = Knowledge(chain_of(([[1.0]], [0.0]), ([[1.0]], [0.0])), cube(1, -1.0, 1.0))
    assert knowledge.show(np.array([[g]])) == 0
    assert knowledge.status(0).tolist() == [Status.UNDECIDED]


def test_points_outside_are_clipped_into_the_box_before_they_count() -> None:
    knowledge = Knowledge(chain_of(([[1.0]], [-2.0]), ([[1.0]], [0.0])), cube(1))
    assert knowledge.show(np.array([[5.0]])) == 1
    assert knowledge.seen_negative[0].all()
    assert not knowledge.seen_positive[0].any()
    assert knowledge.witnesses.tolist() == [[1.0]]


def test_points_that_are_nan_or_overflow_show_nothing() -> None:
    chain = chain_of(([[1e200], [1.0]], [0, 0]), ([[1e200, 0.0]], [0.0]), relu_at_end=True)
    knowledge = Knowledge(chain, box_of([-1e100], [1e100]))
    knowledge.show(np.array([[np.nan]]))
    assert knowledge.open_units == 3
    assert not any(seen.any() for seen in knowledge.seen_positive)
    knowledge.show(np.array([[1e100]]))
    assert knowledge.seen_positive[0].all()
    assert not knowledge.seen_positive[1].any()


def test_a_point_that_overflows_hides_nothing_that_others_of_its_batch_show() -> None:
    chain = chain_of(([[1e200]], [0.0]), ([[1e200]], [-1.0]), relu_at_end=True)
    knowledge = Knowledge(chain, box_of([-1e150], [1e150]))
    assert knowledge.show(np.array([[1e120], [1.0], [np.nan], [-1.0]])) == 2
    assert knowledge.seen_positive[0].all()
    assert knowledge.seen_negative[0].all()
    assert not knowledge.seen_positive[1].any()


@pytest.mark.parametrize("seed", range(5))
def test_what_many_points_show_together_is_so_in_rationals(seed: int) -> None:
    """Points around which signs change, so that rounding matters."""
    rng = np.random.default_rng(seed)
    chain = random_chain(seed, 3, 6, 5, 4, shift=0.5)
    near = rng.uniform(-1.0, 1.0, (1, 3)) + rng.choice([0.0, 1e-15, 1e-14], (40, 3))
    knowledge = Knowledge(chain, cube(3, -2.0, 2.0))
    knowledge.show(near)
    values = [exact_preactivations(chain, point) for point in knowledge.witnesses]
    assert values
    for layer in knowledge.relu_layers:
        for unit in range(chain.layers[layer].width):
            shown = {np.sign(float(value[layer][unit])) for value in values} - {0.0}
            seen = {
                sign
                for sign, signs in ((1.0, knowledge.seen_positive), (-1.0, knowledge.seen_negative))
                if signs[layer][unit]
            }
            assert seen <= shown


def test_few_of_many_points_become_witnesses() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.show(np.random.default_rng(0).random((100, 2)))
    assert knowledge.status(0).tolist() == [Status.UNSTABLE] * 2
    assert len(knowledge.witnesses) == 2


def test_the_last_point_of_many_batches_counts() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    points = np.zeros((2 * FORWARD_BATCH + 1, 2))
    points[-1] = [1.0, 0.0]
    assert knowledge.show(points) == 2


def test_no_points_show_nothing() -> None:
    assert Knowledge(DIFFERENCE, cube(2)).show(np.zeros((0, 2))) == 0


def test_bounds_are_only_ever_tightened() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.tighten(0, Evidence.INTERVAL, np.array([-3.0, -1.0]), np.array([3.0, 1.0]))
    knowledge.tighten(0, Evidence.LINEAR, np.array([-2.0, -2.0]), np.array([5.0, 0.5]))
    assert knowledge.lower[0].tolist() == [-2.0, -1.0]
    assert knowledge.upper[0].tolist() == [3.0, 0.5]


def test_a_bound_that_is_nan_says_nothing() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.tighten(0, Evidence.INTERVAL, np.array([-3.0, np.nan]), np.array([np.nan, 1.0]))
    assert knowledge.lower[0].tolist() == [-3.0, -INF]
    assert knowledge.upper[0].tolist() == [INF, 1.0]
    assert knowledge.status(0).tolist() == [Status.UNDECIDED] * 2


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-1.0, 1.0, Status.UNDECIDED),
        (-1.0, DENORMAL, Status.UNDECIDED),
        (-1.0, 0.0, Status.INACTIVE),
        (-1.0, -DENORMAL, Status.INACTIVE),
        (0.0, 1.0, Status.ACTIVE),
        (-DENORMAL, 1.0, Status.UNDECIDED),
        (0.0, 0.0, Status.INACTIVE),  # both: the one that removes the unit
    ],
)
def test_the_status_follows_from_the_signs_of_the_bounds(
    low: float, high: float, status: Status
) -> None:
    knowledge = Knowledge(chain_of(([[1.0]], [0.0]), ([[1.0]], [0.0])), cube(1, -1.0, 1.0))
    knowledge.tighten(0, Evidence.LINEAR, np.array([low]), np.array([high]))
    assert knowledge.status(0).tolist() == [status]
    decided = status is not Status.UNDECIDED
    assert knowledge.open_units == (not decided)
    assert any(s.any() for s in knowledge.open_signs(0)) is not decided
    evidence = knowledge.freeze().layers[0].evidence.tolist()
    assert evidence == [Evidence.LINEAR if decided else Evidence.NONE]


def test_evidence_is_what_decided_first() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.tighten(0, Evidence.INTERVAL, upper=np.array([1.0, -1.0]))
    knowledge.tighten(0, Evidence.SOLVER, upper=np.array([-1.0, -2.0]))
    knowledge.tighten(0, Evidence.LINEAR, upper=np.array([-2.0, -3.0]))
    frozen = knowledge.freeze().layers[0]
    assert frozen.evidence.tolist() == [Evidence.SOLVER, Evidence.INTERVAL]
    assert frozen.upper.tolist() == [-2.0, -3.0]


def test_evidence_of_an_unstable_unit_is_its_witnesses() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.tighten(0, Evidence.INTERVAL, np.full(2, -2.0), np.full(2, 2.0))
    knowledge.show(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert knowledge.freeze().layers[0].evidence.tolist() == [Evidence.WITNESS] * 2


@pytest.mark.parametrize(("point", "bound"), [([1.0, 0.0], "upper"), ([0.0, 1.0], "lower")])
def test_a_bound_that_excludes_a_witness_is_a_contradiction(point: list, bound: str) -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.show(np.array([point]))
    with pytest.raises(ContradictionError, match="layer 0"):
        knowledge.tighten(0, Evidence.LINEAR, **{bound: np.zeros(2)})


@pytest.mark.parametrize(("point", "bound"), [([1.0, 0.0], "upper"), ([0.0, 1.0], "lower")])
def test_a_witness_outside_the_bounds_is_a_contradiction(point: list, bound: str) -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    knowledge.tighten(0, Evidence.LINEAR, **{bound: np.zeros(2)})
    with pytest.raises(ContradictionError, match="witness"):
        knowledge.show(np.array([point]))


def test_bounds_that_cross_are_a_contradiction() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    with pytest.raises(ContradictionError):
        knowledge.tighten(0, Evidence.LINEAR, np.full(2, 2.0), np.full(2, 1.0))


def test_outputs_are_bounded_through_the_relu() -> None:
    affine = Affine(np.array([[1.0]]), np.zeros(1))
    chain = Chain((Layer(affine, True), Layer(affine, False)))
    knowledge = Knowledge(chain, cube(1, -1.0, 1.0))
    for index in (0, 1):
        knowledge.tighten(index, Evidence.LINEAR, np.array([-1.0]), np.array([0.5]))
    assert [b.tolist() for b in knowledge.output_bounds(-1)] == [[-1.0], [1.0]]
    assert [b.tolist() for b in knowledge.output_bounds(0)] == [[0.0], [0.5]]
    assert [b.tolist() for b in knowledge.output_bounds(1)] == [[-1.0], [0.5]]
    frozen = knowledge.freeze()
    assert frozen.layers[1] is None
    assert (frozen.output_lower.tolist(), frozen.output_upper.tolist()) == ([-1.0], [0.5])


def test_what_is_frozen_does_not_change_any_more() -> None:
    knowledge = Knowledge(DIFFERENCE, cube(2))
    frozen = knowledge.freeze().layers[0]
    knowledge.show(np.array([[1.0, 0.0], [0.0, 1.0]]))
    knowledge.tighten(0, Evidence.LINEAR, np.full(2, -5.0), np.full(2, 5.0))
    assert frozen.status.tolist() == [Status.UNDECIDED] * 2
    assert frozen.lower.tolist() == [-INF] * 2
    assert not frozen.seen_positive.any()
    with pytest.raises(ValueError, match="read-only"):
        frozen.status[0] = Status.ACTIVE
