"""Bounds on the rounding errors of float64 sums and products.

For a sum of n products in any order, with or without fused multiply-add (Higham 2002, section 3.1),

    |fl(x . y) - x . y| <= gamma_n |x| . |y|,    gamma_n = n u / (1 - n u),    u = 2^-53,

unless a product underflows, which adds at most 2^-1074 each.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.network.affine import Array

UNIT_ROUNDOFF = 2.0**-53
SMALLEST = 2.0**-1074
SMALLEST_NORMAL = 2.0**-1022
_NONE = 2**64 - 1
# Entries of an array that stay in the cache from one pass over them to the next.
CACHED = 2**14
# The few extra operations of a step: the bias, a slope, the evaluation of the error bound itself.
EXTRA_OPERATIONS = 16


def gamma(n: int) -> float:
    """Twice gamma_(n + EXTRA_OPERATIONS): the factor covers the rounding of |x| . |y| as well."""
    k = (n + EXTRA_OPERATIONS) * UNIT_ROUNDOFF
    return 2.0 * k / (1.0 - k)


def slack(magnitude: Array, n: int, underflow: float = 0.0) -> Array:
    """How far n-term sums with `magnitude` as sum of absolute terms may be off.

    Args:
        magnitude: |x| . |y| as computed; where it is 0 every term is 0 and so is the error.
        n: number of terms.
        underflow: what products that underflow may add in total; 0 where none can.
    """
    return gamma(n) * magnitude + underflow


def total_terms(magnitude: Array, constant: Array, underflow: float) -> Array:
    """The sum of absolute terms with a constant among them, as `slack` takes it.

    A constant alone, to which nothing is added, is not rounded: no terms.
    """
    # A magnitude that is nan, of terms that overflowed, is not 0 either.
    alone = (magnitude == 0.0) & (underflow == 0.0)
    return np.where(alone, 0.0, magnitude + np.abs(constant))


def smallest_nonzero(values: Array) -> float:
    """The smallest magnitude of a non-zero entry, inf where there is none."""
    flat, least = values.reshape(-1), _NONE
    for start in range(0, flat.size, CACHED):
        # Magnitudes are ordered as their bits are; less one, zero becomes the largest of all.
        bits = np.abs(flat[start : start + CACHED]).view(np.uint64) - np.uint64(1)
        least = min(least, int(bits.min()))
    return np.inf if least == _NONE else float(np.uint64(least + 1).view(np.float64))
