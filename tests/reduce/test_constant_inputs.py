"""What the first layer makes of inputs that are constant goes into its bias."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_exact
from onnx_exact.network import Box, Chain
from onnx_exact.reduce.constant_inputs import absorb
from tests.graph.build import Builder
from tests.reduce.states import ALL, F32, affine, difference, numbers, reduced, state

TWO = affine([[1, 2, 4], [-1, 2, -3]], [0.5, 0.25])
SUM = affine([[1, 1]], [0])


def fixed(low: list[float], high: list[float]) -> Box:
    return Box(np.array(low), np.array(high))


def test_columns_of_constant_inputs_become_zero_and_the_bias_takes_them_in() -> None:
    start = state(TWO, SUM)
    box = fixed([0, 0.5, -1], [1, 0.5, -1])
    edit = absorb(type(start)(start.layers, box, start.dtype), 0.0)
    assert numbers(edit.state)[0] == ([[1, 0, 0], [-1, 0, 0]], [0.5 + 1 - 4, 0.25 + 1 + 3])
    assert edit.rounds


def test_nothing_is_done_where_all_inputs_vary_or_are_not_read() -> None:
    start = state(TWO, SUM)
    assert absorb(start, 1.0).state is start
    unread = state(affine([[1, 0]], [0]), affine([[1]], [0]))
    unread = type(unread)(unread.layers, fixed([0, 1], [1, 1]), unread.dtype)
    assert absorb(unread, 1.0).state is unread


def test_bias_that_would_be_rounded_is_refused_where_nothing_may_be() -> None:
    start = state(affine([[1, 1]], [1.0]), affine([[1]], [0]))
    start = type(start)(start.layers, fixed([0, 2.0**-30], [1, 2.0**-30]), start.dtype)
    edit = absorb(start, 0.0)
    assert edit.state is start
    assert [refusal.what for refusal in edit.refused] == ["constant inputs"]
    assert absorb(start, None).refused == ()
    assert absorb(start, 1.0).state is not start


def test_units_that_differ_in_constant_inputs_alone_become_one() -> None:
    first = affine([[1, -1, 2, 5], [1, -1, 3, 4]], [-5.75, -5.25])
    chain, box = Chain.of([first, SUM]), fixed([-1, -1, 0.5, 1], [1, 1, 0.5, 1])
    found = reduced(chain, box, F32, ALL)
    assert [layer.width for layer in found.chain.layers] == [1, 1]
    assert difference(chain, found.chain, box) == 0.0


def test_network_of_which_all_inputs_are_constant_becomes_its_constant() -> None:
    chain, box = Chain.of([TWO, SUM]), fixed([1, 0.5, -1], [1, 0.5, -1])
    found = reduced(chain, box, F32, ALL)
    assert found.chain.is_constant
    assert difference(chain, found.chain, box) == 0.0


@pytest.mark.parametrize("most", [0.0, 1.0])
def test_certificate_of_a_network_with_constant_inputs_is_accepted(
    tmp_path: Path, most: float
) -> None:
    b = Builder(seed=4)
    y = b.gemm(b.relu(b.gemm("x", 6, 9)), 9, 2)
    onnx.save(b.model([y]), tmp_path / "in.onnx")
    domain = {"lower": [-1, -1, 0.3, 0.0, -0.7, -1], "upper": [1, 1, 0.3, 0.0, -0.7, 1]}
    (tmp_path / "box.json").write_text(json.dumps({"x": domain}))
    files = [tmp_path / name for name in ("in.onnx", "out.onnx", "proof.json")]
    box = str(tmp_path / "box.json")
    onnx_exact.optimize_file(
        files[0], files[1], domain=box, max_deviation=most, certificate=files[2]
    )
    weight = numpy_helper.to_array(onnx.load(files[1]).graph.initializer[0])
    # What 0 is multiplied by moves nothing.
    assert (weight == 0).all(axis=0).tolist() == [False, False, most > 0, True, most > 0, False]
    found = onnx_exact.verify(*files[:2], files[2], domain=box)
    assert found.method == "certificate"
