"""New linear units are lifted where their own bounds need it, and the function stays the same."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.deviation import compare
from onnx_exact.certify.lift import lifted
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.network import Affine, Chain, Layer
from onnx_exact.reduce import Reduction, UnitMap, reduce_chain
from onnx_exact.reduce.units import GONE
from onnx_exact.runtime.deadline import Deadline
from tests.certify.test_deviation import exact_deviation, points_of
from tests.nets import chain_of, cube
from tests.oracle.families import network
from tests.oracle.judge import Known, judge, ways_for
from tests.oracle.networks import random_case

F32 = np.dtype(np.float32)
BOUNDS = Options(method="bounds")


def test_a_unit_that_is_cut_off_is_lifted_as_far_as_it_needs() -> None:
    """x + 2 and 2 - x for x in [-1, 1] are read by their difference, 2 x, so that one unit will do.

    Its shift is a quarter too small: where 2 x < -1.75 its ReLU cuts something off.
    """
    chain = chain_of(([[1.0], [-1.0]], [2.0, 2.0]), ([[1.0, -1.0]], [0.0]))
    box = cube(1, -1.0, 1.0)
    stability = analyze_chain(chain, box, BOUNDS)
    bounds = Bounds.of(chain, stability, box)
    short = chain_of(([[2.0]], [1.75]), ([[1.0]], [-1.75]))
    gone = replace(UnitMap.identity(0, 2), place=np.array([GONE, GONE]))
    made = reduce_chain(chain, stability, box, F32)
    reduction = replace(made, chain=short, changed=True, origins=(gone, UnitMap.identity(1, 1)))
    before = compare(bounds, box, short, reduction.origins)
    assert 0.25 <= before.outputs[0] <= 0.25001
    found = lifted(bounds, box, reduction, F32).chain
    assert lifted(bounds, box, reduction, F32, Deadline(0.0)) is reduction
    after = compare(bounds, box, found, reduction.origins)
    assert 2.0 <= found.layers[0].affine.bias[0] <= 2.0 + 1e-6
    assert after.outputs[0] <= 1e-6
    assert exact_deviation(chain, found, points_of(box))[0] <= Fraction(float(after.outputs[0]))


def test_a_unit_whose_bound_is_hopeless_is_left_as_it_is() -> None:
    """Lifting it by more than all that it can be would cost more digits than it saves."""
    chain = chain_of(([[1.0]], [2.0]), ([[1.0]], [0.0]))
    box = cube(1, -1.0, 1.0)
    stability = analyze_chain(chain, box, BOUNDS)
    low = Chain((Layer(Affine(np.array([[1.0]]), np.array([-0.5])), True), chain.layers[1]))
    gone = replace(UnitMap.identity(0, 1), place=np.array([GONE]))
    made = reduce_chain(chain, stability, box, F32)
    reduction = replace(made, chain=low, changed=True, origins=(gone, UnitMap.identity(1, 1)))
    assert lifted(Bounds.of(chain, stability, box), box, reduction, F32) is reduction


def sunk(reduction: Reduction) -> Reduction:
    """The reduction with its new linear units 1/64 lower, so that some are cut off."""
    layers = list(reduction.chain.layers)
    for k, origin in enumerate(reduction.origins[:-1]):
        fresh = np.ones(layers[k].width)
        fresh[origin.place[origin.place != GONE]] = 0.0
        down = fresh / 64 if layers[k].relu else np.zeros(layers[k].width)
        first, second = layers[k].affine, layers[k + 1].affine
        layers[k] = Layer(Affine(first.weight, first.bias - down), layers[k].relu)
        after = Affine(second.weight, second.bias + second.weight @ down)
        layers[k + 1] = Layer(after, layers[k + 1].relu)
    return replace(reduction, chain=Chain(tuple(layers)))


def test_lifting_never_makes_a_network_deviate_further() -> None:
    changed = 0
    for seed in range(120):
        case = random_case("normal", seed)
        stability = analyze_chain(case.chain, case.box, BOUNDS)
        bounds = Bounds.of(case.chain, stability, case.box)
        reduction = sunk(reduce_chain(case.chain, stability, case.box, F32))
        found = lifted(bounds, case.box, reduction, F32)
        changed += found.chain is not reduction.chain
        before = compare(
            bounds, case.box, reduction.chain, reduction.origins, reduction.gone
        ).outputs.max()
        after = compare(bounds, case.box, found.chain, found.origins).outputs
        # A bias that is rounded once more.
        largest = max(float(np.abs(layer.affine.bias).max()) for layer in found.chain.layers)
        assert after.max() <= before + 1e-6 * (1.0 + largest)
        exact = exact_deviation(case.chain, found.chain, points_of(case.box))
        assert all(a <= Fraction(float(b)) for a, b in zip(exact, after, strict=True))
    assert changed


def test_a_lift_rounds_nothing_where_nothing_may_be_rounded() -> None:
    """In float64 x is lifted by 2^-53 and more, which the bias of its reader, 4, cannot give up."""
    chain = chain_of(([[1.0]], [-(2.0**-53)]), ([[1.0]], [4.0 + 2.0**-53]))
    box, wide = cube(1, 0.0, 1.0), np.dtype(np.float64)
    bounds = Bounds.of(chain, analyze_chain(chain, box, BOUNDS), box)
    gone = replace(UnitMap.identity(0, 1), place=np.array([GONE]))
    made = reduce_chain(chain, analyze_chain(chain, box, BOUNDS), box, wide)
    reduction = replace(made, chain=chain, changed=True, origins=(gone, UnitMap.identity(1, 1)))
    assert lifted(bounds, box, reduction, wide).chain is not chain
    assert lifted(bounds, box, reduction, wide, exact={0}).chain is chain
    assert lifted(bounds, box, reduction, wide, exact={1}).chain is chain


def test_a_network_of_which_the_lift_once_rounded_a_bias_is_exact_again() -> None:
    known = Known.of(network("dyadic", 8905))
    for way in ways_for(8905):
        assert judge(known, way).wrong == ()
