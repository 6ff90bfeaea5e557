"""The normal form of a layer: by hand, and on random layers against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.reduce import ReduceOptions, reduce_chain
from onnx_exact.reduce import collinear as collinear_module
from onnx_exact.reduce.collinear import COSINE, _near, collinear
from onnx_exact.reduce.layer import prune, rewrite
from onnx_exact.reduce.realise import ALL_KINDS
from onnx_exact.reduce.state import State
from onnx_exact.reduce.units import NEW
from tests.reduce.states import affine, numbers, state

THIRD = float(np.float32(1 / 3))
F32, F64 = np.dtype(np.float32), np.dtype(np.float64)


def written(before: State, max_deviation: float | None = 1.0, negligible: bool = False) -> State:
    """Every layer in its normal form, from the last to the first."""
    for index in range(len(before.layers) - 2, -1, -1):
        before = rewrite(before, index, max_deviation, ALL_KINDS, negligible).state
    return before


def test_an_unstable_unit_takes_in_its_multiples() -> None:
    before = state(
        affine([[1, -1], [2, -2], [1, 1], [0.5, -0.5]], [0.25, 0.5, -1, 0.125]),
        affine([[1, 10, 100, 1000]], [7]),
    )
    assert numbers(written(before)) == [([[1, -1], [1, 1]], [0.25, -1]), ([[521, 100]], [7])]


def test_a_factor_need_not_be_a_number_of_the_dtype() -> None:
    before = state(affine([[3, -3], [1, -1]], [0, 0]), affine([[3, 1]], [0]))
    weight = written(before).chain.layers[1].affine.weight
    np.testing.assert_allclose(weight, [[3 + THIRD]], rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [([1.0, -1.0], 0.5000001), ([float(np.nextafter(1.0, 2.0)) * 1.001, -1.0], 0.5)],
    ids=["another bias", "another weight"],
)
def test_rows_that_are_no_multiples_stay(other: tuple[list[float], float]) -> None:
    row, bias = other
    before = state(affine([[1, -1], row], [0.5, bias]), affine([[1, 1]], [0]), dtype=np.float64)
    assert written(before) is before


def test_multiples_that_cancel_are_no_kink() -> None:
    before = state(
        affine([[1, -1], [-2, 2], [-4, 4], [1, 1]], [0, 0, 0, -1]), affine([[1, 2, -1, 3]], [5])
    )
    assert numbers(written(before)) == [([[1, -1], [1, 1]], [0, -1]), ([[1, 3]], [5])]


def test_an_opposite_pair_with_its_linear_part_is_one_unit() -> None:
    """h_2 + (g + 1) with g_2 = -g is h_1 + 1, since max(-g, 0) = max(g, 0) - g."""
    before = state(affine([[-1, 1], [1, -1]], [0, 1]), affine([[3, 3]], [0.5]))
    assert numbers(written(before)) == [([[1, -1]], [0]), ([[3]], [3.5])]
    pair = state(affine([[1, -1], [-1, 1], [1, -1]], [0, 0, 1]), affine([[2, 3, 3]], [0.5]))
    assert numbers(written(pair)) == [([[1, -1]], [0]), ([[5]], [3.5])]


def test_a_pair_alone_stays() -> None:
    before = state(affine([[1, -1], [-1, 1]], [0, 0]), affine([[1, 3]], [0]))
    assert written(before) is before


def test_a_kink_that_was_turned_faces_back() -> None:
    """Two kinks of one reader, each as its opposite and its linear part mixed with the other's."""
    rows, read = np.array([[1.0, -2.0], [3.0, -1.0]]), np.array([[2.0, 5.0]])
    mixed = read @ rows
    first = Affine(np.vstack([-rows, mixed]), np.array([0.0, 0.0, 16.0]))
    before = state(first, affine([[2, 5, 1]], [-16]))
    after = written(before)
    assert numbers(after) == [(rows.tolist(), [0, 0]), (read.tolist(), [0])]
    assert after.layers[0].origin.factor.tolist()[:2] == [-1.0, -1.0]


def test_what_rounds_is_refused_with_numbers_where_nothing_may_be() -> None:
    before = state(affine([[3, -3], [1, -1]], [0, 0]), affine([[THIRD, 1]], [0]))
    edit = rewrite(before, 0, 0.0, ALL_KINDS)
    assert edit.state is before
    assert edit.refused[0].numbers["deviation"] > edit.refused[0].numbers["allowed"] == 0.0
    assert rewrite(before, 0, None, ALL_KINDS).refused == ()


