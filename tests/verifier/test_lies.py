"""Lies on purpose are refused, and their true siblings accepted; a part of `benchmarks/lies.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_exact.errors import NotVerifiedError, UsageError
from onnx_exact.verified import verify
from tests.verifier.build import Written
from tests.verifier.graph_lies import FORMS, formed
from tests.verifier.graph_lies import is_false as is_false_of_graphs
from tests.verifier.lies import (
    FAMILIES,
    beside,
    honest,
    is_constant,
    network,
    number_lies,
    rests_on_claims,
)

SEEDS = range(6)
TRIES = 30


def verified(written: Written) -> bool:
    """Whether the checker passes it; exceptions other than its own are defects."""
    try:
        return verify(written.old, written.new, written.certificate).verified
    except (NotVerifiedError, UsageError):
        return False


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_lies_about_numbers_are_refused(family: str, seed: int, tmp_path: Path) -> None:
    written = honest(family, seed, tmp_path)
    assert verified(beside(written, "sibling")) != rests_on_claims(written)
    rng = np.random.default_rng(seed)
    lies = 0
    for kind, lie in number_lies(written, family, seed, rng, TRIES):
        assert not verified(lie), kind
        lies += 1
    assert lies


@pytest.mark.parametrize("what", FORMS)
def test_lies_about_graphs_are_refused_and_their_siblings_accepted(
    what: str, tmp_path: Path
) -> None:
    form = FORMS[what]
    shown = 0
    for seed in SEEDS:
        written = honest("normal", seed, tmp_path)
        if is_constant(written) or rests_on_claims(written):
            continue
        case = network("normal", seed).case
        points = case.box.sample(np.random.default_rng(seed), 3)
        assert verified(formed(written, form, lies=False)), seed
        lie = formed(written, form, lies=True)
        if is_false_of_graphs(lie, form, points):
            shown += 1
            assert not verified(lie), seed
    assert shown
