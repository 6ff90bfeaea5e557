"""A well-conditioned basis among the rows of a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array
from onnx_exact.reduce.pivoted_qr import pivoted_qr

# From this pivot on, relative to rows of length 1, rows are independent for every caller: the
# pivots of a Gram matrix are exact to about 1e-7.
CLEARLY_INDEPENDENT = 1e-5


def split_rows(rows: Array, tolerance: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of a basis of the rows, chosen by column-pivoted QR, and of all other rows.

    Args:
        rows: shape (rows, entries), finite.
        tolerance: a row is looked at as dependent if no more than this share of it is left over by
            the basis. Only a proposal: callers bound what expressing a row by others moves.
    """
    # By the largest entry first: squares of tiny or huge entries have no norm.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0.0, largest, 1.0)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    scaled = scaled / np.where(norms > 0.0, norms, 1.0)
    if len(rows) <= rows.shape[1] and _clearly_independent(scaled):
        return np.arange(len(rows)), np.arange(0)
    pivots, order = pivoted_qr(scaled.T)
    rank = int((pivots > tolerance).sum())
    return np.sort(order[:rank]), np.sort(order[rank:])


def _clearly_independent(rows: Array) -> bool:
    """Whether the Gram matrix of unit rows shows them independent: mostly they are, at no cost."""
    gram = rows @ rows.T
    try:
        pivots = np.diagonal(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return False
    return bool((pivots > CLEARLY_INDEPENDENT).all())
