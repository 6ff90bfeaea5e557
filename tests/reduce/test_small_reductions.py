"""Multiples, constants, unread units and runs of linear layers, on networks drawn by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.reduce.constant import constant
from onnx_exact.reduce.runs import fold_runs
from onnx_exact.reduce.scale import scale
from onnx_exact.reduce.state import State
from onnx_exact.reduce.unread import unread
from tests.reduce.states import affine, numbers, state

THIRD = float(np.float32(1 / 3))


def test_an_unstable_unit_takes_in_its_multiples() -> None:
    before = state(
        affine([[1, -1], [2, -2], [1, 1], [0.5, -0.5]], [0.25, 0.5, -1, 0.125]),
        affine([[1, 10, 100, 1000]], [7]),
    )
    after, refused = scale(before, 1.0)
    assert numbers(after) == [([[1, -1], [1, 1]], [0.25, -1]), ([[521, 100]], [7])]
    assert refused == ()


def test_a_factor_need_not_be_a_number_of_the_dtype() -> None:
    before = state(affine([[3, -3], [1, -1]], [0, 0]), affine([[3, 1]], [0]))
    after, _ = scale(before, 1.0)
    weight = after.chain.layers[1].affine.weight
    np.testing.assert_allclose(weight, [[3 + THIRD]], rtol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        ([-1.0, 1.0], 0.5),
        ([1.0, -1.0], 0.5000001),
        ([float(np.nextafter(1.0, 2.0)), -1.0], 0.5),
        ([0.0, 0.0], 0.0),
    ],
    ids=["opposite", "another bias", "another weight", "zero"],
)
def test_rows_that_are_no_multiples_stay(other: tuple[list[float], float]) -> None:
    row, bias = other
    before = state(affine([[1, -1], row], [0.5, bias]), affine([[1, 1]], [0]), dtype=np.float64)
    assert scale(before, 1.0)[0] is before


def test_merging_multiples_that_rounds_too_much_is_refused_with_numbers() -> None:
    before = state(affine([[3, -3], [1, -1]], [0, 0]), affine([[THIRD, 1]], [0]))
    after, refused = scale(before, 0.0)
    assert after is before
    assert refused[0].numbers["deviation"] > refused[0].numbers["allowed"] == 0.0


def test_units_that_nobody_reads_go_with_those_that_only_they_read() -> None:
    before = state(
        affine([[1, -1], [-1, 1]], [0, 0]),
        affine([[1, 0], [1, 1]], [-0.5, -0.5]),
        affine([[1, 0]], [0]),
    )
    assert numbers(unread(before)) == [([[1, -1]], [0]), ([[1]], [-0.5]), ([[1]], [0])]


def test_a_layer_that_reads_nothing_keeps_the_units_before_it() -> None:
    before = state(affine([[1, -1], [-1, 1]], [0, 0]), affine([[0, 0]], [3]))
    assert unread(before) is before


def test_a_unit_without_weights_moves_into_the_next_bias() -> None:
    before = state(affine([[0, 0], [1, -1], [0, 0]], [2, 0, -2]), affine([[3, 1, 5]], [0.5]))
    after, refused = constant(before, 1.0)
    assert numbers(after) == [([[1, -1]], [0]), ([[1]], [6.5])]
    assert refused == ()


def test_a_unit_that_reads_only_fixed_inputs_moves_into_the_next_bias() -> None:
    chain = Chain.of([affine([[4, 0], [1, -1]], [-1, 0]), affine([[10, 1]], [0])])
    box = Box(np.array([0.5, 0.0]), np.array([0.5, 1.0]))
    stability = analyze_chain(chain, box, Options(method="bounds"))
    before = State.of(chain, stability, box, np.dtype(np.float32))
    after, _ = constant(before, 1.0)
    assert numbers(after) == [([[1, -1]], [0]), ([[1]], [10])]


def test_a_layer_of_constants_leaves_a_layer_that_reads_nothing() -> None:
    before = state(affine([[0], [0]], [1, 2]), affine([[1, 1]], [0]), affine([[2]], [0]))
    after, _ = constant(before, 1.0)
    assert not after.chain.layers[1].affine.weight.any()
    assert after.chain.layers[1].affine.bias.tolist() == [3.0]
    assert constant(after, 1.0)[0].chain.layers[0].width == 1


def test_moving_a_constant_that_rounds_too_much_is_refused_with_numbers() -> None:
    before = state(affine([[0], [1]], [THIRD, -0.5]), affine([[THIRD, 1]], [0]))
    after, refused = constant(before, 0.0)
    assert after is before
    assert refused[0].numbers["deviation"] > refused[0].numbers["allowed"] == 0.0


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
        ((10, 9, 2, 9, 10), [2, 10]),
        ((4, 9, 9, 4), [4]),
        ((10, 2, 10), [2, 10]),
        ((3, 2), [2]),
    ],
)
def test_a_run_keeps_its_narrowest_layer_or_none(widths: tuple[int, ...], left: list[int]) -> None:
    before = run_of(*widths)
    after, _ = fold_runs(before, 1.0)
    assert [layer.width for layer in after.chain.layers] == left
    assert after.chain.connections <= before.chain.connections
    x = np.random.default_rng(1).random((20, widths[0]))
    np.testing.assert_allclose(after.chain.forward(x), before.chain.forward(x), rtol=1e-6)


def test_a_run_ends_at_an_unstable_layer() -> None:
    rng = np.random.default_rng(0)
    active = [affine(rng.random((6, 6)).tolist(), [1.0] * 6) for _ in range(2)]
    unstable = affine(rng.normal(size=(6, 6)).tolist(), [0.0] * 6)
    before = state(*active, unstable, *active, affine(rng.random((2, 6)).tolist(), [0.0] * 2))
    after, _ = fold_runs(before, 1.0)
    assert [decided.source for decided in after.layers] == [2, 5]


def test_layers_without_relu_are_part_of_a_run() -> None:
    rng = np.random.default_rng(0)
    maps = [Affine(rng.normal(size=shape), rng.normal(size=shape[0])) for shape in ((8, 3), (2, 8))]
    chain = Chain((Layer(maps[0], relu=False), Layer(maps[1], relu=False)))
    box = Box(np.zeros(3), np.ones(3))
    before = State.of(chain, analyze_chain(chain, box), box, np.dtype(np.float64))
    after, _ = fold_runs(before, 1.0)
    assert [layer.width for layer in after.chain.layers] == [2]


def test_a_fold_that_rounds_too_much_is_refused_with_numbers() -> None:
    before = run_of(4, 3, 2)
    after, refused = fold_runs(before, 0.0)
    assert after.chain.connections == before.chain.connections
    assert refused[0].numbers["deviation"] > refused[0].numbers["allowed"] == 0.0
    assert refused[0].numbers["connections_folded"] < refused[0].numbers["connections"]
