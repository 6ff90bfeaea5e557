"""A chain that reads another one's outputs gets what a runtime computes, rounding and all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_exact
from benchmarks.fuzz import domain_of, graph_of, options_of
from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.pipeline import analyze, optimize_file
from tests.graph.build import run
from tests.verifier.build import gemm_model, read


def test_rounding_of_one_chain_is_in_the_domain_of_the_next() -> None:
    # y = 0.1 + ... + 0.1 in float32 is not seventy times the float32 nearest to 0.1; the second
    # chain magnifies by how much it is not.
    ones, tenth = np.ones((1, 70), np.float32), np.full((1, 70), 0.1, np.float32)
    exact = 70.0 * float(np.float32(0.1))
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["g"]),
        helper.make_node("Relu", ["g"], ["r"]),
        helper.make_node("MatMul", ["r", "I"], ["y"]),
        helper.make_node("Abs", ["y"], ["a"]),
        helper.make_node("Sub", ["a", "c"], ["d"]),
        helper.make_node("Abs", ["d"], ["n"]),
        helper.make_node("Gemm", ["n", "K", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["s"]),
        helper.make_node("MatMul", ["s", "I"], ["z"]),
    ]
    off = float(np.float32(exact) - exact)
    arrays = {
        "W": tenth.T,
        "I": np.eye(1, dtype=np.float32),
        "c": np.float32([exact]),
        "K": np.float32([[1e7]]),
        "b": np.float32([-1e7 * abs(off) - 2.0]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 70])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(v, k) for k, v in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (found,) = run(model, {"x": ones})
    report = analyze(model, domain="1:1")
    second = report.chains[1]
    assert found.max() > 0.0
    assert second.layers[0].stably_inactive == 0


def optimized(number: int, folder: Path) -> tuple[onnx_exact.Report, list[Path]]:
    """A random graph with several chains, made smaller with a certificate."""
    rng = np.random.default_rng([number, 1])
    model, graph = graph_of(number, "graphs")
    boxes = domain_of(model, graph.live[: len(graph.inputs)], rng)
    options = options_of(rng)
    options.pop("form", None)
    files = [folder / name for name in ("old.onnx", "new.onnx", "proof.npz")]
    files[0].write_bytes(model.SerializeToString())
    report = optimize_file(*files[:2], domain=boxes, certificate=files[2], **options)
    return report, files


# Bounds on one chain's outputs decide the next one; a chain reads a constant that another has
# become; a chain has become one in its middle, which the checker does not read; two chains, of
# which one stays so that the sizes of the other's inputs follow.
@pytest.mark.parametrize("number", [2332, 71, 586, 712, 77])
def test_a_certificate_of_chains_behind_others_is_verified(number: int, tmp_path: Path) -> None:
    _, files = optimized(number, tmp_path)
    assert onnx_exact.verify(*files).verified


def test_a_chain_that_turns_constant_in_its_middle_is_verified_or_said_to_stay(
    tmp_path: Path,
) -> None:
    report, files = optimized(586, tmp_path)
    reasons = [refusal.reason for refusal in report.refused]
    said = any("no certificate can speak of what it would be" in reason for reason in reasons)
    assert report.changed or said
    assert onnx_exact.verify(*files).verified


def test_a_box_that_does_not_hold_what_comes_is_not_believed(tmp_path: Path) -> None:
    _, files = optimized(2332, tmp_path)
    written = read(*files)
    (name,) = (name for name in written.arrays if name.endswith("_box"))
    low, high = written.arrays[name]
    widest = int((high - low).argmax())
    for side in (0, 1):
        box = np.array([low, high])
        box[side, widest] = 0.5 * low[widest] + 0.5 * high[widest]
        changed = written.changed(**{name: box})
        with pytest.raises(UncheckedError, match="box"):
            onnx_exact.verify(changed.old, changed.new, changed.certificate)


def test_a_chain_at_the_input_has_no_other_box_than_the_domain(tmp_path: Path) -> None:
    layers = [(np.eye(3), np.array([2.0, -2.0, 0.0]), True), (np.ones((1, 3)), np.zeros(1), False)]
    onnx.save(gemm_model(layers), tmp_path / "old.onnx")
    files = [tmp_path / name for name in ("old.onnx", "new.onnx", "proof.npz")]
    optimize_file(*files[:2], domain="-1:1", certificate=files[2])
    assert onnx_exact.verify(*files).verified
    changed = read(*files).changed(c0_box=np.array([[-2.0] * 3, [2.0] * 3]))
    with pytest.raises(NotVerifiedError, match="say nothing"):
        onnx_exact.verify(changed.old, changed.new, changed.certificate)