def test_units_that_nobody_reads_go() -> None:
    before = state(affine([[1, -1], [-1, 1]], [0, 0]), affine([[1, 0]], [0.5]))
    edit = prune(before, 0)
    assert numbers(edit.state) == [([[1, -1]], [0]), ([[1]], [0.5])]
    assert edit.counts == {(0, "removed"): 1}
    nothing = state(affine([[1, -1], [-1, 1]], [0, 0]), affine([[0, 0]], [3]))
    assert prune(nothing, 0).state is nothing


def test_constants_move_into_the_next_bias() -> None:
    before = state(affine([[0, 0], [1, -1], [0, 0]], [2, 0, -2]), affine([[3, 1, 5]], [0.5]))
    edit = rewrite(before, 0, 0.0, ALL_KINDS)
    assert numbers(edit.state) == [([[1, -1]], [0]), ([[1]], [6.5])]
    assert edit.counts[0, "folded"] == 2


def test_one_row_needs_one_unit_shifted_by_the_least_that_keeps_it_active() -> None:
    """h1 - 2 h2 + h3 + 5 with g = (x + y, x + 1, y + 2) is -x + 2 y + 5, where -x + 2 y >= -1."""
    before = state(
        affine([[1, 1], [1, 0], [0, 1], [1, -1]], [0, 1, 2, 0]), affine([[1, -2, 1, 9]], [5])
    )
    after = written(before)
    (weight, shift), (read, bias) = numbers(after)
    assert (weight, read) == ([[1, -1], [-1, 2]], [[9, 1]])
    # The least float32 number that covers a bound widened for the rounding of its computation.
    assert 1.0 <= shift[1] <= np.nextafter(np.float32(1), np.float32(2))
    assert bias == pytest.approx([4.0], abs=1e-6)
    assert after.layers[0].status.tolist() == [Status.UNSTABLE, Status.ACTIVE]
    assert after.layers[0].units.tolist() == [3, NEW]


def test_fewer_inputs_than_rows_are_passed_through() -> None:
    before = state(
        affine([[1, 0], [2, 0], [3, 0], [1, -1]], [1, 1, 1, 0]),
        affine(np.eye(4).tolist(), [0, 0, 0, 0]),
    )
    (weight, shift), (_, bias) = numbers(written(before))
    assert (weight, shift) == ([[1, 0], [1, -1]], [1, 0])
    assert bias == [0, -1, -2, 0]


def test_a_shift_that_no_bound_gives_is_refused() -> None:
    """The units are active over all inputs from 0 on, their difference is not bounded."""
    chain = Chain.of([affine([[1, 2], [2, 1], [1, -1]], [0, 0, 0]), affine([[1, -1, 5]], [0])])
    box = Box(np.zeros(2), np.full(2, np.inf))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduction = reduce_chain(chain, stability, box, F32)
    assert not reduction.changed
    assert any("not bounded" in refusal.reason for refusal in reduction.refused)


def run_of(*widths: int) -> State:
    """Stably active layers of these widths, inputs and outputs included."""
    rng = np.random.default_rng(0)
    return state(
        *(
            affine(rng.random((n_out, n_in)).tolist(), rng.random(n_out).tolist())
            for n_in, n_out in pairwise(widths)
        )
    )


@pytest.mark.parametrize(
    ("widths", "left"),
    [
        ((4, 3, 4, 100), [3, 100]),
        ((5, 3, 4, 4), [4]),
        ((10, 2, 9, 3, 10), [2, 10]),
        ((4, 9, 9, 4), [4]),
    ],
)
def test_linear_layers_are_folded_as_far_as_that_saves_entries(
    widths: tuple[int, ...], left: list[int]
) -> None:
    before = run_of(*widths)
    stability = analyze_chain(before.chain, before.box, Options(method="bounds"))
    after = reduce_chain(before.chain, stability, before.box, F32).chain
    assert [layer.width for layer in after.layers] == left
    x = np.random.default_rng(1).random((20, widths[0]))
    np.testing.assert_allclose(after.forward(x), before.chain.forward(x), rtol=1e-6)


def test_layers_without_relu_are_linear_too() -> None:
    rng = np.random.default_rng(0)
    maps = [Affine(rng.normal(size=shape), rng.normal(size=shape[0])) for shape in ((8, 3), (2, 8))]
    chain = Chain((Layer(maps[0], relu=False), Layer(maps[1], relu=False)))
    box = Box(np.zeros(3), np.ones(3))
    reduction = reduce_chain(chain, analyze_chain(chain, box), box, F64)
    assert [layer.width for layer in reduction.chain.layers] == [2]


