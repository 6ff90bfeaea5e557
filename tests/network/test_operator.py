"""Linear maps behind one interface: each structure is the matrix that it stands for."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from onnx_exact.network import Affine, operator
from onnx_exact.network.affine import Array
from onnx_exact.network.operator import Blocks, Dense, Operator
from tests.structures import STRUCTURES, blocks

every_structure = pytest.mark.parametrize("name", list(STRUCTURES))
# A row, a few rows, all rows at a time.
every_block = pytest.mark.parametrize("block", [1, 16, 2**16])


def matrix(seed: int, rows: int = 7, columns: int = 5) -> Array:
    """Numbers of float32, some of them 0."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < 0.7)
    return weight.astype(np.float32).astype(np.float64)


@pytest.fixture
def made(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> Operator:
    monkeypatch.setattr(operator, "BLOCK", block)
    return STRUCTURES[name](matrix(0))


@every_structure
@every_block
def test_every_structure_is_the_matrix_that_it_stands_for(made: Operator) -> None:
    weight, rng = matrix(0), np.random.default_rng(1)
    assert (made.n_out, made.n_in, made.size) == (7, 5, 35)
    assert made.fan_in >= 5
    assert made.fan_out >= 7
    for shape in ((), (3,), (2, 3)):
        x, y = rng.standard_normal((*shape, 5)), rng.standard_normal((*shape, 7))
        np.testing.assert_allclose(made.apply(x), x @ weight.T, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(made.pull_back(y), y @ weight, rtol=1e-14, atol=1e-14)
    np.testing.assert_array_equal(made.rows(slice(None)), weight)
    np.testing.assert_array_equal(made.rows(np.array([4, 1])), weight[[4, 1]])


@every_structure
@every_block
def test_parts_and_magnitudes_are_those_of_the_entries(made: Operator) -> None:
    weight, every = matrix(0), slice(None)
    np.testing.assert_array_equal(made.absolute().rows(every), np.abs(weight))
    np.testing.assert_array_equal(made.positive().rows(every), np.maximum(weight, 0.0))
    np.testing.assert_array_equal(made.negative().rows(every), np.minimum(weight, 0.0))
    np.testing.assert_array_equal(made.pattern().rows(every), weight != 0.0)
    np.testing.assert_array_equal(made.negative().pattern().rows(every), weight < 0.0)
    x = np.arange(5.0)
    np.testing.assert_allclose(made.absolute().apply(x), np.abs(weight) @ x, rtol=1e-14)


@every_structure
@every_block
def test_a_restricted_map_has_the_entries_that_are_left(made: Operator) -> None:
    kept_in, kept_out = np.array([3, 0]), np.array([False, True, True, False, False, True, True])
    part = made.restrict(kept_in, kept_out)
    np.testing.assert_array_equal(part.rows(slice(None)), matrix(0)[kept_out][:, kept_in])
    assert part.equals(STRUCTURES["dense"](matrix(0)).restrict(kept_in, kept_out)) == (
        type(part) in (Dense, Blocks)
    )


@every_structure
@every_block
def test_the_map_in_float32_stays_in_float32(made: Operator) -> None:
    x, y = np.ones(5, np.float32), np.ones(7, np.float32)
    single = made.single()
    assert single.apply(x).dtype == single.pull_back(y).dtype == np.float32
    np.testing.assert_allclose(single.apply(x), matrix(0) @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(single.pull_back(y), y @ matrix(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        made.absolute().single().apply(x), np.abs(matrix(0)) @ x, rtol=1e-5, atol=1e-6
    )


def test_maps_are_equal_if_all_entries_are() -> None:
    for name in STRUCTURES:
        assert STRUCTURES[name](matrix(0)).equals(STRUCTURES[name](matrix(0)))
        assert not STRUCTURES[name](matrix(0)).equals(STRUCTURES[name](matrix(1)))


def test_blocks_keep_numbers_that_float32_has_in_half_the_bytes() -> None:
    made = blocks(matrix(0))
    assert isinstance(made, Blocks)
    assert made.matrix.nbytes * 2 == matrix(0).nbytes
    assert isinstance(made.absolute(), Blocks)


def test_only_a_matrix_has_a_weight_matrix() -> None:
    affine = Affine(STRUCTURES["wrapped"](matrix(0)), np.zeros(7))
    np.testing.assert_array_equal(affine.entries, matrix(0))
    with pytest.raises(TypeError, match="no float64 matrix"):
        _ = affine.weight
    np.testing.assert_array_equal(Affine(blocks(matrix(0)), np.zeros(7)).weight, matrix(0))


def test_a_large_matrix_stays_in_float32_where_that_has_its_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operator, "LARGE", 35)
    monkeypatch.setattr(operator, "BLOCK", 10)
    assert isinstance(operator.as_operator(matrix(0)), Blocks)
    assert isinstance(operator.as_operator(matrix(0).astype(np.float32)), Blocks)
    assert isinstance(operator.as_operator(matrix(0)[:-1]), Dense)
    for other in (0.1, 1e300):
        finer = matrix(0)
        finer[-1, -1] = other
        made = operator.as_operator(finer)
        assert isinstance(made, Dense)
        np.testing.assert_array_equal(made.matrix, finer)


def test_what_is_kept_is_nobody_elses_to_change() -> None:
    mine = matrix(0)
    made, part = Dense(mine), Dense(mine[:3])
    mine[:] = 0.0
    np.testing.assert_array_equal(made.matrix, matrix(0))
    np.testing.assert_array_equal(part.matrix, matrix(0)[:3])


@every_structure
def test_functionals_are_signed_rows_whatever_the_structure(name: str) -> None:
    affine = Affine(STRUCTURES[name](matrix(0)), np.arange(7.0))
    rows = affine.signed(np.array([2, 5]), np.array([-1.0, 1.0]))
    np.testing.assert_array_equal(rows.weight, matrix(0)[[2, 5]] * [[-1.0], [1.0]])
    assert rows.bias.tolist() == [-2.0, 5.0]
    assert affine.row(3).tolist() == [float(Fraction(v)) for v in matrix(0)[3].tolist()]
