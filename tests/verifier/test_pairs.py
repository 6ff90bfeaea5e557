"""Reductions by hand: the certified deviation is the exact one, or not much above it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.verified import verify
from tests.oracle.regions import enumerate_regions, largest_difference
from tests.verifier.build import SQUARE, LayerSpec, Written, gemm_model, write

# What the checker's own arithmetic may add where something has to be computed.
ROUNDING = Fraction(1, 10**13)


def certified(
    folder: Path,
    old: Sequence[LayerSpec],
    new: Sequence[LayerSpec],
    sources: Sequence[int],
    places: Sequence[Sequence[int]],
    statuses: Sequence[Sequence[int]],
    deviation: float = 1e9,
    **arrays: Any,
) -> Written:
    """A certificate whose units of status 1 and 2 are proved by bounds, those of 3 by corners."""
    corners = np.array([[x, y] for x in (0, 0.5, 1) for y in (0, 0.5, 1)])
    made: dict[str, Any] = {"c0_witnesses": corners, **arrays}
    for layer, status in enumerate(statuses):
        made[f"c0_l{layer}_status"] = np.array(status, np.int8)
        made[f"c0_l{layer}_proof"] = np.array([{1: 1, 2: 1, 3: 5}[v] for v in status], np.int8)
    for k, place in enumerate(places):
        made[f"c0_m{k}_unit"] = np.array(place, np.int32)
    chain = {
        "widths": [len(bias) for _, bias, _ in old],
        "relu": [relu for _, _, relu in old],
        "result_widths": [len(bias) for _, bias, _ in new],
        "result_relu": [relu for _, _, relu in new],
        "sources": list(sources),
    }
    models = gemm_model(old, SQUARE), gemm_model(new, SQUARE)
    return write(folder, *models, chain, made, SQUARE, deviation)


def exact(old: Sequence[LayerSpec], new: Sequence[LayerSpec]) -> Fraction:
    """The largest difference over [0, 1]^2, with weights rounded to float32."""
    chains = [
        Chain(
            tuple(
                Layer(Affine(np.float32(w).astype(float), np.float32(b).astype(float)), relu)
                for w, b, relu in layers
            )
        )
        for layers in (old, new)
    ]
    box = Box(np.zeros(2), np.ones(2))
    return max(largest_difference(enumerate_regions(chains[0], box).regions, chains[1]))


def bound(written: Written) -> Fraction:
    return Fraction(verify(written.old, written.new, written.certificate).deviation)


def test_a_multiple_is_merged(tmp_path: Path) -> None:
    old = [([[1, -1], [3, -3]], [0.25, 0.75], True), ([[1, 2]], [0], False)]
    new = [([[1, -1]], [0.25], True), ([[7]], [0], False)]
    factor = np.array([1.0, 3.0])
    written = certified(tmp_path, old, new, [0, 1], [[0, 0], [0]], [[3, 3]], c0_m0_factor=factor)
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING
    for wrong in (2.999, 3.001):
        changed = written.changed(c0_m0_factor=np.array([1.0, wrong]))
        assert bound(changed) > Fraction(1, 10**4)


def test_an_opposite_unit_becomes_linear(tmp_path: Path) -> None:
    """relu(2 y - 2 x) = 2 relu(x - y) + 2 y - 2 x, which is shifted by 2 to pass the ReLU."""
    old = [([[1, -1], [-2, 2]], [0, 0], True), ([[1, 1]], [0.5], False)]
    new = [([[1, -1], [-2, 2]], [0, 2], True), ([[3, 1]], [-1.5], False)]
    turned = np.array([1.0, -2.0])
    written = certified(tmp_path, old, new, [0, 1], [[0, 0], [0]], [[3, 3]], c0_m0_factor=turned)
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING
    for wrong in (2.0, -2.001, -1.999):
        changed = written.changed(c0_m0_factor=np.array([1.0, wrong]))
        assert bound(changed) > Fraction(1, 10**4)


def test_a_unit_that_is_nearly_opposite_costs_what_it_is_off_by(tmp_path: Path) -> None:
    old = [([[1, -1], [-2, 2.125]], [0, 0], True), ([[1, 1]], [0.5], False)]
    new = [([[1, -1], [-2, 2]], [0, 2], True), ([[3, 1]], [-1.5], False)]
    turned = np.array([1.0, -2.0])
    written = certified(tmp_path, old, new, [0, 1], [[0, 0], [0]], [[3, 3]], c0_m0_factor=turned)
    assert exact(old, new) <= bound(written) < 1


def test_a_kink_may_face_the_other_way(tmp_path: Path) -> None:
    """relu(x - y) - x + y = relu(y - x), with x + 1 and y + 1 active."""
    old = [
        ([[1, -1], [1, 0], [0, 1]], [0, 1, 1], True),
        ([[1, -1, 1]], [0.5], False),
    ]
    new = [([[-1, 1]], [0], True), ([[1]], [0.5], False)]
    turned, places = np.array([-1.0, 1.0, 1.0]), [[0, -1, -1], [0]]
    written = certified(tmp_path, old, new, [0, 1], places, [[3, 2, 2]], c0_m0_factor=turned)
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING
    straight = written.changed(c0_m0_factor=np.ones(3))
    assert bound(straight) >= 1


def test_a_stable_unit_that_is_said_to_face_the_other_way_is_not_left_out(tmp_path: Path) -> None:
    """x + 1 is not |-1| relu(-x - 1) = 0: what is linear is taken for linear."""
    old = [([[1, 0], [1, -1]], [1, 0], True), ([[1, 1]], [0], False)]
    new = [([[-1, 0], [1, -1]], [-1, 0], True), ([[1, 1]], [0], False)]
    turned = np.array([-1.0, 1.0])
    written = certified(tmp_path, old, new, [0, 1], [[0, 1], [0]], [[2, 3]], c0_m0_factor=turned)
    assert exact(old, new) == 2
    assert bound(written) >= 2


@pytest.mark.parametrize("folded", [True, False])
def test_units_that_cancel_are_gone_together(tmp_path: Path, folded: bool) -> None:
    """relu(x - y) - relu(2 y - 2 x) / 2 = x - y: the layer is linear, or one unit of it is."""
    old = [([[1, -1], [-2, 2]], [0, 0], True), ([[1, -0.5]], [0.5], False)]
    new = [([[1, -1]], [1], True), ([[1]], [-0.5], False)]
    arrays = {"c0_m0_factor": np.array([1.0, -2.0])}
    if folded:
        new = [([[1, -1]], [0.5], False)]
        arrays = {
            "c0_g0_factor": arrays["c0_m0_factor"],
            "c0_g0_unit": np.array([-2, -2], np.int32),
        }
    places = [[0]] if folded else [[-2, -2], [0]]
    written = certified(tmp_path, old, new, [1] if folded else [0, 1], places, [[3, 3]], **arrays)
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING
    name = "c0_g0_factor" if folded else "c0_m0_factor"
    for wrong in (-2.001, 2.0, -1e300, 1e-300):
        changed = written.changed(**{name: np.array([1.0, wrong])})
        try:
            found = bound(changed)
        except UncheckedError:
            continue
        assert found > Fraction(1, 10**4)


def test_a_unit_that_hardly_matters_costs_the_less_of_two(tmp_path: Path) -> None:
    """relu(x - y - 1 + 1/1024) is at most 1/1024; relu(x + 1/1024 - y/512) nearly linear."""
    old = [
        ([[1, -1], [1, -(2.0**-9)], [1, 1]], [2.0**-10 - 1, 2.0**-10, -1], True),
        ([[1, 1, 1]], [0.5], False),
    ]
    new = [([[1, -(2.0**-9)], [1, 1]], [1, -1], True), ([[1, 1]], [2.0**-10 - 0.5], False)]
    written = certified(tmp_path, old, new, [0, 1], [[-1, -1, 0], [0]], [[3, 3, 3]])
    written = written.changed(c0_m0_unit=np.array([-1, -1, 1], np.int32))
    assert exact(old, new) <= bound(written) <= Fraction(1, 500)


def test_active_units_are_combined_and_shifted(tmp_path: Path) -> None:
    """Three active units are read as one: 2 (x + 1) + (y + 1) - (x + y + 1) = x + 2."""
    old = [
        ([[1, 0], [0, 1], [1, 1], [1, -1]], [1, 1, 1, 0], True),
        ([[2, 1, -1, 1]], [0], True),
        ([[1]], [0], False),
    ]
    new = [([[1, -1], [1, 0]], [0, 0], True), ([[1, 1]], [2], True), ([[1]], [0], False)]
    places = [[-1, -1, -1, 0], [0], [0]]
    written = certified(tmp_path, old, new, [0, 1, 2], places, [[2, 2, 2, 3], [2]])
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING

    rounded = [([[1, -1], [0.1, 0]], [0, 0], True), ([[1, 10.001]], [2], True), new[2]]
    changed = certified(tmp_path, old, rounded, [0, 1, 2], places, [[2, 2, 2, 3], [2]])
    true = exact(old, rounded)
    assert 0 < true <= bound(changed) < true * Fraction(101, 100)


def test_a_shift_that_is_too_small_costs_what_the_relu_cuts_off(tmp_path: Path) -> None:
    old = [([[1, 1], [1, -1]], [1, 0], True), ([[1, 1]], [0], False)]
    new = [([[1, -1], [1, 1]], [0, -0.25], True), ([[1, 1]], [1.25], False)]
    written = certified(tmp_path, old, new, [0, 1], [[-1, 0], [0]], [[2, 3]])
    assert exact(old, new) == Fraction(1, 4) <= bound(written) < Fraction(1, 4) + ROUNDING


def test_an_active_layer_is_folded(tmp_path: Path) -> None:
    old = [
        ([[1, 1], [1, -1]], [1, 2], True),
        ([[1, 1], [1, -3]], [0, 0], True),
        ([[1, 1]], [0], False),
    ]
    new = [([[2, 0], [-2, 4]], [3, -5], True), ([[1, 1]], [0], False)]
    written = certified(tmp_path, old, new, [1, 2], [[0, 1], [0]], [[2, 2], [2, 1]])
    assert exact(old, new) == 0
    assert bound(written) < ROUNDING


def test_a_folded_layer_that_is_not_active_is_not_accepted_for_nothing(tmp_path: Path) -> None:
    old = [([[1, -1]], [0], True), ([[1]], [1], True), ([[1]], [0], False)]
    new = [([[1, -1]], [1], True), ([[1]], [0], False)]
    written = certified(tmp_path, old, new, [1, 2], [[0], [0]], [[3], [2]])
    assert exact(old, new) == 1
    assert bound(written) >= 1
    claimed = written.changed({"deviation": {"certified_max_abs": 0.5}})
    with pytest.raises(NotVerifiedError, match="unit 0 of layer 1 is gone, but it is read"):
        bound(claimed)


def test_a_network_that_is_constant_is_one(tmp_path: Path) -> None:
    old = [([[-1, -1], [-1, 0]], [-1, 0], True), ([[1, 2]], [0.5], True)]
    new = [([[0, 0]], [0.5], False)]
    written = certified(tmp_path, old, new, [1], [[0]], [[1, 1], [2]])
    assert exact(old, new) == bound(written) == 0


def test_a_relu_at_the_end_that_is_gone_has_to_be_active(tmp_path: Path) -> None:
    old = [([[1, -1]], [0], True), ([[1]], [-0.5], True)]
    new = [([[1, -1]], [0], True), ([[1]], [-0.5], False)]
    written = certified(tmp_path, old, new, [0, 1], [[0], [0]], [[3], [3]])
    with pytest.raises(NotVerifiedError, match="nothing bounds how far"):
        bound(written)


def test_a_relu_that_is_new_is_looked_at(tmp_path: Path) -> None:
    old = [([[1, -1]], [0], False), ([[1]], [0], True), ([[1]], [0], False)]
    new = [([[1, -1]], [0], True), ([[1]], [0], False)]
    written = certified(tmp_path, new, new, [0, 1], [[0], [0]], [[3]])
    assert bound(written) == 0
    assert exact(old, new) == 0


def test_units_that_nobody_reads_may_go(tmp_path: Path) -> None:
    old = [([[1, -1], [-1, 1]], [0, 0.5], True), ([[1, 0]], [0], False)]
    new = [([[1, -1]], [0], True), ([[1]], [0], False)]
    assert bound(certified(tmp_path, old, new, [0, 1], [[0, -1], [0]], [[3, 3]])) == 0
