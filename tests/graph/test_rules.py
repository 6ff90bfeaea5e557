"""Every rule, by brute force: no runtime's value lies outside its interval."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from onnx_exact.graph import Ranges
from onnx_exact.graph.bounds import OPERATORS
from onnx_exact.graph.bounds.errors import UNITS
from tests.graph.rules.check import trials, violations
from tests.graph.rules.combination import Combination
from tests.graph.rules.count import totals
from tests.graph.rules.grid import GRID
from tests.versions import skip_where_onnx_is_wrong

GUARANTEES = Path(__file__).parents[2] / "docs" / "guarantees.md"


def test_every_rule_has_a_grid_and_every_grid_a_rule() -> None:
    assert GRID.keys() == OPERATORS.keys()


@pytest.mark.parametrize("op", OPERATORS)
def test_no_value_of_any_runtime_is_outside_its_interval(op: str) -> None:
    skip_where_onnx_is_wrong(op in ("Conv", "Gather", "OneHot"))
    for combination in GRID[op]:
        for elem_type in combination.types:
            found = violations(combination, elem_type)
            assert not found, (dict(combination.attributes), combination.opset, found[:5])


@pytest.mark.parametrize("op", OPERATORS)
def test_every_rule_says_something(op: str) -> None:
    def bounded(combination: Combination) -> bool:
        model = combination.model(combination.types[0])
        ordinary = islice(trials(combination, combination.types[0]), 6)
        found = [Ranges(model, trial.domain).of("y0") for trial in ordinary]
        return any(np.isfinite(side).any() for box in found for side in (box.lower, box.upper))

    assert any(bounded(combination) for combination in GRID[op])


def test_document_has_the_counts_of_what_is_tried() -> None:
    assert totals() in " ".join(GUARANTEES.read_text(encoding="utf-8").split())


def test_document_has_every_operator_and_the_errors_of_the_code() -> None:
    section = GUARANTEES.read_text(encoding="utf-8").partition("error per operator")[2]
    lines = section.partition("\n## ")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    assert sorted(op for names, _ in rows for op in names.split(", ")) == sorted(OPERATORS)
    (units,) = set(UNITS.values())
    (error,) = [text for names, text in rows if names == ", ".join(UNITS)]
    assert error.startswith(f"{units} units in the last place")
