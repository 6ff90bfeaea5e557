"""What a Slice of the inputs would save, counted on whole models."""

from __future__ import annotations

import numpy as np
import pytest

import onnx_exact
from onnx_exact.report import SliceReport
from tests.graph.build import Builder


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        ([2, 3], SliceReport(2, 4, 4, 4 * 5, 4 * 5 * 4)),
        ([0, 4], SliceReport(0, 5, 1, 5, 5 * 4)),
        ([0, 5], None),
        ([], None),
    ],
    ids=["the middle", "a gap stays", "both ends", "nothing"],
)
def test_only_the_ends_of_the_inputs_can_be_sliced_off(
    read: list[int], expected: SliceReport | None
) -> None:
    b = Builder()
    weight = np.zeros((5, 6), np.float32)
    weight[:, read] = 1.0
    y = b.relu(b.node("Gemm", "x", b.constant(weight), b.weight(5), transB=1))
    model = b.model([b.gemm(y, 5, 2)])
    (chain,) = onnx_exact.analyze(model, domain="0:1", method="bounds").chains
    assert chain.slice == expected
    assert len(chain.unread_inputs) == 6 - len(read)
