"""Kinds of pairs that were once accepted and are not the same function."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.cli import main
from onnx_exact.errors import ModelError, NotVerifiedError, UncheckedError
from onnx_exact.pipeline import optimize_file
from onnx_exact.verifier.coverage import (
    compare_outside,
    compare_signatures,
    require_steady_sizes,
)
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def model(
    nodes: Sequence[NodeProto],
    shape: Sequence[Any],
    *,
    opsets: Sequence[tuple[str, int]] = (("", 17),),
    kind: int = TensorProto.FLOAT,
    **constants: Any,
) -> ModelProto:
    """From "x" to "y"."""
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)),
        helper.make_tensor_value_info("y", kind, None),
    ]
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], stored)
    sets = [helper.make_opsetid(*pair) for pair in opsets]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def read(proto: ModelProto) -> Model:
    return Model(proto, "it")


ENDS = {"a": [0], "b": [3], "far": [2**62], "back": [-3], "one": [1], "two": [2]}
OPEN = {
    "from an open axis": [node("Slice", "x a b", "y")],
    "the end of an open axis": [node("Slice", "x back far", "y")],
    "an end that is computed": [node("Shape", "x", "s"), node("Slice", "x a s one", "y")],
    "two halves": [node("Split", "x", "y z", axis=0)],
    "within a graph": [
        node("Greater", "k l", "c"),
        node(
            *("If", "c", "y"),
            then_branch=helper.make_graph(
                [node("Slice", "x a b", "p")],
                *("then", [], [helper.make_tensor_value_info("p", TensorProto.FLOAT, None)]),
            ),
            else_branch=helper.make_graph(
                [node("Identity", "x", "q")],
                *("else", [], [helper.make_tensor_value_info("q", TensorProto.FLOAT, None)]),
            ),
        ),
    ],
}


@pytest.mark.parametrize("what", OPEN)
def test_parts_of_open_sizes_are_refused(what: str) -> None:
    """Their sizes may be others between those that are tried."""
    constants = {k: np.array(v, np.int64) for k, v in ENDS.items()}
    found = read(model(OPEN[what], ["N", 4], k=np.float32(1), l=np.float32(0), **constants))
    with pytest.raises(UncheckedError, match=r"Slice|Split"):
        require_steady_sizes(found)


@pytest.mark.parametrize(
    "nodes",
    [[node("Slice", "x a b one", "y")], [node("Slice", "x a far a", "y")]],
    ids=["along a known axis", "all of an open one"],
)
def test_parts_of_known_sizes_are_not(nodes: list[NodeProto]) -> None:
    constants = {k: np.array(v, np.int64) for k, v in ENDS.items()}
    require_steady_sizes(read(model(nodes, ["N", 4], **constants)))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Shape", "x", "s"), node("Gather", "table s", "n"), node("Reshape", "x n", "y")],
        [node("Shape", "x", "s"), node("Sub", "s two", "n"), node("Reshape", "x n", "y")],
        [
            *(node("Shape", "x", "s"), node("Slice", "table a s", "n")),
            node("Reshape", "x n", "y"),
        ],
    ],
    ids=["a table", "arithmetic", "a part of a table"],
)
def test_sizes_that_are_any_function_of_others_are_not_known(nodes: list[NodeProto]) -> None:
    constants = {k: np.array(v, np.int64) for k, v in ENDS.items()}
    found = read(model(nodes, ["N", 4], table=np.arange(20_000), **constants))
    with pytest.raises(UncheckedError, match="shape"):
        found.shapes("y")


def test_a_matrix_whose_product_nobody_reads_tells_a_size() -> None:
    """It is multiplied by all the same, and fails where it does not fit."""
    nodes = [node("MatMul", "x w", "dead"), node("Relu", "x", "y")]
    assert read(model(nodes, ["N", "M"], w=np.ones((4, 1), np.float32))).told == {("x", 1): 4}


def test_a_matrix_of_which_only_the_size_is_read_tells_no_size() -> None:
    weight = np.ones((4, 1), np.float32)
    nodes = [node("MatMul", "x w", "p"), node("Shape", "p", "y")]
    assert not read(model(nodes, ["N", "M"], kind=TensorProto.INT64, w=weight)).told
    assert read(model([node("MatMul", "x w", "y")], ["N", "M"], w=weight)).told == {("x", 1): 4}


def declaring(*sizes: int) -> Model:
    nodes = [node("NonZero", "x", "p"), node("Shape", "p", "y")]
    proto = model(nodes, [1, 4], kind=TensorProto.INT64)
    if sizes:
        info = helper.make_tensor_value_info("p", TensorProto.INT64, list(sizes))
        proto.graph.value_info.append(info)
    return read(proto)


@pytest.mark.parametrize("turned", [False, True])
def test_what_a_file_says_of_a_tensor_is_the_same_or_follows(turned: bool) -> None:
    """A runtime may take it at its word."""
    pair = declaring(), declaring(2, 7)
    with pytest.raises((NotVerifiedError, UncheckedError)):
        compare_outside(*(pair[::-1] if turned else pair), [])
    compare_outside(declaring(2, 7), declaring(2, 7), [])


def test_what_follows_may_be_said_by_one_model_alone() -> None:
    protos = [model([node("Relu", "x", "p"), node("Neg", "p", "y")], [1, 4]) for _ in range(3)]
    for proto, size in zip(protos[1:], (4, 5), strict=True):
        info = helper.make_tensor_value_info("p", TensorProto.FLOAT, [1, size])
        proto.graph.value_info.append(info)
    compare_outside(read(protos[0]), read(protos[1]), [])
    with pytest.raises(NotVerifiedError, match="does not follow"):
        compare_outside(read(protos[0]), read(protos[2]), [])


@pytest.mark.parametrize("other", ["", "ai.onnx"])
def test_two_versions_of_one_operator_set_are_refused(other: str) -> None:
    pair = [
        read(model([node("Softmax", "x", "y")], [1, 2, 3], opsets=opsets))
        for opsets in ((("", 11), (other, 13)), ((other, 13), ("", 11)))
    ]
    with pytest.raises(UncheckedError, match="two versions"):
        compare_signatures(*pair)


def test_sparse_numbers_in_another_file_are_refused(tmp_path: Path) -> None:
    proto = model([node("Add", "x w", "y")], [4])
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(
        values, numpy_helper.from_array(np.zeros(1, np.int64), "w_indices"), [4]
    )
    sparse.values.data_location = TensorProto.EXTERNAL
    entry = sparse.values.external_data.add()
    entry.key, entry.value = "location", "w.bin"
    sparse.values.ClearField("raw_data")
    (tmp_path / "w.bin").write_bytes(b"\0\0\x80\x3f")
    proto.graph.sparse_initializer.append(sparse)
    (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError):
        Model(tmp_path / "m.onnx", "it")


def test_texts_are_compared_by_what_they_say() -> None:
    def labelled(*words: str) -> Model:
        proto = model([node("Identity", "w", "y")], [1], kind=TensorProto.STRING)
        proto.graph.initializer.append(
            helper.make_tensor("w", TensorProto.STRING, [len(words)], [w.encode() for w in words])
        )
        return read(proto)

    compare_outside(labelled("a", "b"), labelled("a", "b"), [])
    with pytest.raises(NotVerifiedError, match="constant"):
        compare_outside(labelled("benign"), labelled("malign"), [])


def bounds(nodes: list[NodeProto], shape: Sequence[int], tensor: str, **constants: Any) -> Any:
    found = read(model(nodes, shape, opsets=[("", 21)], **constants))
    box = np.full(shape, -1.0), np.full(shape, 1.0)
    return Front(found, {"x": box}).along(tensor, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_LOWER"},
        {"kernel_shape": [2], "strides": [1], "pads": [1, 0], "ceil_mode": 1},
        {"kernel_shape": [3], "strides": [2], "auto_pad": "SAME_LOWER", "ceil_mode": 1},
    ],
    ids=["SAME_LOWER", "ceil_mode", "both"],
)
def test_pools_that_the_reference_gets_wrong_are_bounded_by_their_channel(options: Any) -> None:
    import onnxruntime

    # What rises along the image, so that it matters which entries a window has.
    slope = np.linspace(-1.0, 1.0, 4, dtype=np.float32).reshape(1, 1, 4)
    nodes = [node("Mul", "x none", "p"), node("Add", "p slope", "q"), node("MaxPool", "q", "y")]
    for name, value in options.items():
        nodes[2].attribute.append(helper.make_attribute(name, value))
    proto = model(nodes, [1, 1, 4], none=np.float32(0.0), slope=slope)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    made = session.run(None, {"x": np.zeros((1, 1, 4), np.float32)})[0]
    low, high = bounds(nodes, [1, 1, 4], "y", none=np.float32(0.0), slope=slope)
    assert low.min() <= made.min()
    assert made.max() <= high.max()


def test_a_cast_to_a_type_that_wraps_says_nothing() -> None:
    nodes = [node("Cast", "x", "p", to=TensorProto.INT4), node("Cast", "p", "y", to=1)]
    low, high = bounds(nodes, [1, 4], "y")
    assert low.min() == -np.inf
    assert high.max() == np.inf


@pytest.mark.parametrize("what", ["Mul", "Clip", "Sigmoid", "an infinite constant"])
def test_what_may_be_no_number_has_no_bounds_whatever_is_done_to_it(what: str) -> None:
    nodes = {
        "Mul": [node("Sqrt", "x", "p"), node("Mul", "p none", "y")],
        "Clip": [node("Sqrt", "x", "p"), node("Clip", "p none", "y")],
        "Sigmoid": [node("Sqrt", "x", "p"), node("Sigmoid", "p", "y")],
        "an infinite constant": [node("Mul", "endless none", "p"), node("Mul", "x p", "y")],
    }[what]
    low, high = bounds(nodes, [1, 4], "y", none=np.float32(0.0), endless=np.float32(np.inf))
    assert not (np.isfinite(low).all() and np.isfinite(high).all())


def test_a_constant_without_a_value_is_none() -> None:
    proto = model([node("Relu", "x", "y")], [1, 4])
    proto.graph.node.append(helper.make_node("Constant", [], ["c"]))
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError:
        pytest.skip("the checker of this onnx refuses it")
    assert read(proto).constant("c") is None


def test_where_the_checker_refuses_sizes_a_chain_stays_and_the_report_says_why(
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(5, 8)).astype(np.float32), np.full(8, -1e3, np.float32)
    nodes = [
        node("Slice", "x a b", "p"),
        *(node("Gemm", "p w c", "h"), node("Relu", "h", "r"), node("MatMul", "r v", "y")),
    ]
    constants = {k: np.array(v, np.int64) for k, v in ENDS.items()}
    last = rng.normal(size=(8, 2)).astype(np.float32)
    proto = model(nodes, ["N", 5], w=weight, c=bias, v=last, **constants)
    old, new, certificate = (tmp_path / name for name in ("in.onnx", "out.onnx", "c.npz"))
    onnx.save(proto, old)
    report = optimize_file(old, new, domain="0:1", certificate=certificate)
    assert not report.changed
    assert any("an open Slice" in refusal.reason for refusal in report.refused)
    assert main(["verify", str(old), str(new), "--certificate", str(certificate)]) == 0
    assert optimize_file(old, new, domain="0:1").changed
