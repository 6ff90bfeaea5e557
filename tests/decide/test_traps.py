"""Numbers on which float64 or a solver's tolerance gives the wrong sign.

The exact verdict comes from rational arithmetic. What the package says is never wrong on any of
them: at worst UNDECIDED, and in the first layer, where bounds are exact, not even that for a stable
unit.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.methods import METHODS
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.network.affine import Array
from tests.nets import (
    DENORMAL,
    LITTLE,
    NORMAL,
    box_of,
    chain_of,
    cube,
    wrong_verdicts,
)
from tests.oracle.regions import enumerate_regions

ULP = 2.0**-52
LARGEST = float(np.finfo(np.float64).max)

# Weights of inputs in [0, 1] and a bias: the maximum is the sum of the positive weights and the
# bias, which float64 gets wrong or only just right.
CANCELLATIONS: dict[str, tuple[list[float], float]] = {
    "decimals that are not": ([0.1, 0.2], -0.3),
    "one is lost beside 2^53": ([2.0**53, 1.0], -(2.0**53)),
    "one is lost beside 1e16, thrice": ([1e16, 1.0, 1.0, 1.0], -1e16 - 2.0),
    "a half ulp rounds to even": ([1.0, ULP / 2], -1.0),
    "three halves of an ulp": ([1.0, ULP / 2, ULP / 2, ULP / 2], -1.0 - ULP),
    "thirds": ([1 / 3, 1 / 3, 1 / 3], -1.0),
    "ten tenths": ([0.1] * 10, -1.0),
    "sixty orders of magnitude": ([1e30, 1e-30], -1e30),
    "a denormal beside one": ([1.0, DENORMAL], -1.0),
    "denormals alone": ([DENORMAL, DENORMAL], -3 * DENORMAL),
    "denormals that meet exactly": ([DENORMAL, DENORMAL], -2 * DENORMAL),
    "the smallest normal": ([NORMAL, -NORMAL], -NORMAL),
    "partial sums that overflow": ([LARGEST, LARGEST, -1.0], -LARGEST),
    "e and its rest": ([2.718281828459045, -1.0], -2.7182818284590455),
    "an exact zero": ([0.25, 0.5], -0.75),
    "an exact zero of large numbers": ([3e20, 5e20], -8e20),
    "a zero bias": ([-1.0, -DENORMAL], 0.0),
    "seven sevenths": ([1 / 7] * 7, -1.0),
    "zero here, positive there": ([0.9, 0.5], -1.4),
    "positive here, negative there": ([0.3, 0.1, 0.2, 0.3], -0.9),
    "positive by an ulp, negative by a quarter": ([0.2, 0.6, 0.4, 0.6], -1.8),
    "positive here, exactly zero there": ([0.9, 0.2, 0.3, 0.4], -1.8),
    "zero here, a sixteenth of an ulp there": ([0.7, 0.9, 0.7, 0.1], -2.4),
}


def verdict_of(least: Fraction, most: Fraction) -> Status:
    if most <= 0:
        return Status.INACTIVE
    return Status.ACTIVE if least >= 0 else Status.UNSTABLE


def exact_range(weight: list[float], bias: float) -> tuple[Fraction, Fraction]:
    """Over inputs in [0, 1]."""
    weights = [Fraction(w) for w in weight]
    least = sum((w for w in weights if w < 0), Fraction(bias))
    return least, sum((w for w in weights if w > 0), Fraction(bias))


def passed_through(weight: list[float], bias: float) -> Chain:
    """The unit in the second layer, behind one that hands the inputs on."""
    return chain_of(
        (np.eye(len(weight)).tolist(), [0.0] * len(weight)), ([weight], [bias]), relu_at_end=True
    )


def test_float64_is_fooled_by_most_of_the_cancellations() -> None:
    fooled = 0
    for weight, bias in CANCELLATIONS.values():
        with np.errstate(over="ignore"):
            naive = np.float64(0.0)
            for w in weight:
                naive += max(w, 0.0)
            naive += bias
        exact = exact_range(weight, bias)[1]
        fooled += bool(np.sign(naive) != (exact > 0) - (exact < 0))
    assert fooled >= 10


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", CANCELLATIONS)
def test_a_stable_first_layer_unit_is_decided_whatever_cancels(name: str, sign: float) -> None:
    weight, bias = CANCELLATIONS[name]
    weight, bias = [sign * w for w in weight], sign * bias
    true = verdict_of(*exact_range(weight, bias))
    chain = chain_of(([weight], [bias]), ([[1.0]], [0.0]))
    stability = analyze_chain(chain, cube(len(weight)), Options(method="bounds"))
    status = Status(int(stability.layers[0].status[0]))
    assert status is true or (status is Status.UNDECIDED and true is Status.UNSTABLE)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_method_is_fooled_by_what_cancels_in_the_second_layer(method: str, sign: float) -> None:
    for name, (weight, bias) in CANCELLATIONS.items():
        signed = [sign * w for w in weight]
        true = verdict_of(*exact_range(signed, sign * bias))
        options = Options(method=method, budgets=LITTLE)
        stability = analyze_chain(passed_through(signed, sign * bias), cube(len(weight)), options)
        status = Status(int(stability.layers[1].status[0]))
        assert status in (true, Status.UNDECIDED), name


def random_cancellations(count: int, seed: int) -> tuple[Array, Array]:
    """Rows of six weights whose positive part the bias cancels, and whose sign float64 has wrong.

    Every other row is never positive, by less than an ulp; float64 finds a positive maximum.
    """
    rng = np.random.default_rng(seed)
    rows: list[Array] = []
    biases: list[float] = []
    while len(rows) < count:
        weight = rng.uniform(-1.0, 1.0, 6) * 2.0 ** rng.integers(-3, 4, 6)
        naive = 0.0
        for w in weight:
            naive += max(w, 0.0)
        exact = sum((Fraction(w) for w in weight.tolist() if w > 0), Fraction(0))
        stable = len(rows) % 2 == 0
        bias = -float(exact)
        if (Fraction(bias) + exact <= 0) is not stable:
            bias = float(np.nextafter(bias, -np.inf if stable else np.inf))
        if (naive + bias > 0.0) == stable:
            rows.append(weight)
            biases.append(bias)
    return np.array(rows), np.array(biases)


def test_a_thousand_rows_of_which_float64_has_every_sign_wrong() -> None:
    weight, bias = random_cancellations(1000, seed=0)
    first = Chain.of([Affine(weight, bias), Affine(np.ones((1, 1000)), np.zeros(1))])
    eye = Affine(np.eye(6), np.zeros(6))
    second = Chain.of([eye, Affine(weight, bias)], relu_at_end=True)
    decided = 0
    for chain, layer in ((first, 0), (second, 1)):
        verdicts = analyze_chain(chain, cube(6), Options(method="bounds")).layers[layer]
        for i in range(1000):
            least, most = exact_range(weight[i].tolist(), float(bias[i]))
            true, status = verdict_of(least, most), Status(int(verdicts.status[i]))
            assert status in (true, Status.UNDECIDED)
            assert layer or true is Status.UNSTABLE or status is true
            decided += status is not Status.UNDECIDED
            assert Fraction(float(verdicts.lower[i])) <= least
            assert most <= Fraction(float(verdicts.upper[i]))
    assert decided >= 500


def test_wide_ranges_of_weights_never_yield_a_wrong_verdict() -> None:
    """Random networks whose weights span sixty orders of magnitude."""
    rng = np.random.default_rng(7)
    for _ in range(60):
        widths = (2, 3, 3, 2)
        affines = [
            Affine(
                rng.standard_normal((m, n)) * 10.0 ** rng.integers(-30, 31, (m, n)),
                rng.standard_normal(m) * 10.0 ** rng.integers(-30, 31, m),
            )
            for n, m in pairwise(widths)
        ]
        chain, box = Chain.of(affines, relu_at_end=True), cube(2, -1.0, 1.0)
        truth = enumerate_regions(chain, box)
        stability = analyze_chain(chain, box, Options(method="bounds"))
        assert not wrong_verdicts(stability, truth)


def seesaw(scale: float, shift: float) -> Chain:
    """(max(S x, 0) + max(-S x, 0)) / S - 1 + shift over [-1, 1]: its maximum is `shift`."""
    return chain_of(
        ([[scale], [-scale]], [0.0, 0.0]),
        ([[1 / scale, 1 / scale]], [shift - 1.0]),
        relu_at_end=True,
    )


SCALES = [2.0**k for k in (-60, -30, 0, 20, 30, 40, 100)]
SHIFTS = [0.0, *(s * m for s in (1.0, -1.0) for m in (1e-10, 1e-7, 1e-3))]


@pytest.mark.parametrize("method", METHODS)
def test_margins_below_and_beyond_the_solvers_tolerance_at_every_big_m(method: str) -> None:
    """With z within 1e-7 of an integer a big-M of 1e9 lets h be 100 where it should be 0."""
    for scale in SCALES:
        for shift in SHIFTS:
            chain, box = seesaw(scale, shift), cube(1, -1.0, 1.0)
            options = Options(method=method, budgets=LITTLE)
            stability = analyze_chain(chain, box, options)
            truth = enumerate_regions(chain, box)
            assert not wrong_verdicts(stability, truth), (scale, shift)


def leaking(big: float, margin: float) -> Chain:
    """h0 = max(M x - M/2, 0), h1 = max(M x - M/2 - 1, 0): h0 - h1 is within [0, 1], at any M.

    The unit h0 - h1 - 1 + margin is never positive for margin <= 0 and always negative somewhere;
    a z that is off by 1e-7 lets both h be off by 1e-7 M, more than all that there is.
    """
    return chain_of(
        ([[big], [big]], [-big / 2, -big / 2 - 1.0]),
        ([[1.0, -1.0]], [margin - 1.0]),
        relu_at_end=True,
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("big", [2.0**10, 2.0**30, 2.0**40, 2.0**70])
@pytest.mark.parametrize("margin", [0.0, 2.0**-10, -(2.0**-10), 2.0**-30, -0.5])
def test_a_big_m_that_leaks_more_than_the_unit_spans_misleads_no_method(
    method: str, big: float, margin: float
) -> None:
    chain, box = leaking(big, margin), cube(1)
    stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
    assert not wrong_verdicts(stability, enumerate_regions(chain, box))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tiny", [1e-8, 1e-10, 1e-12, 1e-20, 1e-30])
def test_coefficients_that_a_solver_takes_for_zero_mislead_no_method(
    method: str, tiny: float
) -> None:
    """h = tiny x over [0, 1 / tiny] reaches 1 although the solver drops its coefficient."""
    for bias in (-0.5, -0.999, -1.001):
        chain, box = (
            chain_of(([[tiny]], [0.0]), ([[1.0]], [bias]), relu_at_end=True),
            box_of([0.0], [1.0 / tiny]),
        )
        stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
        assert not wrong_verdicts(stability, enumerate_regions(chain, box))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("small", [1e-7, 1e-9, 1e-11, 1e-30])
def test_ranges_that_a_solver_takes_for_a_point_mislead_no_method(
    method: str, small: float
) -> None:
    """A unit within [0, small], read with 1 / small: its range is all that matters."""
    chain = chain_of(
        ([[small], [-small]], [0.0, 0.0]), ([[1 / small, 1 / small]], [-0.5]), relu_at_end=True
    )
    box = cube(1, -1.0, 1.0)
    stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
    assert not wrong_verdicts(stability, enumerate_regions(chain, box))


@pytest.mark.parametrize("method", METHODS)
def test_many_small_terms_that_a_solver_drops_add_up(method: str) -> None:
    """Each of 400 terms is below what the solver keeps; together they pass its margin."""
    n, each = 400, 9e-10
    weight = np.vstack([np.full((1, n), each), -np.full((1, n), each)])
    first = Affine(weight, np.zeros(2))
    most = n * each * 20.0
    second = Affine(np.array([[1.0, 1.0]]), np.array([-0.9 * most]))
    chain, box = Chain.of([first, second], relu_at_end=True), cube(n, -20.0, 20.0)
    stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
    assert Status(int(stability.layers[1].status[0])) in (Status.UNSTABLE, Status.UNDECIDED)


@pytest.mark.parametrize("method", METHODS)
def test_numbers_of_any_size_never_end_in_an_error(method: str) -> None:
    for scale in (1e-300, 1e-40, 1e15, 1e21, 1e40, 1e200, 1e300):
        chain = chain_of(
            ([[scale, -scale], [scale, 1.0]], [0.0, -scale]),
            ([[scale, -1.0], [-1.0, 1.0]], [1.0, 0.0]),
            ([[1.0, -scale]], [0.5]),
            relu_at_end=True,
        )
        box = Box(np.array([-1.0, -1.0]), np.array([1.0, 1.0]))
        stability = analyze_chain(chain, box, Options(method=method, budgets=LITTLE))
        assert not wrong_verdicts(stability, enumerate_regions(chain, box)), scale
