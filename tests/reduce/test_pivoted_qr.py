"""The pivoted QR factorization against scipy's."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.reduce import pivoted_qr as module
from onnx_exact.reduce.pivoted_qr import pivoted_qr


@pytest.mark.parametrize("shape", [(1, 1), (30, 1), (1, 4), (5, 9), (9, 5), (60, 40)])
@pytest.mark.parametrize("most", [0, module.MOST])
def test_pivots_and_their_order_are_those_of_scipy(
    shape: tuple[int, int], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", most)
    from scipy.linalg import qr

    rng = np.random.default_rng(sum(shape))
    columns = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape[1]))
    r, order = qr(columns, mode="r", pivoting=True)
    pivots, own = pivoted_qr(columns)
    np.testing.assert_allclose(pivots, np.abs(np.diagonal(r)), rtol=1e-10, atol=1e-13)
    assert own.tolist() == order.tolist() or min(shape) == 1
    assert sorted(own.tolist()) == list(range(shape[1]))


def test_of_columns_that_depend_on_others_nothing_is_left() -> None:
    rng = np.random.default_rng(0)
    columns = rng.standard_normal((20, 4)) @ rng.standard_normal((4, 10))
    pivots, _ = pivoted_qr(columns)
    assert (pivots[:4] > 0.1).all()
    assert (pivots[4:] < 1e-12).all()
    assert pivoted_qr(np.zeros((3, 2)))[0].tolist() == [0.0, 0.0]
