"""Proofs of networks made to mislead floating-point arithmetic, with claims that are wrong."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_exact.certify.proof import ChainProof, Proof
from onnx_exact.certify.prove import prove_chain
from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Status
from onnx_exact.network import Affine, Box, Chain
from onnx_exact.runtime.deadline import Deadline
from tests.certify.test_prove import claimed
from tests.decide.test_traps import (
    CANCELLATIONS,
    SCALES,
    SHIFTS,
    exact_range,
    leaking,
    passed_through,
    random_cancellations,
    seesaw,
    verdict_of,
)
from tests.nets import chain_of, cube
from tests.oracle.regions import enumerate_regions

# Nothing here is provable by trying for long.
SECONDS = 0.2
STABLE = (Status.INACTIVE, Status.ACTIVE)
PROVED = (Proof.BOUNDS, Proof.SLOPES, Proof.TREE)


def proof_of(
    chain: Chain, box: Box, layer: int, unit: int, status: Status, seconds: float | None = SECONDS
) -> Proof:
    """The proof that is found for a claim, true or false."""
    stability = analyze_chain(chain, box, Options(method="bounds"))
    forged = claimed(stability, layer, unit, status)
    return kind(prove_chain(chain, box, forged, Deadline(seconds)), layer, unit)


def kind(proof: ChainProof, layer: int, unit: int) -> Proof:
    found = proof.layers[layer]
    assert found is not None
    return Proof(int(found.proof[unit]))


@pytest.mark.parametrize("status", STABLE)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("name", CANCELLATIONS)
def test_no_cancellation_yields_a_proof_of_what_is_not_so(
    name: str, sign: float, status: Status
) -> None:
    weight, bias = CANCELLATIONS[name]
    weight, bias = [sign * w for w in weight], sign * bias
    least, most = exact_range(weight, bias)
    holds = most <= 0 if status is Status.INACTIVE else least >= 0
    first = chain_of(([weight], [bias]), ([[1.0]], [0.0]))
    # The first layer is settled in rationals, whatever cancels.
    assert (proof_of(first, cube(len(weight)), 0, 0, status, None) in PROVED) == holds
    second = passed_through(weight, bias)
    assert holds or proof_of(second, cube(len(weight)), 1, 0, status) is Proof.NONE


def test_a_thousand_rows_of_which_float64_has_every_sign_wrong() -> None:
    weight, bias = random_cancellations(1000, seed=1)
    box = cube(6)
    chain = Chain.of([Affine(np.eye(6), np.zeros(6)), Affine(weight, bias)], relu_at_end=True)
    stability = analyze_chain(chain, box, Options(method="bounds"))
    true = [
        verdict_of(*exact_range(w.tolist(), float(b))) for w, b in zip(weight, bias, strict=True)
    ]
    for unit, status in enumerate(true):
        if status is Status.UNSTABLE:
            stability = claimed(stability, 1, unit, Status.INACTIVE)
    proof = prove_chain(chain, box, stability, Deadline(SECONDS))
    wrong = [unit for unit, status in enumerate(true) if status is Status.UNSTABLE]
    assert len(wrong) >= 400
    assert all(kind(proof, 1, unit) is Proof.NONE for unit in wrong)


@pytest.mark.parametrize("scale", SCALES)
def test_no_margin_within_a_solvers_tolerance_is_proved_against_the_truth(scale: float) -> None:
    for shift in SHIFTS:
        chain, box = seesaw(scale, shift), cube(1, -1.0, 1.0)
        (ranges,) = enumerate_regions(chain, box).ranges[1:]
        least, most = ranges[0]
        for status, holds in ((Status.INACTIVE, most <= 0), (Status.ACTIVE, least >= 0)):
            assert holds or proof_of(chain, box, 1, 0, status) is Proof.NONE


@pytest.mark.parametrize("big", [2.0**10, 2.0**40, 2.0**70])
@pytest.mark.parametrize("margin", [0.0, 2.0**-10, -(2.0**-10), 2.0**-30])
def test_a_big_m_that_leaks_yields_no_proof(big: float, margin: float) -> None:
    chain, box = leaking(big, margin), cube(1)
    (ranges,) = enumerate_regions(chain, box).ranges[1:]
    holds = ranges[0][1] <= 0
    assert holds or proof_of(chain, box, 1, 0, Status.INACTIVE) is Proof.NONE
