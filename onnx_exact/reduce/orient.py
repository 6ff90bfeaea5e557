"""Which kinks of a layer to turn, so that as little as can be is left of its linear part.

Turning kink k adds J_k w_k to L. The least rank of L + sum_k x_k J_k w_k over x in {0, 1} is hard
to find (subset sum); over real x least squares come near it when rows are weighted anew by what is
left,

    (J^T P J o W W^T) x = -diag(J^T P L W^T),    P = (M M^T + e^2)^(-1/2),    M = L + J diag(x) W,

with e halved from one solution to the next. Only a proposal: what it leaves is counted by the
caller.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

# Kinks, and readers, up to which it is tried.
MOST_KINKS, MOST_READERS = 1000, 300
# The last e, as a share of the first: forty solutions or less.
LEAST = 2.0**-30
RIDGE = 1e-10


def turning(jump: Array, own: Array, linear: Array) -> NDArray[np.bool_] | None:
    """The kinks to turn, shape (kinks,); None where it is not tried.

    Args:
        jump: J, shape (readers, kinks).
        own: W, shape (kinks, inputs).
        linear: L, shape (readers, inputs).
    """
    if max(jump.shape[1] / MOST_KINKS, jump.shape[0] / MOST_READERS) > 1.0:
        return None
    gram, across, most = own @ own.T, linear @ own.T, float(np.abs(linear).max())
    weights, share, epsilon = np.eye(len(jump)), np.zeros(jump.shape[1]), most
    while epsilon > LEAST * most:
        system = (jump.T @ weights @ jump) * gram
        wanted = -((weights @ jump) * across).sum(axis=0)
        if not (np.isfinite(system).all() and np.isfinite(wanted).all()):
            return None
        # What no row tells apart stays as it is.
        ridge = RIDGE * float(np.trace(system)) / len(system) + np.finfo(np.float64).tiny
        share = np.clip(np.linalg.solve(system + ridge * np.eye(len(system)), wanted), 0.0, 1.0)
        left = linear + (jump * share) @ own
        values, vectors = np.linalg.eigh(left @ left.T)
        epsilon *= 0.5
        weights = (vectors / np.sqrt(np.maximum(values, 0.0) + epsilon**2)) @ vectors.T
        weights = weights / np.abs(weights).max()
    return np.asarray(share > 0.5)
