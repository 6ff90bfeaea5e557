"""Sizes with symbols, and which reshapes only regroup features."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.graph.layout import Dim, Layout, product, static

B, T = Dim(1, ("batch",)), Dim(1, ("time",))


def test_products_and_quotients_of_sizes() -> None:
    assert product([B, Dim(3), T, Dim(2)]) == Dim(6, ("batch", "time"))
    assert Dim(6, ("batch", "time")).over(Dim(3, ("batch",))) == Dim(2, ("time",))
    assert Dim(6, ("batch",)).over(Dim(4)) is None
    assert Dim(6).over(B) is None
    assert Dim(6).over(Dim(0)) is None
    assert Dim(1, ("a", "a")).over(Dim(1, ("a",))) == Dim(1, ("a",))


ROW = Layout((B, Dim(6)), 1, 2)
COLUMN = Layout((Dim(6), B), 0, 1)
REGROUPED = [
    (ROW, (B, Dim(2), Dim(3)), (1, 3)),
    (ROW, (B, Dim(1), Dim(6)), (1, 3)),
    (ROW, (Dim(1), B, Dim(6)), (2, 3)),
    (COLUMN, (Dim(2), Dim(3), B), (0, 2)),
    (COLUMN, (Dim(1), Dim(6), B), (0, 2)),
    (Layout((B, T, Dim(6)), 2, 3), (Dim(1, ("batch", "time")), Dim(6)), (1, 2)),
    (Layout((B, T, Dim(6)), 2, 3), (B, T, Dim(2), Dim(3)), (2, 4)),
    (Layout((Dim(4), Dim(6)), 1, 2), static([2, 2, 6]), (2, 3)),
]


@pytest.mark.parametrize(("before", "shape", "axes"), REGROUPED)
def test_reshape_that_only_regroups_is_followed(
    before: Layout, shape: tuple[Dim, ...], axes: tuple[int, int]
) -> None:
    after = before.reshaped(shape)
    assert after is not None
    assert (after.start, after.stop) == axes
    assert after.width == before.width


MIXED = [
    (ROW, (Dim(2, ("batch",)), Dim(3))),
    (ROW, (Dim(6), B)),
    (ROW, (Dim(6, ("batch",)),)),
    (COLUMN, (Dim(6, ("batch",)),)),
    (Layout(static([4, 6]), 1, 2), static([6, 4])),
    (Layout(static([4, 6]), 1, 2), static([8, 3])),
    (Layout(static([4, 6]), 1, 2), static([24])),
    # The features stay together, but no constant shape leads there from another width.
    (Layout((B, T, Dim(6)), 2, 3), (B, Dim(1), T, Dim(6))),
    (COLUMN, (Dim(6), B, Dim(1))),
]


@pytest.mark.parametrize(("before", "shape"), MIXED)
def test_reshape_that_mixes_features_is_not_followed(
    before: Layout, shape: tuple[Dim, ...]
) -> None:
    assert before.reshaped(shape) is None


def test_features_of_unknown_size_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown size"):
        Layout((B, T), 1, 2)


def test_values_per_unit_follow_broadcasting() -> None:
    grid = Layout((B, Dim(2), Dim(3)), 1, 3)
    found = grid.per_unit(np.array([[1.0], [2.0]]))
    assert found is not None
    assert found.tolist() == [1, 1, 1, 2, 2, 2]
    found = grid.per_unit(np.array([1.0, 2.0, 3.0]))
    assert found is not None
    assert found.tolist() == [1, 2, 3, 1, 2, 3]
    assert grid.per_unit(np.ones((1, 1, 1, 3))) is None
    assert grid.per_unit(np.ones((4, 2, 3))) is None
    assert Layout(static([4, 3]), 1, 2).per_unit(np.ones((4, 3))) is not None
    assert Layout(static([4, 3]), 1, 2).per_unit(np.arange(12.0).reshape(4, 3)) is None
    assert Layout((B, Dim(1)), 1, 2).per_unit(np.ones(3)) is None
