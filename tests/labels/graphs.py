"""Small graphs, one a feature, in each of which channels can go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]
SIDE = 8


class Net:
    """Nodes and constants, collected one after another.

    Args:
        seed: of all weights.
        dtype: of these.
    """

    def __init__(self, seed: int = 0, dtype: Any = np.float32) -> None:
        self.rng, self.dtype = np.random.default_rng(seed), dtype
        self.nodes: list[NodeProto] = []
        self.tensors: dict[str, Array] = {}

    def constant(self, values: Any, name: str | None = None) -> str:
        """A new initializer."""
        name = name or f"c{len(self.tensors)}"
        values = np.asarray(values)
        self.tensors[name] = values.astype(self.dtype) if values.dtype.kind == "f" else values
        return name

    def add(self, op: str, inputs: Sequence[str], *, outputs: int = 1, **options: Any) -> Any:
        """A node; the name of what it puts out, or these names."""
        names = [f"t{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **options))
        return names[0] if outputs == 1 else names

    def conv(
        self, x: str, before: int, after: int, *, dead: Sequence[int] = (), **more: Any
    ) -> str:
        """A padded 3 by 3 convolution and ReLU whose channels `dead` are never on."""
        group, size = more.get("group", 1), more.get("kernel", 3)
        weight = self.rng.normal(size=(after, before // group, size, size))
        bias = self.rng.normal(size=after)
        bias[list(dead)] = -3e4
        options = {"pads": [size // 2] * 4} | {k: v for k, v in more.items() if k != "kernel"}
        made = self.add("Conv", [x, self.constant(weight), self.constant(bias)], **options)
        return str(self.add("Relu", [made]))

    def head(self, x: str, features: int, units: int = 3) -> str:
        """Flatten and Gemm."""
        flat = self.add("Flatten", [x])
        weight = self.constant(self.rng.normal(size=(features, units)))
        return str(self.add("Gemm", [flat, weight, self.constant(self.rng.normal(size=units))]))

    def model(
        self,
        output: str,
        shape: Sequence[Any] = ("N", 2, SIDE, SIDE),
        *,
        opset: int = 17,
        more: Sequence[str] = (),
    ) -> ModelProto:
        """From "x" to some tensors."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        x = helper.make_tensor_value_info("x", kind, list(shape))
        outputs = [helper.make_empty_tensor_value_info(n) for n in (output, *more)]
        tensors = [numpy_helper.from_array(v, k) for k, v in self.tensors.items()]
        graph = helper.make_graph(self.nodes, "g", [x], outputs, tensors)
        sets = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=sets, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        for place, value in enumerate(inferred.graph.output):
            model.graph.output[place].CopyFrom(value)
        onnx.checker.check_model(model)
        return model


