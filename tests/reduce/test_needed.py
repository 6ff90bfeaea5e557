"""Linear units in the place of stably active ones, on networks small enough to work out by hand."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.reduce import reduce_chain
from onnx_exact.reduce.needed import needed
from onnx_exact.reduce.state import State
from onnx_exact.reduce.units import NEW
from tests.reduce.states import affine, numbers, state

UNBOUNDED = np.inf


def narrowed(before: State, max_deviation: float = 1.0) -> State:
    return needed(before, max_deviation)[0]


def test_one_row_needs_one_unit_shifted_by_the_least_that_keeps_it_active() -> None:
    """
    x1 + x2      \\  1
    x1      + 1   > -2  ->  h1 - 2 h2 + h3 + 5 = (-x1 + 2 x2 + 1) - 1 + 0 + 5
         x2 + 2  /   1      where -x1 + 2 x2 >= -1 on [0, 1]^2
    """
    before = state(
        affine([[1, 1], [1, 0], [0, 1]], [0, 1, 2]), affine([[1, -2, 1]], [5]), low=0, high=1
    )
    after = narrowed(before)
    (weight, shift), (read, bias) = numbers(after)
    assert (weight, read) == ([[-1, 2]], [[1]])
    # The least float32 number that covers a bound widened for the rounding of its computation.
    assert 1.0 <= shift[0] <= np.nextafter(np.float32(1), np.float32(2))
    assert bias == pytest.approx([4.0], abs=1e-6)
    assert after.layers[0].status.tolist() == [Status.ACTIVE]
    assert after.layers[0].units.tolist() == [NEW]
    assert (after.layers[0].lower[0], after.layers[0].upper[0]) == pytest.approx(
        (0.0, 3.0), abs=1e-6
    )


def test_unstable_units_stay_as_they_are() -> None:
    before = state(
        affine([[1, -1], [1, 1], [2, 1]], [0, 1, 1]), affine([[7, 1, -1]], [0]), low=0, high=1
    )
    after = narrowed(before)
    # (x1 + x2 + 1) - (2 x1 + x2 + 1) = -x1: the input itself is passed through.
    assert numbers(after) == [([[1, -1], [1, 0]], [0, 0]), ([[7, -1]], [0])]
    assert after.layers[0].units.tolist() == [0, NEW]


def test_fewer_inputs_than_rows_are_passed_through() -> None:
    before = state(affine([[1], [2], [3]], [1, 1, 1]), affine(np.eye(3).tolist(), [0, 0, 0]))
    assert numbers(narrowed(before)) == [([[1]], [0]), ([[1], [2], [3]], [1, 1, 1])]


def test_an_input_that_can_be_negative_is_passed_through_with_a_shift() -> None:
    before = state(
        affine([[1], [2], [3]], [1, 2, 3]), affine(np.eye(3).tolist(), [0, 0, 0]), low=-0.5
    )
    assert numbers(narrowed(before)) == [([[1]], [0.5]), ([[1], [2], [3]], [0.5, 1.0, 1.5])]


def test_rows_that_need_multiples_of_the_same_share_a_unit() -> None:
    first = affine([[1, 1, 0], [0, 1, 1], [1, 0, 1]], [0, 0, 0])
    second = affine([[1, 1, 1], [2, 2, 2], [-3, -3, -3], [0, 0, 0]], [0, 0, 0, 9])
    after = narrowed(state(first, second))
    assert [layer.width for layer in after.chain.layers] == [1, 4]
    x = np.random.default_rng(0).random((50, 3))
    expected = state(first, second).chain.forward(x)
    np.testing.assert_allclose(after.chain.forward(x), expected, rtol=1e-6, atol=1e-6)


def test_units_that_cancel_leave_a_constant() -> None:
    """x + 1 and x + 3, read with 1 and -1: the difference is -2 whatever x is."""
    before = state(affine([[1], [1]], [1, 3]), affine([[1, -1]], [5]))
    after = narrowed(before)
    assert not after.chain.layers[1].affine.weight.any()
    assert after.chain.layers[1].affine.bias.tolist() == [3.0]


def test_each_layer_serves_only_what_was_kept_after_it() -> None:
    """10 active units a layer and one output: one unit a layer is left."""
    rng = np.random.default_rng(0)
    layers = [affine(rng.random((10, 10)).tolist(), rng.random(10).tolist()) for _ in range(3)]
    last = affine(rng.normal(size=(1, 10)).tolist(), [0.0])
    after = narrowed(state(*layers, last))
    assert [layer.width for layer in after.chain.layers] == [1, 1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_width_is_at_most_the_unstable_units_and_the_least_of_three(
    seed: int, dtype: Any
) -> None:
    rng = np.random.default_rng(seed)
    widths = [12, 40, 30, 20, 5]
    layers = []
    for n_in, n_out in pairwise(widths):
        # Half of the units are stably active for their large bias.
        bias = np.where(rng.random(n_out) < 0.5, 0.0, 30.0)
        weight = rng.normal(size=(n_out, n_in)) / np.sqrt(n_in)
        layers.append(Affine(weight.astype(dtype), bias.astype(dtype)))
    before = state(*layers, low=-1.0, dtype=dtype)
    after = narrowed(narrowed(before))
    for index in range(len(widths) - 2):
        status = before.layers[index].status
        active = int((status == Status.ACTIVE).sum())
        fan_in = after.chain.layers[index].affine.n_in
        rows = after.chain.layers[index + 1].width
        others = status.size - active
        assert active > 5
        assert after.chain.layers[index].width <= others + min(active, fan_in, rows)


def test_new_units_never_go_below_zero_and_hold_their_bounds() -> None:
    rng = np.random.default_rng(3)
    layers = [
        affine(rng.normal(size=(30, 8)).tolist(), [8.0] * 30),
        affine(rng.normal(size=(6, 30)).tolist(), [0.0] * 6),
        affine(rng.normal(size=(2, 6)).tolist(), [0.0] * 2),
    ]
    after = narrowed(state(*layers, low=-1.0, dtype=np.float64))
    points = after.box.corners(rng, 2000)
    for decided, values in zip(after.layers, after.chain.preactivations(points), strict=True):
        slack = 1e-12 * (1.0 + np.abs(values).max())
        assert (values >= decided.lower - slack).all()
        assert (values <= decided.upper + slack).all()
        assert (values[:, decided.units == NEW] >= -slack).all()


def test_nothing_is_done_where_no_unit_is_saved() -> None:
    before = state(affine([[1, 0], [0, 1]], [0, 0]), affine(np.eye(2).tolist(), [0, 0]))
    after, refused = needed(before, 1.0)
    assert after is before
    assert refused == ()


def test_a_maximum_deviation_of_zero_is_refused_with_numbers() -> None:
    third = float(np.float32(1 / 3))
    before = state(affine([[third, 0.1], [0.7, third]], [0.1, 0.2]), affine([[third, -0.3]], [0.7]))
    after, refused = needed(before, 0.0)
    assert after is before
    assert refused
    for refusal in refused:
        assert refusal.numbers["deviation"] > refusal.numbers["allowed"] == 0.0
        assert refusal.numbers["units_needed"] < refusal.numbers["units"] == 2


def test_numbers_that_do_not_fit_the_dtype_are_refused() -> None:
    large = 6e4  # below the largest float16, its square is not
    before = state(
        affine([[large, 1], [large, 2]], [0, 0]), affine([[large, large]], [0]), dtype=np.float16
    )
    after, refused = needed(before, 1.0)
    assert after is before
    assert "do not fit float16" in refused[0].reason


def test_a_shift_that_no_bound_gives_is_refused() -> None:
    """Both units are active over all inputs from 0 on, their difference is not bounded."""
    chain = Chain.of([affine([[1, 2], [2, 1]], [0, 0]), affine([[1, -1]], [0])])
    box = Box(np.zeros(2), np.full(2, UNBOUNDED))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    before = State.of(chain, stability, box, np.dtype(np.float32))
    after, refused = needed(before, 1.0)
    assert after is before
    assert "no bound says" in refused[0].reason
    assert refused[0].numbers == {"units": 2.0, "units_needed": 1.0}


def test_over_an_unbounded_domain_nothing_is_shifted_by_infinity() -> None:
    """The units are constant here: the only ones that are stable on every input."""
    chain = Chain.of([affine([[0, 0], [0, 0], [1, 1]], [1, 2, 0]), affine([[1, 1, 1]], [0])])
    box = Box(np.full(2, -UNBOUNDED), np.full(2, UNBOUNDED))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    reduced = reduce_chain(chain, stability, box, np.dtype(np.float32)).chain
    assert [layer.width for layer in reduced.layers] == [1, 1]
    assert reduced.layers[1].affine.bias.tolist() == [3.0]
