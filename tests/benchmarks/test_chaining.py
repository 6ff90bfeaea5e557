"""The page on other tools holds what the record does, and says what each cell means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks import chaining
from benchmarks.tools.chained import BY_NAME, Tool, apply

ROW: dict[str, Any] = {
    "parameters": 1200,
    "chains": 1,
    "domain": True,
    "difference": 1e-7,
    "verify": "no difference found",
}


def test_page_holds_the_tables_of_the_record() -> None:
    record = json.loads(chaining.RECORD.read_text())
    text = chaining.PAGE.read_text()
    assert f"<!-- tables -->\n{chaining.markdown(record)}<!-- end of tables -->" in text


@pytest.mark.parametrize(
    ("change", "tool", "cell"),
    [
        ({}, "onnxslim", "1,200"),
        ({"failed": "why"}, "onnxslim", "fails"),
        ({"difference": 0.02}, "onnxslim", "1,200, **off by 0.02**"),
        ({"difference": 0.02}, "float16", "1,200, off by 0.02"),
        ({"difference": None}, "onnxslim", "1,200, does not run"),
        ({"chains": 0, "domain": False}, "onnxslim", "1,200, no chain, no domain"),
        ({"verify": "refuted: output 'y' differs by 1"}, "onnxslim", "1,200, refuted"),
        ({"verify": "refuted: their operator sets differ"}, "onnxslim", "1,200"),
    ],
)
def test_cell_says_what_is_not_as_one_would_have_it(
    change: dict[str, Any], tool: str, cell: str
) -> None:
    assert chaining._cell(ROW | change, BY_NAME[tool]) == cell


def test_tool_that_fails_or_writes_nothing_is_said_to(tmp_path: Any) -> None:
    def fails(source: Any, target: Any) -> None:
        raise ValueError("two\nlines")

    source, target = tmp_path / "a", tmp_path / "b"
    assert apply(Tool("t", "t", True, fails), source, target) == "ValueError: two lines"
    silent = Tool("t", "t", True, lambda source, target: None)
    assert "no file" in apply(silent, source, target)
