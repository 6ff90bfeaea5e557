"""Whole models of many families, optimized in every way, against what their files compute exactly.

A part of what `python -m benchmarks.oracle` does with ten thousand networks.
"""

from __future__ import annotations

import pytest

from tests.oracle.families import FAMILIES, network
from tests.oracle.judge import Known, judge, ways_for

NETWORKS = 10  # of each family


@pytest.mark.parametrize("seed", range(NETWORKS))
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_that_is_said_of_a_model_is_wrong(family: str, seed: int) -> None:
    known = Known.of(network(family, seed))
    wrong = [f"{way}: {text}" for way in ways_for(seed) for text in judge(known, way).wrong]
    assert not wrong, "\n".join(wrong)