def test_what_costs_less_than_half_a_unit_in_the_last_place_is_dropped_and_counted() -> None:
    before = state(
        affine([[1, -1], [2.0**-26, -0.75 * 2.0**-26], [1, -0.5]], [0, 0, 0]),
        affine([[1, 1, 1]], [0]),
    )
    edit = rewrite(before, 0, 1.0, ALL_KINDS)
    assert edit.state.layers[0].layer.width == 2
    assert edit.counts[0, "negligible"] == 1
    assert rewrite(before, 0, 1.0, ALL_KINDS, negligible=False).state is before
    assert rewrite(before, 0, 0.0, ALL_KINDS).state is before


def test_many_that_are_negligible_alone_are_not_all_dropped() -> None:
    """Each costs a third of what all of them may cost together."""
    tiny = [[2.0**-24 / 3.0 * s, -(2.0**-26) * (1 + k / 8)] for k, s in enumerate([1.0] * 6)]
    before = state(affine([[1, -1], *tiny], [0.0] * 7), affine([[1.0] * 7], [0]))
    edit = rewrite(before, 0, 1.0, ALL_KINDS)
    assert 0 < edit.counts[0, "negligible"] <= 3


def test_units_that_are_hardly_ever_below_zero_are_linear() -> None:
    """A layer that passes its inputs on, each moved by a quarter of what 1 is rounded by."""
    tiny = 2.0**-27
    before = state(affine([[1, 0], [0, 1]], [-tiny, -tiny]), affine([[1, 1]], [0]))
    edit = rewrite(before, 0, 1.0, ALL_KINDS)
    assert len(edit.state.layers) == 1
    assert edit.counts[0, "negligible"] == 2
    assert rewrite(before, 0, 1.0, ALL_KINDS, negligible=False).state is before
    assert rewrite(before, 0, 0.0, ALL_KINDS).state is before


def test_a_unit_that_is_dropped_is_not_straightened() -> None:
    """Both would do; only one takes the unit away."""
    tiny = 2.0**-27
    before = state(affine([[1, -1], [2 * tiny, -tiny]], [0, 0]), affine([[1, 1]], [0]))
    edit = rewrite(before, 0, 1.0, ALL_KINDS)
    assert edit.state.layers[0].layer.width == 1
    assert edit.counts[0, "negligible"] == 1


def test_linear_parts_of_turned_kinks_that_each_reader_has_alone_are_turned_back() -> None:
    """max(g, 0) = g + max(-g, 0) with sum_k V_rk g_k as a unit for each reader r, beside a unit
    that both readers read and that stays."""
    rng = np.random.default_rng(0)
    rows = rng.integers(-4, 5, (6, 5)).astype(float)
    rows[:, 0] -= rows.sum(axis=1) - rng.choice([-1, 1], 6)
    read = rng.integers(1, 5, (2, 6)).astype(float)
    flip = np.array([0, 2, 3])
    turned = rows.copy()
    turned[flip] *= -1.0
    active = np.vstack([read[:, flip] @ rows[flip], [[1.0, 2.0, 0.0, 1.0, 3.0]]])
    lift = np.abs(active).sum(axis=1)
    before = state(
        affine(np.vstack([turned, active]).tolist(), [*[0.0] * 6, *lift]),
        affine(np.hstack([read, np.eye(2), [[3.0], [5.0]]]).tolist(), [0.0, 0.0]),
    )
    after = written(before)
    assert after.layers[0].layer.width == 7
    points = before.box.sample(rng, 200)
    np.testing.assert_allclose(
        after.chain.forward(points), before.chain.forward(points), rtol=1e-6, atol=1e-4
    )


@st.composite
def layers(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], list[int]]:
    """Units as small integer multiples of few rows (w, b), and how two readers read them."""
    entry = st.integers(-2, 2)
    rows = draw(st.lists(st.tuples(entry, entry, entry), min_size=1, max_size=4))
    picks = draw(
        st.lists(
            st.tuples(st.integers(0, 3), st.sampled_from([-4, -2, -1, 1, 2, 4]), st.integers(0, 9)),
            min_size=2,
            max_size=9,
        )
    )
    units = []
    for pick, factor, lift in picks:
        *w, b = rows[pick % len(rows)]
        # Some of them are lifted until they are always on.
        units.append([factor * v for v in w] + [factor * b + (24 if lift > 6 else 0)])
    read = [[draw(st.integers(-3, 3)) for _ in units] for _ in range(2)]
    return units, read, [draw(entry), draw(entry)]


