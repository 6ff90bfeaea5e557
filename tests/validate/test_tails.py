"""A result is judged by its chains: what stands behind one does not make it right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from onnx_exact import optimize, optimize_file
from onnx_exact.errors import ValidationError
from onnx_exact.graph import write
from onnx_exact.report import Report
from onnx_exact.report.text import to_text
from onnx_exact.validate.outside import walk_back
from tests.side_by_side import F32, Input
from tests.validate.networks import (
    TAILS,
    amplifying,
    branching,
    built,
    casting,
    half_island,
    largest,
    network,
    normalised,
    parameters,
    plain,
    quantised,
    saved,
    with_tail,
    zip_map,
)


def shrunk(made: ModelProto, **settings: Any) -> tuple[ModelProto, Report]:
    new, report = optimize(made, **{"domain": "0:1", **settings})
    after = report.totals.connections_after
    assert after is not None
    assert after < report.totals.connections_before
    return new, report


@pytest.mark.parametrize("name", TAILS)
def test_right_result_is_accepted_whatever_stands_behind_the_chain(name: str) -> None:
    _, report = shrunk(with_tail(TAILS[name]()))
    assert report.deviation is not None
    (chain,) = report.deviation.chains
    assert chain.of == "f"
    assert 0.0 < chain.observed <= chain.expected
    assert "Warning" not in to_text(report)


def test_outputs_that_are_maps_are_no_obstacle(tmp_path: Path) -> None:
    report = optimize_file(saved(zip_map(), tmp_path), tmp_path / "out.onnx", domain="0:1")
    assert report.changed


def test_chain_behind_a_chain_is_judged_by_its_own_inputs() -> None:
    nodes, constants = network(made="m")
    more, others = network("s", "f", prefix="second_", sizes=(4, 18, 15, 3), seed=1)
    middle = helper.make_node("Sigmoid", ["m"], ["s"])
    _, report = shrunk(built([*nodes, middle, *more], **constants, **others))
    assert report.deviation is not None
    assert [chain.of for chain in report.deviation.chains] == ["m", "f"]
    assert not any(chain.unexpected for chain in report.deviation.chains)


@pytest.mark.parametrize("goal", ["deploy", "verify", "size"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_chains_of_every_type_and_form_are_accepted(dtype: Any, goal: str) -> None:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    made = plain(dtype=dtype, elem_type=kind, inputs=[Input("x", (None, 6), kind)])
    _, report = shrunk(made, goal=goal)
    assert report.deviation is not None
    assert not any(chain.unexpected for chain in report.deviation.chains)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_layers_that_were_folded_from_several_nodes_are_accepted(dtype: Any, offset: float) -> None:
    shrunk(normalised(dtype, offset))


def test_ill_conditioned_chain_may_be_off_by_what_its_own_rounding_does() -> None:
    """Large terms that cancel: the runtime is off by 1, and so is another order of summing."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(40, 6)).astype(np.float32)
    bias = np.where(np.arange(40) < 30, 1e6, -90).astype(np.float32)
    outer = (1e5 * rng.normal(size=(3, 40))).astype(np.float32)
    shift = -(outer.astype(np.float64) @ np.maximum(bias, 0.0)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "W", "b"], ["g"], transB=1),
        helper.make_node("Relu", ["g"], ["h"]),
        helper.make_node("Gemm", ["h", "V", "c"], ["f"], transB=1),
        helper.make_node("Sigmoid", ["f"], ["y"]),
    ]
    _, report = shrunk(built(nodes, [("y", F32)], W=weight, b=bias, V=outer, c=shift))
    assert report.deviation is not None
    (chain,) = report.deviation.chains
    assert chain.rounding > 1e3
    assert not chain.unexpected


def test_constant_that_a_chain_became_is_judged_too() -> None:
    nodes, constants = network()
    constants["b0"] = constants["b0"] - np.float32(100)
    new, _ = shrunk(built(nodes, **constants))
    assert "Gemm" not in {node.op_type for node in new.graph.node}


def test_given_tolerance_judges_the_outputs_and_counts_for_integers() -> None:
    made = with_tail(quantised())
    shrunk(made, atol=1.0)
    with pytest.raises(ValidationError, match="'y' differs by"):
        optimize(with_tail(amplifying()), domain="0:1", atol=1e-9)
    with pytest.raises(ValidationError, match="'f' differs by"):
        optimize(plain(), domain="0:1", rtol=0.0)


@pytest.mark.parametrize("tail", [amplifying, branching, casting, half_island, largest, quantised])
def test_outputs_are_bit_for_bit_those_of_the_old_tail_on_the_new_chains_output(tail: Any) -> None:
    """What `validate.outside` concludes from equal nodes, tried in onnxruntime."""
    old = with_tail(tail())
    new, _ = shrunk(old)
    x = np.random.default_rng(0).uniform(size=(50, 6)).astype(np.float32)
    inside = ModelProto()
    inside.CopyFrom(new)
    inside.graph.output.append(helper.make_tensor_value_info("f", F32, None))
    *expected, chain = computed(inside, {"x": x})
    positions, _ = walk_back(old, [value.name for value in old.graph.output], {"f"})
    behind = ModelProto()
    behind.CopyFrom(old)
    del behind.graph.node[:]
    behind.graph.node.extend(old.graph.node[i] for i in positions)
    behind.graph.input[0].CopyFrom(helper.make_tensor_value_info("f", F32, None))
    for now, before in zip(expected, computed(behind, {"f": chain}), strict=True):
        np.testing.assert_array_equal(now, before, strict=True)


def computed(made: ModelProto, feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        made.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values: list[NDArray[Any]] = session.run(None, feed)
    return values


def test_networks_of_these_tests_have_units_of_every_kind() -> None:
    weight, bias = parameters()[0]
    low = bias + np.minimum(weight, 0.0).sum(axis=1)
    high = bias + np.maximum(weight, 0.0).sum(axis=1)
    assert (high < 0.0).sum() >= 6
    assert (low > 0.0).sum() >= 6
    assert ((low < 0.0) & (high > 0.0)).any()


def test_tensors_inside_are_seen_where_the_weights_are_external_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = with_tail(casting())
    onnx.save(
        made,
        tmp_path / "in.onnx",
        save_as_external_data=True,
        location="in.data",
        size_threshold=0,
    )
    # So that the small ones of the result are external too.
    monkeypatch.setattr(write, "EXTERNAL_FROM_BYTES", 0)
    report = optimize_file(tmp_path / "in.onnx", tmp_path / "out.onnx", domain="0:1")
    assert (tmp_path / "out.onnx.data").exists()
    assert report.deviation is not None
    assert report.deviation.chains[0].of == "f"
