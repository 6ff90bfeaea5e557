"""Which kinks of a layer to turn, so that as little as can be is left of its linear part.

Turning kink k adds J_k w_k to L. The least rank of L + sum_k x_k J_k w_k over x in {0, 1} is hard
to find (subset sum); over real x least squares come near it when rows are weighted anew by what is
left,

    (J^T P J o W W^T) x = -diag(J^T P L W^T),    P = (M M^T + e^2)^(-1/2),    M = L + J diag(x) W,

with e halved from one solution to the next, until x has settled at 0 and 1. Where what is to be
left is known, the directions that several readers have, all else is made 0 at once. Only proposals:
what they leave is counted by the caller.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from onnx_exact.network.affine import Array

# Kinks, and readers, up to which it is tried.
MOST_KINKS, MOST_READERS = 1000, 300
# The last e, as a share of the first: forty solutions or less.
LEAST = 2.0**-30
# How near 0 or 1 shares are, and how near the last ones, where they count as settled.
SETTLED = 1e-3
RIDGE = 1e-10


def is_tried(kinks: int, readers: int) -> bool:
    """Whether kinks are few enough."""
    return kinks <= MOST_KINKS and readers <= MOST_READERS


def turnings(
    jump: Array, own: Array, linear: Array, rows: Array, amount: Array
) -> Iterator[NDArray[np.bool_]]:
    """Proposals for the kinks to turn, each of shape (kinks,).

    Args:
        jump: J, shape (readers, kinks), so many as it is tried with.
        own: W, shape (kinks, inputs).
        linear: L, shape (readers, inputs), which is amount @ rows.
        rows: of the directions, shape (directions, inputs).
        amount: how much of each direction is read, shape (readers, directions).
    """
    system = own @ own.T
    found = _solved(jump.T @ jump, system, -((jump.T @ linear) * own).sum(axis=1))
    if found is not None:
        yield found > 0.5
    # What several readers have in common may stay; what one alone has may be made of kinks.
    shared = rows[np.count_nonzero(amount, axis=0) > 1]
    if shared.size and len(shared) < len(rows):
        basis = np.linalg.svd(shared, full_matrices=False)
        kept = basis[2][basis[1] > RIDGE * basis[1].max(initial=0.0)]
        across = (linear - linear @ kept.T @ kept) @ own.T
        inside = system - own @ kept.T @ kept @ own.T
        found = _solved(jump.T @ jump, inside, -(jump * across).sum(axis=0))
        if found is not None:
            yield found > 0.5
    found = _reweighted(jump, own, linear)
    if found is not None:
        yield found > 0.5


def _solved(pull: Array, system: Array, wanted: Array) -> Array | None:
    """x of (pull o system) x = wanted within [0, 1]."""
    system = pull * system
    if not (np.isfinite(system).all() and np.isfinite(wanted).all()):
        return None
    # What no row tells apart stays as it is.
    ridge = RIDGE * float(np.trace(system)) / len(system) + np.finfo(np.float64).tiny
    found = np.linalg.solve(system + ridge * np.eye(len(system)), wanted)
    return np.asarray(np.clip(found, 0.0, 1.0))


def _reweighted(jump: Array, own: Array, linear: Array) -> Array | None:
    gram, across, most = own @ own.T, linear @ own.T, float(np.abs(linear).max())
    weights, share, epsilon = np.eye(len(jump)), None, most
    while epsilon > LEAST * most:
        wanted = -((weights @ jump) * across).sum(axis=0)
        last, share = share, _solved(jump.T @ weights @ jump, gram, wanted)
        if share is None or (last is not None and _settled(last, share)):
            return share
        left = linear + (jump * share) @ own
        values, vectors = np.linalg.eigh(left @ left.T)
        epsilon *= 0.5
        weights = (vectors / np.sqrt(np.maximum(values, 0.0) + epsilon**2)) @ vectors.T
        weights = weights / np.abs(weights).max()
    return share


def _settled(last: Array, share: Array) -> bool:
    """Whether every kink is turned or not, as it was."""
    off = np.maximum(np.abs(share - np.round(share)), np.abs(share - last))
    return float(off.max()) < SETTLED