@settings(max_examples=300, deadline=None)
@given(layers(), st.sampled_from([None, 0.0, 1.0]))
def test_random_layers_compute_the_same_in_rationals(
    drawn: tuple[list[list[int]], list[list[int]], list[int]], max_deviation: float | None
) -> None:
    """Numbers are so small that nothing is rounded but by realisations that have to."""
    units, read, constant = drawn
    before = state(
        affine([u[:2] for u in units], [u[2] for u in units]), affine(read, constant), dtype=F64
    )
    after = written(before, max_deviation)
    assert after.layers[0].layer.width <= before.layers[0].layer.width
    rng = np.random.default_rng(0)
    points = np.vstack([before.box.corners(rng, 4), rng.integers(0, 17, size=(12, 2)) / 16.0])
    for x in points.tolist():
        for old, new in zip(exact(before, x), exact(after, x), strict=True):
            room = 0 if max_deviation is None else Fraction(1, 10**11)
            assert abs(old - new) <= room


def exact(network: State, x: list[float]) -> list[Fraction]:
    h = [Fraction(v) for v in x]
    for decided in network.layers:
        affine_ = decided.layer.affine
        g = [
            sum((Fraction(w) * v for w, v in zip(row, h, strict=True)), Fraction(b))
            for row, b in zip(affine_.weight.tolist(), affine_.bias.tolist(), strict=True)
        ]
        h = [max(v, Fraction(0)) for v in g] if decided.layer.relu else g
    return h


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_width_is_at_most_the_kinks_and_the_least_of_three(seed: int, dtype: Any) -> None:
    rng = np.random.default_rng(seed)
    widths = [12, 40, 30, 20, 5]
    affines = []
    for n_in, n_out in pairwise(widths):
        # Half of the units are stably active for their large bias.
        bias = np.where(rng.random(n_out) < 0.5, 0.0, 30.0)
        weight = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        affines.append(Affine(weight.astype(dtype), bias.astype(dtype)))
    before = state(*affines, low=-1.0, dtype=dtype)
    stability = analyze_chain(before.chain, before.box, Options(method="bounds"))
    reduction = reduce_chain(before.chain, stability, before.box, np.dtype(dtype))
    after = reduction.chain
    for index, origin in enumerate(reduction.origins[:-1]):
        status = before.layers[origin.source].status
        active = int((status == Status.ACTIVE).sum())
        assert active > 5
        fan_in, rows = after.layers[index].affine.n_in, after.layers[index + 1].width
        assert after.layers[index].width <= status.size - active + min(active, fan_in, rows)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_rows_are_multiples_only_within_what_is_allowed(sign: float) -> None:
    base = np.array([1.0, 2.0, -0.5])
    near, far = 0.7 * base + np.array([0.0, 0.0, 1e-9]), base + np.array([1e-3, 0.0, 0.0])
    rows = np.vstack([base, 3.0 * sign * base, near, far])
    (group,) = collinear(rows.__getitem__, np.ones(3), np.full(4, 1e-12), np.arange(4))
    assert (group.first, group.units.tolist()) == (0, [1])
    assert group.factors.tolist() == [3.0 * sign]
    assert group.residue.tolist() == [0.0]
    (wider,) = collinear(rows.__getitem__, np.ones(3), np.full(4, 1e-8), np.arange(4))
    assert wider.units.tolist() == [1, 2]
    assert 0.0 < wider.residue[1] < 1e-8


@pytest.mark.parametrize("inputs", [1, 2, 5, 40])
def test_every_pair_of_rows_with_one_direction_is_looked_at(
    inputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collinear_module, "BLOCK", 8)
    rng = np.random.default_rng(inputs)
    for _ in range(40):
        rows = rng.standard_normal((60, inputs)) * (rng.random((60, inputs)) < 0.5)
        for _ in range(30):
            own, other = rng.integers(60, size=2)
            shift = rng.choice([0.0, 1e-5, 1e-4, 1e-3]) * rng.standard_normal(inputs)
            rows[own] = rng.choice([-2.0, 1.0, 0.3]) * rows[other] + shift
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = rows / np.where(lengths > 0.0, lengths, 1.0)
        cosines = np.abs(rows @ rows.T)
        # What lies at the border itself may be seen either way.
        assert not (np.abs(cosines - COSINE) < 1e-14).any()
        pairs = {(i, j) for i, j in np.argwhere(np.triu(cosines > COSINE, 1)).tolist()}
        near = _near(rows.__getitem__, len(rows))
        assert {(i, j) for i, others in near.items() for j in others.tolist()} == pairs


def test_all_together_keep_no_more_with_more_allowed() -> None:
    before = run_of(6, 9, 9, 3)
    stability = analyze_chain(before.chain, before.box, Options(method="bounds"))
    sizes = [
        reduce_chain(
            before.chain, stability, before.box, F32, ReduceOptions(max_deviation=most)
        ).chain.connections
        for most in (0.0, 1.0)
    ]
    assert sizes[1] < sizes[0] == before.chain.connections
