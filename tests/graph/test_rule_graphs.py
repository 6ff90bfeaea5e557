"""Random graphs of operators with rules: every tensor's value in onnxruntime is in its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from onnx_exact.graph import Ranges
from onnx_exact.network import Box
from tests.graph.build import Builder, run
from tests.graph.rules.points import points
from tests.versions import needs_new_onnx

CHANNELS, SIZE = 2, 3
SHAPE = (CHANNELS, SIZE)
TYPES = {
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float64): TensorProto.DOUBLE,
}
# Values of constants, weights and box ends: ordinary ones, and the edges.
NUMBERS = [0.0, 1.0, -1.0, 0.5, -2.0, 0.1, 1.0 / 3.0, -7.7, 1e-3, 100.0, 1e-30, 1e-44, 3e4, -1e20]


def scalars(data: st.DataObject, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    count = int(np.prod(shape))
    known = [n for n in NUMBERS if abs(n) <= float(np.finfo(dtype).max)]
    drawn = data.draw(st.lists(st.sampled_from(known), min_size=count, max_size=count))
    return np.array(drawn).reshape(shape).astype(dtype)


UNARY = ["Abs", "Cos", "Elu", "Exp", "HardSigmoid", "Identity", "LeakyRelu", "Neg", "Relu"]
UNARY += ["Sigmoid", "Sin", "Softmax", "Sqrt", "Tanh"]
BINARY = ["Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"]
# onnxruntime does not do these in every type.
SINGLE_ONLY = ("AveragePool", "Conv", "Elu", "LeakyRelu", "HardSigmoid", "Quantized")
OTHERS = ["AveragePool", "BatchNormalization", "Cast", "Clip", "Conv", "MatMul", "MaxPool", "Moved"]
OTHERS += ["Gemm", "Pad", "Quantized", "ReduceMean", "ReduceSum", "Where"]


def node(b: Builder, data: st.DataObject, tensors: list[str]) -> str:
    """One more operator on tensors of shape [batch, CHANNELS, SIZE], which it keeps."""
    known = UNARY + BINARY + OTHERS
    op = data.draw(
        st.sampled_from([o for o in known if o not in SINGLE_ONLY or b.dtype == np.float32])
    )
    x = data.draw(st.sampled_from(tensors))

    def constant(*shape: int) -> str:
        return b.constant(scalars(data, shape, b.dtype))

    if op in UNARY:
        return b.node(op, x)
    if op in BINARY:
        other = data.draw(st.sampled_from(tensors)) if data.draw(st.booleans()) else constant(SIZE)
        pair = [x, other] if data.draw(st.booleans()) else [other, x]
        return b.node(op, *pair) if x in pair else x
    match op:
        case "AveragePool" | "MaxPool":
            dilation = data.draw(st.sampled_from([1, 2])) if op == "MaxPool" else 1
            pads = {1: [1, 1], 2: [2, 2]}[dilation]
            return b.node(
                op, x, kernel_shape=[3], pads=pads, **({"dilations": [2]} if dilation == 2 else {})
            )
        case "BatchNormalization":
            variance = b.constant(np.abs(scalars(data, (CHANNELS,), b.dtype)))
            return b.node(op, x, *[constant(CHANNELS) for _ in range(3)], variance)
        case "Cast":
            to = data.draw(st.sampled_from([TensorProto.FLOAT16, TensorProto.BFLOAT16]))
            return b.node(op, b.node(op, x, to=to), to=TYPES[b.dtype])
        case "Clip":
            return b.node(op, x, constant(), constant())
        case "Conv":
            return b.node(op, x, constant(CHANNELS, CHANNELS, 3), constant(CHANNELS), pads=[1, 1])
        case "Gemm":
            flat = b.node("Reshape", x, b.ints(-1, SIZE))
            factors = {"alpha": data.draw(st.sampled_from([1.0, -0.3])), "beta": 0.7}
            made = b.node(op, flat, constant(SIZE, SIZE), constant(SIZE), **factors)
            return b.node("Reshape", made, b.ints(-1, *SHAPE))
        case "Pad":
            wide = b.node(op, x, b.ints(0, 0, 1, 0, 0, 1), constant())
            return b.node("Slice", wide, b.ints(0), b.ints(SIZE), b.ints(2))
        case "Quantized":
            scale = b.constant(np.float32(data.draw(st.sampled_from([0.1, 1.0, 3e-3]))))
            zero = b.constant(np.uint8(data.draw(st.sampled_from([0, 3, 255]))))
            return b.node("DequantizeLinear", b.node("QuantizeLinear", x, scale, zero), scale, zero)
        case "ReduceMean":
            return b.node("Add", b.node(op, x, axes=[1, 2]), constant(*SHAPE))
        case "ReduceSum":
            return b.node("Mul", b.node(op, x, b.ints(2)), constant(SIZE))
        case "Where":
            flags = b.constant(np.array([True, False, True]))
            return b.node(op, flags, x, data.draw(st.sampled_from(tensors)))
        case "MatMul":
            return b.node(op, x, constant(SIZE, SIZE))
    turned = b.node("Transpose", b.node("Concat", x, x, axis=2), perm=[0, 2, 1])
    flat = b.node("Reshape", turned, b.ints(0, 2, -1))
    return b.node("Slice", flat, b.ints(1), b.ints(1 + SIZE), b.ints(2))


@needs_new_onnx
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_value_in_a_random_graph_is_in_its_interval(data: st.DataObject) -> None:
    dtype = data.draw(st.sampled_from(list(TYPES)))
    b = Builder(opset=17, dtype=dtype)
    tensors = ["x"]
    for _ in range(data.draw(st.integers(1, 6))):
        tensors.append(node(b, data, tensors))
    made = [output for n in b.nodes for output in n.output]
    if not made:
        return
    model = b.model([tensors[-1]] if tensors[-1] != "x" else [made[-1]], {"x": ["n", *SHAPE]})
    ends = np.sort(np.stack([scalars(data, SHAPE, dtype) for _ in "lu"]), axis=0)
    ends = ends.astype(np.float64)
    box = Box(ends[0][None], ends[1][None])
    fed = points(Box(ends[0], ends[1]), dtype, np.random.default_rng(0))
    ranges = Ranges(model, {"x": box})
    shown = [t for t in dict.fromkeys(made) if t not in _opaque(b)]
    for name, value in zip(shown, run(model, {"x": fed}, shown), strict=True):
        limit = ranges.of(name)
        number = np.asarray(value, np.float64)
        defined = ~np.isnan(number)
        assert ((limit.lower <= number) | ~defined).all(), name
        assert ((number <= limit.upper) | ~defined).all(), name


def _opaque(b: Builder) -> set[str]:
    """Tensors that onnxruntime gives no arrays of."""
    return {n.output[0] for n in b.nodes if any(a.i == TensorProto.BFLOAT16 for a in n.attribute)}
