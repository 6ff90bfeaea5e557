"""Ranges of unstable units narrowed below long trees: sound, kept, and proved once more."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_exact import optimize_file, verify
from onnx_exact.bounds.crown import unstable_units
from onnx_exact.budgets import BUDGETS
from onnx_exact.certify.proof import ChainProof
from onnx_exact.certify.prove import prove_chain
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.narrow import Narrower
from onnx_exact.decide.options import Options
from onnx_exact.network import Chain
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.stages import deciding
from tests.nets import bounded, cube, random_chain
from tests.oracle.regions import enumerate_regions
from tests.verifier.build import gemm_model


def narrowed(chain: Chain, options: Options | None = None) -> tuple[Knowledge, Knowledge]:
    """What bounds know of a chain, and what is known once it is narrow below its last layer."""
    before, _ = bounded(chain, cube(chain.n_in, -1.0, 1.0))
    after, layers = bounded(chain, before.box)
    Narrower(layers, options or Options()).below(len(chain.layers) - 1)
    return before, after


def widths(knowledge: Knowledge, index: int) -> float:
    return float((knowledge.upper[index] - knowledge.lower[index]).sum())


@pytest.mark.parametrize("seed", range(4))
def test_ranges_become_narrower_and_hold_what_occurs(seed: int) -> None:
    chain = random_chain(seed, 3, 7, 7, 5)
    before, after = narrowed(chain)
    truth = enumerate_regions(chain, after.box)
    for index in range(len(chain.layers)):
        assert (after.lower[index] >= before.lower[index]).all()
        assert (after.upper[index] <= before.upper[index]).all()
        for unit, (least, greatest) in enumerate(truth.ranges[index]):
            assert after.lower[index][unit] <= least
            assert after.upper[index][unit] >= greatest
    assert widths(after, 1) < widths(before, 1)
    assert widths(after, 2) < widths(before, 2)


def test_what_narrows_is_proved_from_its_slopes_alone() -> None:
    chain = random_chain(1, 3, 7, 7, 5)
    _, after = narrowed(chain)
    with_slopes = proof_of(after, chain)
    without = proof_of(after, chain, kept=False)
    layer = with_slopes.layers[1]
    assert layer is not None
    assert layer.slopes is not None
    unstable = unstable_units(after.lower[1], after.upper[1])
    assert unstable[layer.slopes.unit].any()
    np.testing.assert_allclose(with_slopes.bounds.lower[1], after.lower[1], rtol=1e-9)
    np.testing.assert_allclose(with_slopes.bounds.upper[1], after.upper[1], rtol=1e-9)
    wider = without.bounds.upper[1] > with_slopes.bounds.upper[1]
    assert wider[unstable].any()


def proof_of(knowledge: Knowledge, chain: Chain, *, kept: bool = True) -> ChainProof:
    stability = knowledge.freeze()
    if not kept:
        stability = replace(stability, narrowed=())
    return prove_chain(chain, knowledge.box, stability, Deadline())


def test_a_proof_that_would_be_too_large_leaves_narrowing_out() -> None:
    chain = random_chain(1, 3, 7, 7, 5)
    _, after = narrowed(chain)
    proof = prove_chain(chain, after.box, after.freeze(), Deadline(), most_bytes=1.0)
    for layer, lower, upper in zip(proof.layers, after.lower, after.upper, strict=True):
        if layer is not None and layer.slopes is not None:
            # What is left excludes signs.
            assert not unstable_units(lower, upper)[layer.slopes.unit].any()


def test_a_certificate_whose_trees_rest_on_narrow_ranges_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = partial(Options, budgets=replace(BUDGETS, narrow_from_round=0))
    monkeypatch.setattr(deciding, "Options", at_once)
    rng = np.random.default_rng(5)
    layers = [
        (rng.normal(0, a**-0.5, (b, a)).tolist(), rng.normal(-0.2, 0.3, b).tolist(), b != 2)
        for a, b in ((12, 24), (24, 24), (24, 24), (24, 12), (12, 2))
    ]
    source, out, certificate = (tmp_path / name for name in ("in.onnx", "out.onnx", "c.npz"))
    onnx.save(gemm_model(layers), source)
    optimize_file(source, out, domain="-0.3:0.3", certificate=certificate)
    with np.load(certificate) as file:
        names = [name for name in file.files if name.endswith("slopes_unit")]
        rows = {name: file[name].size for name in names}
    # Both bounds of a unit that stays unstable.
    assert any(rows[name] > np.unique(np.load(certificate)[name]).size for name in names)
    checked = verify(source, out, certificate)
    assert (checked.method, checked.claims) == ("certificate", 0)


def test_a_layer_with_too_much_work_is_left_as_it_is() -> None:
    budgets = replace(BUDGETS, narrow_products=100.0)
    before, after = narrowed(random_chain(1, 3, 7, 7, 5), Options(budgets=budgets))
    assert not after.narrowed
    assert widths(after, 1) == widths(before, 1)
