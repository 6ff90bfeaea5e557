"""The bound on a runtime's rounding, held against sums in every order and type."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.rounding import runtime_rounding
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.network import Box, Chain
from onnx_exact.network.affine import Array
from tests.nets import chain_of, cube
from tests.oracle.exact import exact_layers, outputs
from tests.oracle.networks import SOURCES, random_case

TYPES = [np.float16, np.float32, np.float64]
NETWORKS = 40


def bound_of(chain: Chain, box: Box, dtype: Any) -> Array:
    stability = analyze_chain(chain, box, Options(method="bounds"))
    return runtime_rounding(Bounds.of(chain, stability, box), box, np.dtype(dtype))


def computed(chain: Chain, point: Array, dtype: Any, order: np.random.Generator) -> Array:
    """The outputs, each operation rounded to `dtype`, sums in a random order."""
    h = point.astype(dtype)
    for layer in chain.layers:
        weight, bias = layer.affine.weight.astype(dtype), layer.affine.bias.astype(dtype)
        g = np.zeros(layer.width, dtype=dtype)
        for i in range(layer.width):
            terms = [*(w * x for w, x in zip(weight[i], h, strict=True)), bias[i]]
            total = dtype(0.0)
            for place in order.permutation(len(terms)):
                total = dtype(total + terms[place])
            g[i] = total
        h = np.maximum(g, dtype(0.0)) if layer.relu else g
    return h.astype(np.float64)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("family", SOURCES)
def test_no_order_of_summing_exceeds_the_bound(family: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    rounded = 0
    for seed in range(NETWORKS):
        case = random_case(family, seed)
        chain = stored(case.chain, dtype)
        bound = bound_of(chain, case.box, dtype)
        low = case.box.lower.astype(dtype).astype(np.float64)
        high = case.box.upper.astype(dtype).astype(np.float64)
        box = Box(np.maximum(low, case.box.lower), np.maximum(high, case.box.lower))
        for point in case.box.clip(np.vstack([box.sample(rng, 4), box.corners(rng, 4)])):
            given = point.astype(dtype).astype(np.float64)
            if not case.box.contains(given):
                continue
            exact = outputs(exact_layers(chain), [Fraction(x) for x in given.tolist()])
            found = computed(chain, given, dtype, rng)
            for a, b, most in zip(exact, found.tolist(), bound.tolist(), strict=True):
                if most < np.inf:
                    assert abs(a - Fraction(b)) <= Fraction(most)
                    rounded += a != Fraction(b)
    assert rounded or family == "dyadic"


def stored(chain: Chain, dtype: Any) -> Chain:
    layers = [
        (
            layer.affine.weight.astype(dtype).astype(np.float64).tolist(),
            layer.affine.bias.astype(dtype).astype(np.float64).tolist(),
        )
        for layer in chain.layers
    ]
    return chain_of(*layers, relu_at_end=chain.layers[-1].relu)


def test_a_single_rounding_is_bounded_by_a_few_units_in_the_last_place() -> None:
    (bound,) = bound_of(chain_of(([[1.0]], [0.0])), cube(1), np.float32)
    assert 2.0**-24 <= bound <= 2.0**-20


def test_more_terms_than_the_type_can_add_up_have_no_bound() -> None:
    chain = chain_of(([[1e-3] * 3000], [0.0]))
    assert np.isinf(bound_of(chain, cube(3000), np.float16)).all()
    assert np.isfinite(bound_of(chain, cube(3000), np.float32)).all()


def test_values_that_the_type_cannot_hold_have_no_bound() -> None:
    chain = chain_of(([[1e30]], [0.0]), ([[1e30]], [0.0]))
    assert np.isinf(bound_of(chain, cube(1), np.float32)).all()
    assert np.isfinite(bound_of(chain, cube(1), np.float64)).all()


def test_numbers_that_may_be_flushed_count() -> None:
    """h = 2^-130 x is 0 where subnormals are flushed, and is read with 2^100."""
    chain = chain_of(([[2.0**-130]], [0.0]), ([[2.0**100]], [0.0]))
    (bound,) = bound_of(chain, cube(1), np.float32)
    assert bound >= 2.0**-30
