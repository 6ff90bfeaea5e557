"""Every rule, by brute force: no runtime's value lies outside its interval."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnx_exact.graph import Ranges
from onnx_exact.graph.bounds.errors import UNITS
from onnx_exact.graph.bounds.operators import OPERATORS
from tests.graph.rules.check import trials, violations
from tests.graph.rules.combination import Combination
from tests.graph.rules.count import totals
from tests.graph.rules.grid import GRID

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


def test_every_rule_has_a_grid_and_every_grid_a_rule() -> None:
    assert GRID.keys() == OPERATORS.keys()


@pytest.mark.parametrize("op", OPERATORS)
def test_no_value_of_any_runtime_is_outside_its_interval(op: str) -> None:
    for combination in GRID[op]:
        for elem_type in combination.types:
            found = violations(combination, elem_type)
            assert not found, (dict(combination.attributes), combination.opset, found[:5])


@pytest.mark.parametrize("op", OPERATORS)
def test_every_rule_says_something(op: str) -> None:
    def bounded(combination: Combination) -> bool:
        trial = next(trials(combination, combination.types[0]))
        model = combination.model(combination.types[0])
        return Ranges(model, trial.domain).of("y0").finite

    assert any(bounded(combination) for combination in GRID[op])


def test_document_has_the_counts_and_the_errors_of_the_code() -> None:
    text = GUARANTEES.read_text(encoding="utf-8")
    assert totals() in " ".join(text.split())
    (row,) = [line for line in text.splitlines() if line.startswith("| " + ", ".join(UNITS))]
    assert set(UNITS.values()) == {8}
    assert " 8 units in the last place " in row
