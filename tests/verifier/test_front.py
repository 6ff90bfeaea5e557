"""What stands in front of a chain: its intervals hold at every point, and honest results pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from onnx_exact.errors import UncheckedError
from onnx_exact.graph.bounds.operators import OPERATORS
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import verify
from onnx_exact.verifier.chain import read_chain
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.front_rules import RULES
from onnx_exact.verifier.model import Model
from tests.versions import skip_where_onnx_is_wrong

POINTS = 300
SHAPE = (1, 4, 6, 5)


def node(op: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(
        op, [n if n != "_" else "" for n in inputs.split()], [output], **attributes
    )


RNG = np.random.default_rng(5)
CONSTANTS: dict[str, Any] = {
    "k": RNG.normal(size=(6, 4, 3, 2)),
    "g": RNG.normal(size=(4, 2, 3, 3)),
    "kb": RNG.normal(size=6),
    "gain": RNG.normal(size=4),
    "mean": RNG.normal(size=4),
    "var": RNG.uniform(0.1, 2, size=4),
    "c": RNG.normal(size=(4, 1, 1)),
    "d": RNG.uniform(0.5, 2, size=(1, 6, 1)),
    "w": RNG.normal(size=(5, 3)),
    "v": RNG.normal(size=(3, 6)),
    "f": RNG.normal(size=(120, 7)),
    "fb": RNG.normal(size=(7,)),
    "low": np.float64(-0.25),
    "high": np.float64(0.5),
    "k4": RNG.normal(size=(4, 6, 3, 2)),
    "step": np.float64(0.02),
    "steps": RNG.uniform(0.01, 0.03, size=4),
    "ten": np.float64(10.0),
    "ends": np.array([-0.5, 2.0]),
    "w1": RNG.normal(size=(1, 5, 3)),
    "ws": RNG.normal(size=(4, 5, 3)),
    "vec": RNG.normal(size=5),
}
INTEGERS: dict[str, Any] = {"flat": [-1, 120], "ax": [1], "one": [1], "three": [3], "at": [2, 0]}
# Nodes from "x" to "y".
GRAPHS: dict[str, list[NodeProto]] = {
    "Scaler": [
        node("Flatten", "x", "i"),
        node(
            *("Scaler", "i", "j"),
            domain="ai.onnx.ml",
            offset=RNG.normal(size=120).tolist(),
            scale=RNG.normal(size=120).tolist(),
        ),
        node("Scaler", "j", "y", domain="ai.onnx.ml", offset=[0.25], scale=[-1.5]),
    ],
    "Conv": [node("Conv", "x k kb", "y")],
    "Conv, padded, strided": [
        node("Conv", "x k", "y", pads=[1, 0, 2, 1], strides=[2, 1], dilations=[1, 2])
    ],
    "Conv in groups": [node("Conv", "x g", "y", group=2, pads=[1, 1, 1, 1])],
    "Conv, SAME_UPPER": [node("Conv", "x k", "y", auto_pad="SAME_UPPER", strides=[2, 2])],
    "Conv, SAME_LOWER": [node("Conv", "x k", "y", auto_pad="SAME_LOWER", strides=[1, 2])],
    "MaxPool": [node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[2, 2])],
    "MaxPool, padded": [node("MaxPool", "x", "y", kernel_shape=[3, 2], pads=[1, 1, 1, 0])],
    "AveragePool": [node("AveragePool", "x", "y", kernel_shape=[3, 2], pads=[1, 1, 1, 0])],
    "AveragePool, pads counted": [
        node("AveragePool", "x", "y", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    ],
    "AveragePool, SAME": [
        node("AveragePool", "x", "y", kernel_shape=[2, 2], auto_pad="SAME_UPPER", strides=[2, 2])
    ],
    "GlobalAveragePool": [node("GlobalAveragePool", "x", "y")],
    "GlobalMaxPool": [node("GlobalMaxPool", "x", "y")],
    "BatchNormalization": [node("BatchNormalization", "x gain mean mean var", "y")],
    "Sub, Div, Mul, Add": [
        node("Sub", "x c", "a"),
        node("Div", "a d", "b"),
        node("Mul", "c b", "e"),
        node("Add", "e d", "y"),
    ],
    "Sub the other way": [node("Sub", "c x", "y")],
    "Div by a tensor": [
        node("Abs", "x", "a"),
        node("Add", "a d", "b"),
        node("Div", "c b", "y"),
    ],
    "Mul of two": [node("Neg", "x", "a"), node("Mul", "x a", "y")],
    "Max, Min, Sum": [
        node("Max", "x c d", "a"),
        node("Min", "x d", "b"),
        node("Sum", "a b x", "y"),
    ],
    "Relu, LeakyRelu, Abs": [
        node("LeakyRelu", "x", "a", alpha=0.3),
        node("Relu", "a", "b"),
        node("Sub", "b x", "e"),
        node("Abs", "e", "y"),
    ],
    "PRelu": [node("PRelu", "x c", "y")],
    "Resize": [node("Resize", "x _ scales", "y", mode="linear")],
    "Resize to the nearest": [node("Resize", "x _ scales", "y", mode="nearest")],
    "LeakyRelu, falling": [node("LeakyRelu", "x", "y", alpha=-0.5)],
    "Sigmoid": [node("Sigmoid", "x", "y")],
    "Tanh": [node("Tanh", "x", "y")],
    "Softmax": [node("Softmax", "x", "y")],
    "Clip": [node("Clip", "x low high", "y")],
    "Clip from below": [node("Clip", "x low", "y")],
    "Cast": [
        node("Cast", "x", "a", to=TensorProto.FLOAT16),
        node("Cast", "a", "y", to=TensorProto.FLOAT),
    ],
    "Transpose": [node("Transpose", "x", "a", perm=[0, 2, 3, 1]), node("Relu", "a", "y")],
    "MatMul": [node("MatMul", "x w", "y")],
    "MatMul from the left": [node("MatMul", "v x", "y")],
    "Gemm": [node("Flatten", "x", "a"), node("Gemm", "a f fb", "y", alpha=0.5, beta=-2.0)],
    "Reshape": [node("Reshape", "x flat", "y")],
    "Reshape to computed sizes": [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "n"),
        node("Concat", "n rest", "t", axis=0),
        node("Reshape", "x t", "y"),
    ],
    "Unsqueeze, Squeeze": [node("Unsqueeze", "x ax", "a"), node("Squeeze", "a ax", "y")],
    "Slice": [node("Slice", "x one three ax", "y")],
    "Gather": [node("Gather", "x at", "y", axis=2)],
    "Concat": [node("Neg", "x", "a"), node("Concat", "x a", "y", axis=1)],
    "Concat of samples": [node("Neg", "x", "a"), node("Concat", "x a", "y", axis=0)],
    "Dropout": [node("Dropout", "x", "y")],
    "Identity": [node("Identity", "x", "y")],
    "ConvTranspose": [node("ConvTranspose", "x k4 kb", "y")],
    "ConvTranspose, strided, padded": [
        node(
            "ConvTranspose",
            "x k4",
            "y",
            strides=[2, 1],
            pads=[1, 0, 0, 1],
            dilations=[1, 2],
            output_padding=[1, 0],
        )
    ],
    "Exp": [node("Exp", "x", "y")],
    "Sqrt": [node("Abs", "x", "a"), node("Sqrt", "a", "y")],
    "Elu": [node("Elu", "x", "y", alpha=0.7)],
    "Elu, default": [node("Elu", "x", "y")],
    "HardSigmoid": [node("HardSigmoid", "x", "y", alpha=-0.3, beta=0.4)],
    "HardSigmoid, default": [node("HardSigmoid", "x", "y")],
    "Sin": [node("Sin", "x", "y")],
    "Cos": [node("Cos", "x", "y")],
    "Where": [node("Neg", "x", "a"), node("Where", "mask x a", "y")],
    "Where, on a tensor": [
        node("Cast", "x", "b", to=TensorProto.BOOL),
        node("Where", "b x d", "y"),
    ],
    "Pad": [node("Pad", "x pads low", "y")],
    "Pad, edge": [node("Pad", "x pads", "y", mode="edge")],
    "Pad, reflect": [node("Pad", "x pads", "y", mode="reflect")],
    "ReduceMax": [node("ReduceMax", "x", "y", axes=[1, -1])],
    "ReduceMin": [node("ReduceMin", "x", "y", axes=[2], keepdims=0)],
    "ReduceMean": [node("ReduceMean", "x", "y", axes=[-1, 2])],
    "ReduceSum": [node("ReduceSum", "x ax", "y", keepdims=0)],
    "Tile": [node("Tile", "x times", "y")],
    "Expand": [node("Unsqueeze", "x ax", "a"), node("Expand", "a wide", "y")],
    "Split": [
        helper.make_node("Split", ["x", "halves"], ["a", "b"], axis=2),
        node("Sub", "a b", "y"),
    ],
    "Slice backwards": [node("Slice", "x three one ax minus", "y")],
    "Gather a vector": [node("Gather", "x three", "y", axis=1)],
    "OneHot": [
        node("Cast", "x", "i", to=TensorProto.INT64),
        node("OneHot", "i depth ends", "y"),
    ],
    "Cast to integers and back": [
        node("Mul", "x ten", "a"),
        node("Cast", "a", "i", to=TensorProto.INT32),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    ],
    "QuantizeLinear, DequantizeLinear": [
        node("QuantizeLinear", "x step zero8", "q"),
        node("DequantizeLinear", "q step zero8", "y"),
    ],
    "QuantizeLinear by channel": [
        node("QuantizeLinear", "x steps zeros8", "q", axis=1),
        node("DequantizeLinear", "q steps zeros8", "y", axis=1),
    ],
    "MatMul with axes of size 1": [node("MatMul", "x w1", "y")],
    "MatMul with a batch of matrices": [node("MatMul", "x ws", "y")],
    "MatMul with a vector": [node("MatMul", "x vec", "y")],
    "Gemm, turned": [
        node("Flatten", "x", "a"),
        node("Transpose", "a", "t", perm=[1, 0]),
        node("Gemm", "t f", "y", transA=1, alpha=-1.5),
    ],
}
INTEGERS |= {"zero": [0], "rest": [120], "pads": [0, 0, 1, 2, 0, 0, 0, 1], "minus": [-1]}
INTEGERS |= {"times": [1, 2, 1, 3], "wide": [1, 3, 1, 1, 1], "halves": [3, 3], "depth": 4}
OTHERS: dict[str, Any] = {
    "scales": np.array([1.0, 1.0, 2.0, 1.5], np.float32),
    "mask": RNG.random((4, 1, 5)) < 0.5,
    "zero8": np.uint8(128),
    "zeros8": np.array([120, 128, 100, 140], np.uint8),
}


# Their bounds say less than what is read.
LOOSE = {
    "Resize",
    "Resize to the nearest",
    "Softmax",
    "Concat of samples",
    "Where, on a tensor",
    "OneHot",
}


def initializers(nodes: Sequence[NodeProto]) -> list[TensorProto]:
    read = {name for n in nodes for name in n.input}
    found = [(k, np.asarray(v, np.float32)) for k, v in CONSTANTS.items()]
    found += [(k, np.asarray(v, np.int64)) for k, v in INTEGERS.items()]
    found += OTHERS.items()
    return [numpy_helper.from_array(np.asarray(v), k) for k, v in found if k in read]


def built(
    nodes: Sequence[NodeProto], out: Sequence[Any] | None, more: Sequence[TensorProto] = ()
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE[1:]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out)
    graph = helper.make_graph(nodes, "g", [x], [y], [*initializers(nodes), *more])
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def session_of(model: onnx.ModelProto) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, x: Any) -> Any:
    return session_of(model).run(None, {"x": x})[0]


@pytest.mark.parametrize("what", GRAPHS)
def test_intervals_hold_at_every_point(what: str) -> None:
    """In onnxruntime too, but for what it rounds in float32."""
    skip_where_onnx_is_wrong("SAME_" in what)
    model = built(GRAPHS[what], None)
    low = RNG.normal(size=SHAPE)
    high = low + RNG.choice([0.0, 0.1, 2.0], size=SHAPE)
    lower, upper = Front(Model(model, "a model"), {"x": (low, high)})._of("y")
    assert np.isfinite(lower).all()
    assert np.isfinite(upper).all()
    session = session_of(model)
    for number in range(POINTS):
        share = RNG.random(SHAPE) if number % 2 else RNG.integers(0, 2, SHAPE)
        x = (low + share * (high - low)).astype(np.float32)
        # Every sample has the same bounds.
        y = session.run(None, {"x": np.concatenate([x, x]) if number % 3 else x})[0]
        slack = 1e-5 * (1.0 + np.abs(y))
        assert (y >= lower - slack).all()
        assert (y <= upper + slack).all()


@pytest.mark.parametrize("what", GRAPHS)
def test_bounds_are_attained_where_entries_are_picked_apart(what: str) -> None:
    """On a single point the intervals are the value, but for what rounding takes."""
    skip_where_onnx_is_wrong("SAME_" in what)
    if what in LOOSE:
        pytest.skip("bounds over more than the entries that are read")
    model = built(GRAPHS[what], None)
    x = RNG.normal(size=SHAPE).astype(np.float32)
    lower, upper = Front(Model(model, "a model"), {"x": (x.astype(float),) * 2})._of("y")
    y = run(model, x)
    np.testing.assert_allclose(np.broadcast_to(lower, y.shape), y, rtol=2e-3, atol=1e-4)
    np.testing.assert_allclose(np.broadcast_to(upper, y.shape), y, rtol=2e-3, atol=1e-4)


def test_every_rule_is_one_of_the_writer_s_and_is_tried() -> None:
    """What only the writer bounds stays as it is where a certificate is asked for."""
    assert RULES.keys() <= {name.removeprefix("ai.onnx.ml.") for name in OPERATORS}
    tried = {n.op_type for nodes in GRAPHS.values() for n in nodes}
    assert RULES.keys() <= tried


def test_what_is_picked_by_what_is_not_constant_may_be_any_entry() -> None:
    """Where to slice is a number that the input tells; the reference may not be asked with it."""
    nodes = [
        node("ReduceMax", "x", "a", keepdims=0),
        node("Cast", "a", "i", to=TensorProto.INT64),
        node("Reshape", "i one", "j"),
        node("Gather", "x j", "y", axis=2),
    ]
    low = RNG.uniform(0, 5, SHAPE)
    lower, upper = Front(Model(built(nodes, None), "a model"), {"x": (low, low)})._of("y")
    assert (lower.min(), upper.max()) == (low.min(), low.max())
    assert lower.size == upper.size == 1


@pytest.mark.parametrize("axis", [0, 1])
def test_samples_that_are_moved_keep_the_bounds_of_all_entries(axis: int) -> None:
    """Along an axis of unknown size nothing is picked, padded or added up entry by entry."""
    one = {"one": np.array([1]), "pads": np.array([1 - axis, axis, 0, 0])}
    more = [numpy_helper.from_array(v, k) for k, v in one.items()]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    nodes = [
        node("Gather", "x one", "picked", axis=axis),
        node("Pad", "x pads", "padded"),
        node("ReduceSum", "x axis", "total", keepdims=0),
    ]
    more.append(numpy_helper.from_array(np.array([axis]), "axis"))
    outputs = [helper.make_tensor_value_info(n.output[0], TensorProto.FLOAT, None) for n in nodes]
    graph = helper.make_graph(nodes, "g", [x], outputs, more)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    low = np.array([[1.0, 2.0, 4.0]])
    front = Front(Model(model, "a model"), {"x": (low, low)})
    assert front._of("picked")[1].max() == (2.0 if axis else 4.0)
    assert np.isfinite(front._of("padded")[0]).all() == bool(axis)
    assert np.isfinite(front._of("total")[0]).all() == bool(axis)


def behind(nodes: Sequence[NodeProto]) -> onnx.ModelProto:
    """A chain behind the nodes, with units that are stable for sure."""
    inner = [NodeProto.FromString(n.SerializeToString()) for n in nodes]
    inner[-1].output[0] = "front"
    model = built([*inner, node("Flatten", "front", "flattened")], None)
    onnx.shape_inference.infer_shapes(model)
    width = run_width(inner)
    rng = np.random.default_rng(1)
    weights = {
        "W": rng.normal(size=(8, width)),
        "B": np.where(np.arange(8) % 3 == 0, -1e4, np.where(np.arange(8) % 3 == 1, 1e4, 0.0)),
        "V": rng.normal(size=(2, 8)),
    }
    more = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()]
    chain = [
        node("Gemm", "flattened W B", "h", transB=1),
        node("Relu", "h", "r"),
        node("Gemm", "r V", "y", transB=1),
    ]
    return built([*inner, node("Flatten", "front", "flattened"), *chain], [None, 2], more)


def run_width(nodes: Sequence[NodeProto]) -> int:
    model = built([*nodes, node("Flatten", "front", "y")], None)
    return int(run(model, np.zeros(SHAPE, np.float32)).shape[1])


HONEST = [what for what in GRAPHS if what != "LeakyRelu, falling"]


@pytest.mark.parametrize("what", HONEST)
def test_chains_behind_it_are_accepted(what: str, tmp_path: Path) -> None:
    skip_where_onnx_is_wrong("SAME_" in what)
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "c.npz"
    onnx.save(behind(GRAPHS[what]), paths[0])
    optimize_file(paths[0], paths[1], domain="-1:1", certificate=paths[2])
    found = verify(*paths)
    assert found.verified
    assert found.count(1) >= 4


def test_a_chain_behind_another_is_checked_over_what_that_puts_out(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    arrays = {"w": (6, 3), "u": (4, 6), "p": (5, 4), "q": (2, 5)}
    tensors = [
        numpy_helper.from_array(rng.normal(size=s).astype(np.float32), k) for k, s in arrays.items()
    ]
    biases = {"b": [-9, 9, 0, 0.1, 0, -0.1], "e": [-20, 20, 0, 0.1, 0]}
    tensors += [numpy_helper.from_array(np.array(v, np.float32), k) for k, v in biases.items()]
    nodes = [
        node("Gemm", "x w b", "g", transB=1),
        node("Relu", "g", "h"),
        node("Gemm", "h u", "m", transB=1),
        node("Tanh", "m", "t"),
        node("Gemm", "t p e", "k", transB=1),
        node("Relu", "k", "l"),
        node("Gemm", "l q", "y", transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "c.npz"
    onnx.save(model, paths[0])
    optimize_file(paths[0], paths[1], domain="-1:1", certificate=paths[2])
    found = verify(*paths)
    assert [chain.name for chain in found.chains] == ["x -> m", "t -> y"]
    assert found.verified


def test_a_chain_behind_another_may_mix_what_that_keeps_apart(tmp_path: Path) -> None:
    """The outputs of the first are constants, one a feature; the second reads them as positions.

    The box of the second holds all of these constants, while its outputs are exact in every one.
    """
    arrays = {
        "w": np.zeros((3, 2)),
        "b": np.ones(2),
        "u": np.array([[1.0, 2.0, 4.0], [3.0, -5.0, 8.0]]),
        "p": np.array([[1.0, -1.0], [0.5, 1.0]]),
        "q": np.array([[1.0, 2.0]]),
        "r": np.array([[1.0], [-1.0], [0.25]]),
        "e": np.array([-12.5]),
        "f": np.array([[3.0]]),
    }
    tensors = [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()]
    nodes = [
        node("MatMul", "x w", "a"),
        node("Add", "a b", "g"),
        node("Relu", "g", "h"),
        node("MatMul", "h u", "m"),
        node("MatMul", "p m", "k"),
        node("Relu", "k", "l"),
        node("MatMul", "q l", "n"),
        node("Flatten", "n", "o"),
        node("Gemm", "o r e", "s"),
        node("Relu", "s", "t"),
        node("Gemm", "t f", "y"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "c.npz"
    onnx.save(model, paths[0])
    optimize_file(paths[0], paths[1], domain="-1:1", certificate=paths[2])
    found = verify(*paths)
    assert [chain.name for chain in found.chains] == ["x -> m", "m -> n", "o -> y"]
    assert found.verified


def test_what_lies_behind_a_chain_holds_what_either_model_makes_of_it() -> None:
    model = Model(behind([node("Relu", "x", "f")]), "a model")
    layout = read_chain(model, "flattened", "y").before
    count = layout.features
    front = Front(model, {"x": (np.full(SHAPE, -1.0), np.full(SHAPE, 1.0))})
    bounds = np.full(count, -5.0), np.full(count, 0.75)
    front.learn("flattened", layout, bounds, np.full(count, 0.5))
    lower, upper = front.features("flattened", layout)
    np.testing.assert_array_equal(lower, -0.5)
    np.testing.assert_array_equal(upper, 1.25)


def test_powers_of_two_in_front_round_nothing() -> None:
    """So that what is exactly 0 behind them is found to be."""
    halved = {"half": np.float32(0.5), "four": np.float32(-4.0)}
    more = [numpy_helper.from_array(np.asarray(v), k) for k, v in halved.items()]
    nodes = [node("Mul", "x half", "a"), node("Div", "a four", "y")]
    low = np.full(SHAPE, 0.1)
    lower, upper = Front(Model(built(nodes, None, more), "a model"), {"x": (low, low * 3.0)})._of(
        "y"
    )
    np.testing.assert_array_equal(lower, -low * 3.0 / 8.0)
    np.testing.assert_array_equal(upper, -low / 8.0)


def test_what_has_no_rule_bounds_nothing() -> None:
    model = built([node("Erf", "x", "y")], None)
    front = Front(Model(model, "a model"), {"x": (np.zeros(SHAPE), np.ones(SHAPE))})
    assert np.isinf(front._of("y")[0]).all()


def test_a_reshape_that_moves_samples_keeps_the_bounds_of_all_entries() -> None:
    """(N, 4) to (4, N): at one sample rows are features, at two they are not."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    shape = numpy_helper.from_array(np.array([4, -1]), "s")
    graph = helper.make_graph([node("Reshape", "x s", "y")], "g", [x], [y], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    low = np.array([[0.0, 1.0, 2.0, 3.0]])
    lower, upper = Front(Model(model, "a model"), {"x": (low, low + 1.0)})._of("y")
    assert (lower.min(), upper.max()) == (0.0, 4.0)
    assert lower.size == upper.size == 1


def test_a_scaler_of_more_axes_bounds_nothing() -> None:
    scaler = node("Scaler", "x", "y", domain="ai.onnx.ml", offset=[0.25], scale=[2.0])
    box = np.zeros(SHAPE), np.ones(SHAPE)
    lower, upper = Front(Model(built([scaler], None), "a model"), {"x": box})._of("y")
    assert (lower.min(), upper.max()) == (-np.inf, np.inf)


def test_a_scaler_that_a_function_of_the_model_shadows_bounds_nothing() -> None:
    flat = node("Flatten", "x", "i")
    scaler = node("Scaler", "i", "y", domain="ai.onnx.ml", offset=[0.25], scale=[2.0])
    model = built([flat, scaler], None)
    sets = [helper.make_opsetid("", 17)]
    body = [helper.make_node("Exp", ["a"], ["b"])]
    own = helper.make_function(
        "ai.onnx.ml", "Scaler", ["a"], ["b"], body, sets, attributes=["offset", "scale"]
    )
    model.functions.append(own)
    box = np.zeros(SHAPE), np.ones(SHAPE)
    with pytest.raises(UncheckedError, match="the shape of 'y'"):
        Front(Model(model, "a model"), {"x": box})._of("y")


def test_a_domain_without_an_end_bounds_no_chain(tmp_path: Path) -> None:
    model = Model(behind(GRAPHS["Conv"]), "a model")
    layout = read_chain(model, "flattened", "y").before
    front = Front(model, {"x": (np.full(SHAPE, -np.inf), np.ones(SHAPE))})
    with pytest.raises(UncheckedError, match="nothing bounds 'flattened'"):
        front.features("flattened", layout)


def test_a_tensor_without_entries_bounds_nothing_and_breaks_nothing() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    empty = [
        numpy_helper.from_array(np.zeros((0, 3), np.float32), "empty"),
        numpy_helper.from_array(np.zeros(0, np.int64), "none"),
    ]
    nodes = [node("Gather", "empty none", "e"), node("Concat", "x e", "y", axis=0)]
    graph = helper.make_graph(nodes, "g", [x], [y], empty)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    low = np.array([[0.0, 1.0, 2.0]])
    lower, upper = Front(Model(model, "a model"), {"x": (low, low + 1.0)})._of("y")
    np.testing.assert_array_equal(lower, low)
    np.testing.assert_array_equal(upper, low + 1.0)


def test_outputs_that_are_no_tensors_stay_what_they_are(tmp_path: Path) -> None:
    """A ZipMap behind the chain gives out a list of maps."""
    chain = behind([node("Relu", "x", "f")])
    chain.graph.node[-1].output[0] = "z"
    labels = {"classlabels_int64s": [0, 1], "domain": "ai.onnx.ml"}
    chain.graph.node.append(helper.make_node("ZipMap", ["z"], ["y"], **labels))
    value = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
    output = helper.make_value_info("y", helper.make_sequence_type_proto(value))
    chain.graph.output[0].CopyFrom(output)
    chain.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    paths = tmp_path / "old.onnx", tmp_path / "new.onnx", tmp_path / "c.npz"
    onnx.save(chain, paths[0])
    optimize_file(paths[0], paths[1], domain="-1:1", certificate=paths[2])
    assert verify(*paths).verified


def test_sizes_are_computed_where_shape_inference_does_not_follow() -> None:
    """As exporters of set 9 write a Reshape: axes of Unsqueeze are attributes there."""
    nodes = [
        node("Shape", "x", "s"),
        node("Gather", "s i", "n", axis=0),
        node("Unsqueeze", "n", "u", axes=[0]),
        node("Identity", "minus", "m"),
        node("Concat", "u m", "t", axis=0),
        node("Reshape", "x t", "y"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    integers = [
        numpy_helper.from_array(np.array(0), "i"),
        numpy_helper.from_array(np.array([-1]), "minus"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y], integers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    low = np.arange(6.0).reshape(1, 2, 3)
    found = Model(model, "a model")
    assert found.shapes("y") == ((10007, 6), (10009, 6), (1, 6))
    lower, upper = Front(found, {"x": (low, low + 1.0)})._of("y")
    np.testing.assert_array_equal(lower, low.reshape(1, 6))
    np.testing.assert_array_equal(upper, lower + 1.0)


def test_unstable_is_said_of_a_box_that_may_be_larger_behind_other_operators() -> None:
    """The input of a chain takes all values of its bounds only where these are the domain's."""
    nodes = [node("Flatten", "x", "e"), node("Tanh", "e", "t"), node("Flatten", "t", "y")]
    found = Front(Model(built(nodes, None), "a model"), {"x": (np.zeros(SHAPE), np.ones(SHAPE))})
    assert [found.takes_all(tensor) for tensor in ("x", "e", "t", "y")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("op", ["Tanh", "Sigmoid"])
def test_a_tie_at_the_value_of_zero_is_found(op: str, tmp_path: Path) -> None:
    """-t + c, where t is at least c, the value at 0: never positive, with nothing to spare."""
    first = np.float32([[-1.0], [1.0]])
    bias = np.float32([0.5 if op == "Sigmoid" else 0.0, -0.25])
    constants = {"w": first, "b": bias, "v": np.ones((1, 2), np.float32)}
    nodes = [
        node(op, "x", "t"),
        node("Gemm", "t w b", "g", transB=1),
        node("Relu", "g", "h"),
        node("Gemm", "h v", "y", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    files = [tmp_path / name for name in ("old.onnx", "new.onnx", "proof.npz")]
    onnx.save(model, files[0])
    report = optimize_file(files[0], files[1], domain="0:1", certificate=files[2])
    if op == "Tanh":
        assert report.totals.stably_inactive == 1
    assert verify(*files).exit_code == 0


OPEN = [what for what, nodes in GRAPHS.items() if "Conv" in what or "Pool" in what or "Pad" in what]


@pytest.mark.parametrize("what", OPEN)
def test_intervals_of_images_of_open_size_hold_at_every_size(what: str) -> None:
    """The sizes that are tried are not those that windows reach over."""
    model = built(GRAPHS[what], None)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], "HW", strict=True):
        dim.Clear()
        dim.dim_param = name
    low, high = np.full((1, 4, 1, 1), 0.5), np.full((1, 4, 1, 1), 1.0)
    lower, upper = Front(Model(model, "a model"), {"x": (low, high)})._of("y")
    session = session_of(model)
    for height, width in ((1, 1), (2, 3), (7, 6), (12, 5)):
        for number in range(20):
            shape = (1, 4, height, width)
            share = RNG.random(shape) if number % 2 else RNG.integers(0, 2, shape)
            try:
                y = session.run(None, {"x": (low + share * (high - low)).astype(np.float32)})[0]
            except Exception:  # a window larger than the image, or a matrix of another size
                continue
            slack = 1e-5 * (1.0 + np.abs(y))
            assert (y >= lower - slack).all()
            assert (y <= upper + slack).all()


UNUSUAL = {
    "a Resize that scales channels": node("Resize", "x _ uneven", "y", mode="nearest"),
    "windows that may miss the image": node(
        "MaxPool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2], pads=[1] * 4
    ),
    "an average of nothing": node(
        "AveragePool", "x", "y", kernel_shape=[2, 2], dilations=[2, 2], auto_pad="VALID"
    ),
    "windows further apart than they are large": node(
        "MaxPool", "x", "y", kernel_shape=[1, 1], strides=[3, 3], auto_pad="SAME_UPPER"
    ),
    "a ConvTranspose of a shape that is asked for": node(
        "ConvTranspose", "x k4", "y", strides=[4, 4], output_shape=[6, 5]
    ),
}


@pytest.mark.parametrize("what", UNUSUAL)
def test_where_runtimes_and_the_reference_differ_nothing_is_bounded(what: str) -> None:
    uneven = numpy_helper.from_array(np.array([1, 1.24, 2, 2], np.float32), "uneven")
    model = built([UNUSUAL[what]], None, [uneven])
    model.opset_import[0].version = 19
    box = np.zeros(SHAPE), np.ones(SHAPE)
    lower, upper = Front(Model(model, "a model"), {"x": box})._of("y")
    assert np.isinf(lower).all()
    assert np.isinf(upper).all()
