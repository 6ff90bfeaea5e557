"""QR factorization with column pivoting: which columns to take first, and what each adds.

scipy has it, but loading scipy takes longer than reducing a small network: up to a size it is done
here, by Householder reflections, after numpy's plain QR has left a small triangle to do it on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from onnx_exact.network.affine import Array

# Columns up to which it is done here: reflections one at a time are slow for more.
MOST = 512


def pivoted_qr(columns: Array) -> tuple[Array, NDArray[np.intp]]:
    """The magnitudes of the pivots, the largest first, and the order of the columns.

    Args:
        columns: shape (entries, columns), finite.
    """
    if columns.shape[1] > MOST:
        return _by_scipy(columns)
    triangle: Any = np.linalg.qr(columns, mode="r")
    left = np.ascontiguousarray(triangle.T)
    count, entries = left.shape
    order, pivots = np.arange(count), np.zeros(min(count, entries))
    for k in range(len(pivots)):
        rest = left[k:, k:]
        best = k + int(np.einsum("ij,ij->i", rest, rest).argmax())
        left[[k, best]], order[[k, best]] = left[[best, k]], order[[best, k]]
        axis = left[k, k:].copy()
        pivots[k] = np.linalg.norm(axis)
        axis[0] += np.copysign(pivots[k], axis[0])
        length = float(axis @ axis)
        if length == 0.0:
            # Nothing is left of any column.
            break
        rest -= np.outer(rest @ axis, axis * (2.0 / length))
    return pivots, order


def _by_scipy(columns: Array) -> tuple[Array, NDArray[np.intp]]:
    from scipy.linalg import qr

    # scipy brings a BLAS of its own, which the caller's limit came too early for.
    with threadpool_limits(limits=1):
        r, order = qr(columns, mode="r", pivoting=True)
    return np.abs(np.diagonal(r)), np.asarray(order, dtype=np.intp)
