"""The page on bounds holds what the record does, and counts as a gain what is one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest

import onnx_exact
from benchmarks import consumers
from benchmarks.tools import embed
from benchmarks.training.networks import MODELS


def rows(seconds: float, nodes: int, binaries: int) -> list[dict[str, Any]]:
    return [
        {"seconds": seconds, "nodes": nodes, "binaries": binaries, "status": "optimal"}
        for _ in range(5)
    ]


def test_page_holds_the_tables_of_the_record() -> None:
    record = json.loads(consumers.RECORD.read_text())
    text = consumers.PAGE.read_text()
    assert f"<!-- tables -->\n{consumers.markdown(record)}<!-- end of tables -->" in text


@pytest.mark.parametrize(
    ("new", "words"),
    [
        ((5.0, 100, 40), ["time"]),
        ((6.0, 100, 40), []),
        ((6.0, 49, 40), ["nodes"]),
        ((6.0, 100, 20), ["binaries"]),
        ((1.0, 1, 1), ["time", "nodes", "binaries"]),
    ],
)
def test_gain_is_half_of_the_time_the_nodes_or_the_binaries(
    new: tuple[float, int, int], words: list[str]
) -> None:
    found = {consumers.ORIGINAL: rows(10.0, 100, 40), consumers.BOUNDED: rows(*new)}
    assert consumers.gains(found) == words


def test_mean_is_geometric() -> None:
    mixed = [{"seconds": 1.0, "nodes": 0}, {"seconds": 4.0, "nodes": 3}]
    assert consumers.mean(mixed, "seconds") == pytest.approx(2.0)
    assert consumers.mean(mixed, "nodes") == pytest.approx(1.0)


def test_bounds_of_layers_are_those_of_the_relus_in_their_order(tmp_path: Any) -> None:
    new, file = tmp_path / "new.onnx", tmp_path / "b.npz"
    old = MODELS / "digits_2x32_l1.onnx"
    report = onnx_exact.optimize_file(old, new, domain="0:1", bounds=file)
    found = embed.layer_bounds(file, "original", onnx.load(old))
    layers = [layer for layer in report.chains[0].layers if layer.relu]
    assert len(found) == len(layers) == 2
    for (low, high), layer in zip(found, layers, strict=True):
        assert np.array_equal(low, layer.lower)
        assert np.array_equal(high, layer.upper)
