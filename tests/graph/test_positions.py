"""Chains in which the positions beside the features are regrouped: rows, columns, and back."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.build import Builder, check_model


def left(b: Builder, x: str, n_in: int, n_out: int) -> str:
    """W x."""
    return b.node("MatMul", b.weight(n_out, n_in), x)


@pytest.mark.parametrize("positions", [1, 3])
def test_rows_of_one_feature_become_columns(positions: int) -> None:
    b = Builder(dtype=np.float64)
    y = b.node("MatMul", "x", b.weight(4, 1))
    y = b.node("Flatten", b.node("Reshape", y, b.ints(-1, positions, 1, 1)), axis=0)
    y = left(b, b.relu(left(b, y, 1, 5)), 5, 2)
    check_model(b.model([y], {"x": ["batch", positions, 4]}))


@pytest.mark.parametrize("target", [(1, -1), (1, 1, -1), (-1, 1, 3), (3, 1, -1)])
def test_one_feature_is_found_along_any_axis_of_size_one(target: tuple[int, ...]) -> None:
    b = Builder(dtype=np.float64)
    y = b.relu(b.node("MatMul", "x", b.weight(4, 1)))
    y = b.node("Reshape", y, b.ints(*target))
    y = left(b, b.relu(left(b, y, 1, 5)), 5, 2) if target[-2] == 1 else b.relu(y)
    check_model(b.model([y], {"x": ["batch", 3, 4]}), count=None)


def test_columns_become_rows_of_one_feature() -> None:
    b = Builder(dtype=np.float64)
    y = left(b, b.relu(left(b, "x", 4, 5)), 5, 1)
    y = b.node("Reshape", y, b.ints(-1, 1))
    y = b.dense(b.relu(b.dense(y, 1, 6)), 6, 2)
    check_model(b.model([y], {"x": [4, "batch"]}), count=None)


@pytest.mark.parametrize(
    ("shape", "steps"),
    [
        (["batch", 3, 4], [("Flatten", {"axis": 2})]),
        (["batch", 3, 4], [("Flatten", {"axis": 2}), ("Transpose", {"perm": [1, 0]})]),
        (["batch", 3, 4], [("Transpose", {"perm": [0, 2, 1]})]),
        (["batch", 3, 4], [("Transpose", {"perm": [1, 0, 2]})]),
        ([2, 3, 4], [("Flatten", {"axis": 0})]),
        ([1, 3, 4], [("Flatten", {"axis": 1})]),
    ],
)
def test_movement_inside_a_chain_mixes_nothing(
    shape: list[int | str], steps: list[tuple[str, dict[str, object]]]
) -> None:
    """Whatever the movement does to batch and features, what is located computes what it says."""
    b = Builder(dtype=np.float64)
    y = b.relu(b.node("Add", b.node("MatMul", "x", b.weight(4, 4)), b.weight(4)))
    for op, attributes in steps:
        y = b.node(op, y, **attributes)
    y = b.relu(y)
    check_model(b.model([y], {"x": shape}), count=None)