def plain(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    return net.model(net.head(net.conv(x, 6, 4, dead=[0]), 4 * SIDE * SIDE))


def two_readers(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    a, b = net.conv(x, 6, 4, dead=[2]), net.conv(x, 6, 4, dead=[2])
    return net.model(net.head(net.add("Concat", [a, b], axis=1), 8 * SIDE * SIDE))


def dilated(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[0], dilations=[2, 2], pads=[2, 2, 2, 2])
    return net.model(net.conv(x, 6, 3, strides=[2, 2]))


def auto_pad(net: Net) -> ModelProto:
    weight, bias = net.rng.normal(size=(5, 2, 3, 3)), np.array([0.0, -3e4, 0, 0, -3e4])
    inputs = ["x", net.constant(weight), net.constant(bias)]
    x = net.add("Relu", [net.add("Conv", inputs, auto_pad="SAME_UPPER")])
    return net.model(net.conv(x, 5, 3))


def without_bias(net: Net) -> ModelProto:
    weight = net.rng.normal(size=(5, 2, 3, 3))
    weight[[1, 3]] = 0.0
    x = net.add("Relu", [net.add("Conv", ["x", net.constant(weight)])])
    return net.model(net.conv(x, 5, 3))


def unread(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6)
    weight = net.rng.normal(size=(3, 6, 1, 1))
    weight[:, [0, 5]] = 0.0
    return net.model(net.add("Conv", [x, net.constant(weight)]))


def depthwise(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    weight, bias = net.rng.normal(size=(6, 1, 3, 3)), np.zeros(6)
    made = net.add("Conv", [x, net.constant(weight), net.constant(bias)], group=6, pads=[1] * 4)
    return net.model(net.conv(net.add("Relu", [made]), 6, 3))


def grouped(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    return net.model(net.conv(net.conv(x, 6, 6, group=2), 6, 3, dead=[0]))


def grouped_and_pruned(net: Net) -> ModelProto:
    """Three groups of two and four channels: nobody reads what the second one makes."""
    x = net.conv("x", 2, 6)
    y = net.conv(x, 6, 12, group=3)
    weight = net.rng.normal(size=(3, 12, 1, 1))
    weight[:, 4:8] = 0.0
    return net.model(net.add("Conv", [y, net.constant(weight)]))


def multiplied(net: Net) -> ModelProto:
    """Two filters for each channel."""
    x = net.conv("x", 2, 4)
    y = net.conv(x, 4, 8, group=4)
    weight = net.rng.normal(size=(3, 8, 1, 1))
    weight[:, [0, 1, 5]] = 0.0
    return net.model(net.add("Conv", [y, net.constant(weight)]))


def transposed(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    weight, bias = net.rng.normal(size=(6, 4, 2, 2)), np.array([0, -3e4, 0, 0])
    inputs = [x, net.constant(weight), net.constant(bias)]
    x = net.add("Relu", [net.add("ConvTranspose", inputs, strides=[2, 2])])
    return net.model(net.conv(x, 4, 3))


def normalised(net: Net) -> ModelProto:
    weight = net.constant(net.rng.normal(size=(6, 2, 3, 3)))
    x = net.add("Conv", ["x", weight], pads=[1] * 4)
    scale, bias = net.rng.normal(size=6), np.array([-3e4, 0, 0, -3e4, 0, 0])
    numbers = [scale, bias, net.rng.normal(size=6), net.rng.uniform(0.5, 2, size=6)]
    x = net.add("BatchNormalization", [x, *map(net.constant, numbers)])
    return net.model(net.conv(net.add("Relu", [x]), 6, 3))


def residual(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.conv(net.conv(x, 6, 5, dead=[2]), 5, 6, dead=[1, 3])
    return net.model(net.conv(net.add("Add", [x, y]), 6, 3))


def stream_of_its_own(net: Net) -> ModelProto:
    """Channels that only the blocks of a residual stream read."""
    x = net.conv("x", 2, 6)
    weight = net.rng.normal(size=(6, 6, 1, 1))
    weight[:4, 4:] = 0.0
    y = net.add("Add", [x, net.add("Conv", [x, net.constant(weight)])])
    last = net.rng.normal(size=(3, 6, 1, 1))
    last[:, 4:] = 0.0
    return net.model(net.add("Conv", [y, net.constant(last)]))


def dense_connections(net: Net) -> ModelProto:
    x = net.conv("x", 2, 4, dead=[1])
    y = net.add("Concat", [x, net.conv(x, 4, 3, dead=[0])], axis=1)
    z = net.add("Concat", [y, net.conv(y, 7, 3, dead=[2])], axis=1)
    return net.model(net.conv(z, 10, 3))


def shuffled(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    a = net.add("Reshape", [x, net.constant(np.array([-1, 2, 3, SIDE, SIDE]))])
    b = net.add("Transpose", [a], perm=[0, 2, 1, 3, 4])
    c = net.add("Reshape", [b, net.constant(np.array([-1, 6, SIDE, SIDE]))])
    return net.model(net.conv(c, 6, 3))


def split_in_two(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    a, b = net.add("Split", [x], outputs=2, axis=1)
    return net.model(net.conv(net.add("Concat", [b, a], axis=1), 6, 3))


def split_by_sizes(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 5])
    sizes = net.constant(np.array([1, 3, 2]))
    parts = net.add("Split", [x, sizes], outputs=3, axis=1)
    return net.model(net.conv(net.add("Concat", parts, axis=1), 6, 3))


def split_and_added(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[0, 3, 4])
    a, b = net.add("Split", [x], outputs=2, axis=1)
    return net.model(net.conv(net.add("Add", [a, b]), 3, 3))


def sliced(net: Net) -> ModelProto:
    x = net.conv("x", 2, 8, dead=[1, 4, 6])
    ends = [net.constant(np.array([v])) for v in (2, -1, 1)]
    return net.model(net.conv(net.add("Slice", [x, *ends]), 5, 3))


def gathered(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    at = net.constant(np.array([5, 0, 4, 2, 1]))
    return net.model(net.conv(net.add("Gather", [x, at], axis=1), 5, 3))


def padded(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    pads = net.constant(np.array([0, 0, 1, 2, 0, 0, 1, 0]))
    return net.model(net.conv(net.add("Pad", [x, pads]), 6, 3))


def padded_with_one(net: Net) -> ModelProto:
    """A channel that is 0 inside and 1 at the border is read all the same."""
    x = net.conv("x", 2, 6, dead=[1, 4])
    pads = net.constant(np.array([0, 0, 1, 2, 0, 0, 1, 0]))
    y = net.add("Pad", [x, pads, net.constant(np.float32(1.0))])
    return net.model(net.conv(net.conv(y, 6, 4, dead=[0]), 4, 3))


def pooled(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.add("MaxPool", [x], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    z = net.add("AveragePool", [y], kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1)
    return net.model(net.conv(z, 6, 3))


def global_pool(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    return net.model(net.head(net.add("GlobalAveragePool", [x]), 6))


def mean_over_space(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.add("ReduceMean", [x], axes=[2, 3], keepdims=0)
    return net.model(net.add("MatMul", [y, net.constant(net.rng.normal(size=(6, 3)))]))


def squeeze_and_excite(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    gate = net.add("GlobalAveragePool", [x])
    gate = net.add("Sigmoid", [net.conv(net.conv(gate, 6, 3, dead=[1], kernel=1), 3, 6, kernel=1)])
    return net.model(net.conv(net.add("Mul", [x, gate]), 6, 3))


def upsampled(net: Net) -> ModelProto:
    """U-shaped: down, up, and beside what was there before."""
    x = net.conv("x", 2, 4, dead=[2])
    y = net.conv(net.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2]), 4, 6, dead=[0, 5])
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    y = net.add("Resize", [y, "", scales], mode="nearest")
    return net.model(net.conv(net.add("Concat", [x, y], axis=1), 10, 3))


def scaled_per_channel(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.add("Mul", [x, net.constant(net.rng.normal(size=(1, 6, 1, 1)))])
    z = net.add("PRelu", [y, net.constant(net.rng.normal(size=(6, 1, 1)))])
    return net.model(net.conv(z, 6, 3))


def shifted_per_position(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6)
    y = net.add("Add", [x, net.constant(net.rng.normal(size=(6, SIDE, SIDE)))])
    weight = net.rng.normal(size=(3, 6, 1, 1))
    weight[:, [0, 5]] = 0.0
    return net.model(net.add("Conv", [y, net.constant(weight)]))


def shared_weights(net: Net) -> ModelProto:
    """One kernel for two convolutions that lose other channels."""
    weight, bias = net.constant(net.rng.normal(size=(4, 4, 1, 1))), net.constant(np.zeros(4))
    x = net.conv("x", 2, 4, dead=[1])
    y = net.add("Relu", [net.add("Conv", [x, weight, bias])])
    z = net.add("Relu", [net.add("Conv", [y, weight, bias])])
    last = net.rng.normal(size=(3, 4, 1, 1))
    last[:, 2] = 0.0
    return net.model(net.add("Conv", [z, net.constant(last)]))


def dynamic_size(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    return net.model(net.conv(net.conv(x, 6, 4, dead=[0]), 4, 3), ("N", 2, "H", "W"))


def dynamic_size_and_global_pool(net: Net) -> ModelProto:
    x = net.conv(net.conv("x", 2, 6, dead=[1, 4]), 6, 4, dead=[0])
    return net.model(net.head(net.add("GlobalMaxPool", [x]), 4), ("N", 2, "H", "W"))


def fixed_batch(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.add("Reshape", [x, net.constant(np.array([3, 6 * SIDE * SIDE]))])
    weight = net.constant(net.rng.normal(size=(6 * SIDE * SIDE, 3)))
    return net.model(net.add("MatMul", [y, weight]), (3, 2, SIDE, SIDE))


def reshaped(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.add("Reshape", [x, net.constant(np.array([0, -1]))])
    weight = net.constant(net.rng.normal(size=(3, 6 * SIDE * SIDE)))
    return net.model(net.add("Gemm", [y, weight], transB=1))


def reshaped_by_sizes(net: Net) -> ModelProto:
    """A Reshape whose target is computed of the input's shape."""
    x = net.conv(net.conv("x", 2, 6, dead=[1, 4]), 6, 4, dead=[3])
    first = net.add("Gather", [net.add("Shape", [x]), net.constant(np.array([0]))])
    target = net.add("Concat", [first, net.constant(np.array([-1]))], axis=0)
    y = net.add("Reshape", [x, target])
    weight = net.constant(net.rng.normal(size=(4 * SIDE * SIDE, 3)))
    return net.model(net.add("MatMul", [y, weight]))


def one_position(net: Net) -> ModelProto:
    """Sizes of the channel axis are read: nothing in front of that goes."""
    x = net.conv(net.conv("x", 2, 6, dead=[1]), 6, 4, dead=[3])
    return net.model(net.add("Cast", [net.add("Shape", [x])], to=TensorProto.FLOAT))


def branches(net: Net) -> ModelProto:
    """An If reads a tensor of the graph around it."""
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.conv(x, 6, 4, dead=[0])
    bodies = [
        helper.make_graph(
            [helper.make_node(op, [y], [f"b{op}"])],
            op,
            [],
            [helper.make_tensor_value_info(f"b{op}", TensorProto.FLOAT, None)],
        )
        for op in ("Neg", "Abs")
    ]
    total = net.add("ReduceMean", ["x"], keepdims=0)
    says = net.add("Greater", [total, net.constant(np.float32(0.5))])
    z = net.add("If", [says], then_branch=bodies[0], else_branch=bodies[1])
    return net.model(net.add("Relu", [z]))


def recurrent(net: Net) -> ModelProto:
    """An LSTM in front of the convolutions."""
    sizes = {"W": (1, 16, 2), "R": (1, 16, 4)}
    weights = [net.constant(net.rng.normal(size=size)) for size in sizes.values()]
    y = net.add("LSTM", ["x", *weights], hidden_size=4)
    z = net.add("Transpose", [net.add("Squeeze", [y, net.constant(np.array([1]))])], perm=[1, 2, 0])
    weight, bias = net.rng.normal(size=(6, 4, 3)), np.array([0, -3e4, 0, 0, -3e4, 0])
    a = net.add("Relu", [net.add("Conv", [z, net.constant(weight), net.constant(bias)])])
    last = net.constant(net.rng.normal(size=(3, 6, 1)))
    return net.model(net.add("Conv", [a, last]), (7, "N", 2))


def given_out(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=[1, 4])
    y = net.conv(x, 6, 4, dead=[0])
    return net.model(net.conv(y, 4, 3), more=[x])


def all_dead(net: Net) -> ModelProto:
    x = net.conv("x", 2, 6, dead=range(6))
    y = net.conv("x", 2, 3, dead=[0])
    return net.model(net.conv(net.add("Concat", [x, y], axis=1), 9, 3))


def one_dimension(net: Net) -> ModelProto:
    weight, bias = net.rng.normal(size=(6, 2, 3)), np.array([0, -3e4, 0, 0, -3e4, 0])
    x = net.add("Relu", [net.add("Conv", ["x", net.constant(weight), net.constant(bias)])])
    last = net.constant(net.rng.normal(size=(3, 6, 1)))
    return net.model(net.add("Conv", [x, last]), ("N", 2, SIDE))


def quantised(net: Net) -> ModelProto:
    """QDQ: weights by channel, activations by tensor."""
    weight = net.rng.integers(-127, 128, size=(6, 2, 3, 3)).astype(np.int8)
    scales = net.constant(net.rng.uniform(0.005, 0.01, size=6))
    zeros = net.constant(np.zeros(6, np.int8))
    real = net.add("DequantizeLinear", [net.constant(weight), scales, zeros], axis=0)
    bias = net.constant(net.rng.normal(size=6))
    step, zero = net.constant(np.array(0.02)), net.constant(np.array(0, np.uint8))
    x = net.add("Relu", [net.add("Conv", ["x", real, bias], pads=[1] * 4)])
    y = net.add("DequantizeLinear", [net.add("QuantizeLinear", [x, step, zero]), step, zero])
    last = net.rng.normal(size=(3, 6, 1, 1))
    last[:, [1, 4]] = 0.0
    return net.model(net.add("Conv", [y, net.constant(last)]))


def quantised_and_dead(net: Net) -> ModelProto:
    """QDQ where weights and biases are quantised, and channels never on."""
    weight = net.rng.integers(-127, 128, size=(6, 2, 3, 3)).astype(np.int8)
    bias = np.where(np.isin(np.arange(6), [1, 4]), -(10**6), 10).astype(np.int32)
    scales = net.constant(net.rng.uniform(0.005, 0.01, size=6))
    real = net.add("DequantizeLinear", [net.constant(weight), scales], axis=0)
    offset = net.add("DequantizeLinear", [net.constant(bias), net.constant(np.array(0.001))])
    step, zero = net.constant(np.array(0.02)), net.constant(np.array(0, np.uint8))
    x = net.add("Relu", [net.add("Conv", ["x", real, offset], pads=[1] * 4)])
    y = net.add("DequantizeLinear", [net.add("QuantizeLinear", [x, step, zero]), step, zero])
    last = net.constant(net.rng.integers(-127, 128, size=(3, 6, 1, 1)).astype(np.int8))
    return net.model(
        net.add("Conv", [y, net.add("DequantizeLinear", [last, net.constant(np.array(0.02))])])
    )


def flattened(
    net: Net, shape: Sequence[Any] = ("N", 2, SIDE, SIDE), features: int = -1
) -> ModelProto:
    """As `x.view(x.size(0), -1)` is exported."""
    x = net.conv("x", 2, 6, dead=[1, 4])
    batch = net.add("Gather", [net.add("Shape", [x]), net.constant(np.array(0))])
    axes = net.constant(np.array([0]))
    sizes = [net.add("Unsqueeze", [batch, axes]), net.constant(np.array([features]))]
    flat = net.add("Reshape", [x, net.add("Concat", sizes, axis=0)])
    weight = net.constant(net.rng.normal(size=(6 * SIDE * SIDE, 3)))
    return net.model(net.add("MatMul", [flat, weight]), shape)


def flattened_of_one(net: Net) -> ModelProto:
    return flattened(net, (1, 2, SIDE, SIDE))


def flattened_to_a_number(net: Net) -> ModelProto:
    return flattened(net, features=6 * SIDE * SIDE)


def half(net: Net) -> ModelProto:
    return plain(net)


def old_set(net: Net) -> ModelProto:
    """Operators of set 9: sizes of a Split and bounds of a Clip are attributes."""
    x = net.conv("x", 2, 6, dead=[1, 5])
    x = net.add("Clip", [x], min=0.0, max=50.0)
    parts = net.add("Split", [x], outputs=2, axis=1, split=[4, 2])
    return net.model(net.conv(net.add("Concat", parts, axis=1), 6, 3), opset=9)


# By feature, how many of the channels of convolutions go without alignment.
GRAPHS: dict[str, tuple[Callable[[Net], ModelProto], int]] = {
    "plain": (plain, 3),
    "two readers": (two_readers, 4),
    "dilation and stride": (dilated, 1),
    "auto_pad": (auto_pad, 2),
    "no bias": (without_bias, 2),
    "channels that nobody reads": (unread, 2),
    "depthwise": (depthwise, 4),
    "grouped": (grouped, 0),
    "groups that nobody reads": (grouped_and_pruned, 6),
    "filters that nobody reads": (multiplied, 3),
    "ConvTranspose": (transposed, 3),
    "BatchNormalization": (normalised, 2),
    "residual": (residual, 3),
    "a stream that only its own blocks read": (stream_of_its_own, 4),
    "dense connections": (dense_connections, 3),
    "channel shuffle": (shuffled, 2),
    "Split": (split_in_two, 2),
    "Split by sizes": (split_by_sizes, 2),
    "Split and Add": (split_and_added, 2),
    "Slice": (sliced, 5),
    "Gather": (gathered, 3),
    "Pad": (padded, 2),
    "Pad with 1": (padded_with_one, 1),
    "pooling, ceil_mode": (pooled, 2),
    "global pooling": (global_pool, 2),
    "mean over space": (mean_over_space, 2),
    "squeeze and excite": (squeeze_and_excite, 5),
    "U-shaped": (upsampled, 3),
    "scaled by channel": (scaled_per_channel, 2),
    "shifted by position": (shifted_per_position, 2),
    "shared weights": (shared_weights, 4),
    "dynamic height and width": (dynamic_size, 3),
    "the same with global pooling": (dynamic_size_and_global_pool, 3),
    "a fixed batch": (fixed_batch, 2),
    "Reshape": (reshaped, 2),
    "Reshape by computed sizes": (reshaped_by_sizes, 3),
    "Shape": (one_position, 1),
    "If": (branches, 2),
    "LSTM in front": (recurrent, 2),
    "given out": (given_out, 1),
    "all channels dead": (all_dead, 6),
    "one dimension": (one_dimension, 3),
    "QDQ": (quantised, 2),
    "QDQ of all": (quantised_and_dead, 2),
    "flattened": (flattened, 2),
    "flattened, a fixed batch": (flattened_of_one, 2),
    "flattened to a number": (flattened_to_a_number, 0),
    "float16": (half, 3),
    "set 9": (old_set, 2),
}


def built(what: str) -> ModelProto:
    """One of the graphs."""
    return GRAPHS[what][0](Net(dtype=np.float16 if what == "float16" else np.float32))
