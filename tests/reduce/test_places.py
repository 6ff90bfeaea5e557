"""Units that are gone are found again on the hyperplane of one that lives on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from benchmarks.reducing.inflations import Setting, collinear, f32, identities, negatives
from onnx_exact.decide.verdict import Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Layer
from onnx_exact.pipeline import optimize
from onnx_exact.reduce.budget import Budget
from onnx_exact.reduce.places import with_places
from onnx_exact.reduce.state import Decided
from onnx_exact.reduce.units import GONE, UnitMap
from tests.verifier.build import gemm_model

ROWS = np.array([[1.0, 2.0], [-2.0, -4.0], [0.5, 1.0], [1.0, -1.0], [3.0, 6.0]])
BIAS = np.array([-1.0, 2.0, -0.5, 0.25, -3.5])
ROUNDOFF = 2.0**-24


def places(status: list[Status], place: list[int], factor: Array | None = None) -> UnitMap:
    n = len(BIAS)
    nothing = np.zeros(n)
    origin = UnitMap(0, np.array(place), np.ones(n) if factor is None else factor)
    verdicts = np.array(status, dtype=np.int8)
    layer = Decided(
        *(Layer(Affine(ROWS, BIAS), relu=True), verdicts, nothing - 9.0, nothing + 9.0),
        *(origin, Budget(nothing, nothing, nothing)),
    )
    return with_places(origin, layer, np.ones(2), ROUNDOFF)


def test_multiples_and_opposites_of_a_unit_that_lives_on_have_its_place() -> None:
    found = places([Status.UNSTABLE] * 5, [0, GONE, GONE, 1, GONE])
    # The last one has the direction of the first, and another bias.
    assert found.place.tolist() == [0, 0, 0, 1, GONE]
    assert found.factor.tolist() == [1.0, -2.0, 0.5, 1.0, 1.0]


def test_the_factor_of_the_unit_that_lives_on_counts() -> None:
    factor = np.array([-4.0, 1.0, 1.0, 1.0, 1.0])
    found = places([Status.UNSTABLE] * 5, [0, GONE - 1, GONE - 1, 1, GONE], factor)
    assert found.place.tolist() == [0, 0, 0, 1, GONE]
    assert found.factor.tolist() == [-4.0, 8.0, -2.0, 1.0, 1.0]


def test_stable_units_have_no_place_of_another() -> None:
    status = [Status.UNSTABLE, Status.INACTIVE, Status.ACTIVE, Status.UNSTABLE, Status.UNSTABLE]
    assert places(status, [0, GONE, GONE, 1, GONE]).place.tolist() == [0, GONE, GONE, 1, GONE]


def test_nobody_has_a_place_where_nobody_lives_on() -> None:
    assert places([Status.UNSTABLE] * 5, [GONE] * 5).place.tolist() == [GONE] * 5


def test_what_cancels_behind_identities_goes_with_a_certified_deviation() -> None:
    rng = np.random.default_rng(4)
    layers = [
        (f32(rng.normal(size=(m, n)) / np.sqrt(n)), f32(rng.normal(size=m) / 2.0))
        for n, m in pairwise((5, 10, 10, 2))
    ]
    setting = Setting(np.random.default_rng([16, 1]), 1.0, exact=True)
    larger = layers
    for inflation in (negatives, identities, collinear):
        larger = inflation(larger, setting)
    specs = [(w.tolist(), b.tolist(), k < len(larger) - 1) for k, (w, b) in enumerate(larger)]
    _, report = optimize(gemm_model(specs), domain="0:1")
    assert report.totals.units_after is not None
    assert report.totals.units_after <= 20
    assert report.certified is not None
    assert report.certified.max_abs is not None
    assert report.certified.max_abs < 1e-6
