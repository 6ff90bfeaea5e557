"""Random convolutional graphs, in which channels are dead or not read, for `benchmarks.fuzz`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from benchmarks.fuzzing.tensors import Array, Graph, Tensor

# Sides of images at the start, and channels of a convolution at most.
SIDES = (5, 6, 8)
MOST_CHANNELS = 9
STEPS = (4, 14)


@dataclass(frozen=True)
class Image:
    """A tensor of the shape (batch, channels, height, width)."""

    name: str
    channels: int
    height: int
    width: int


class _Grower:
    """Grows a graph from one image."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 9])
        kind = np.dtype(np.float64 if rng.random() < 0.1 else np.float32)
        self.graph, self.rng = Graph(rng, int(rng.choice([13, 17, 18])), kind), rng
        self.images: list[Image] = []

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, items: Any) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def constant(self, values: Array) -> str:
        name = self.graph.name("w")
        values = np.asarray(values)
        values = values.astype(self.graph.dtype) if values.dtype.kind == "f" else values
        self.graph.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, inputs: list[str], *, outputs: int = 1, **options: Any) -> Any:
        names = [self.graph.name(op.lower()) for _ in range(outputs)]
        named = {"name": self.graph.name("n")} if self.chance(0.7) else {}
        self.graph.nodes.append(helper.make_node(op, inputs, names, **named, **options))
        return names[0] if outputs == 1 else names

    def keep(self, name: str, channels: int, height: int, width: int) -> None:
        """Takes a new image in, if it has any pixels."""
        if height > 0 and width > 0:
            self.images.append(Image(name, channels, height, width))

    def kernel(self, *shape: int) -> Array:
        """Weights, some rows and columns of which are 0."""
        weight = self.rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        for axis in (0, 1):
            if self.chance(0.4):
                gone = self.rng.random(shape[axis]) < 0.4
                weight[(slice(None),) * axis + (gone,)] = 0.0
        return np.asarray(weight)

    def bias(self, count: int) -> Array:
        """Numbers, some of which are never overcome."""
        found = self.rng.normal(size=count)
        if self.chance(0.7):
            found[self.rng.random(count) < 0.4] = -1e4
        return np.asarray(found)

    # -- steps --

    def conv(self, x: Image) -> None:
        size, stride, dilation = self.pick([1, 3, 3]), self.pick([1, 1, 2]), self.pick([1, 1, 2])
        group = self.pick([1, 1, 1, x.channels, 2 if x.channels % 2 == 0 else 1])
        count = int(self.rng.integers(1, MOST_CHANNELS)) if group == 1 else x.channels
        pads = [int(v) for v in self.rng.integers(0, 2, 4)] if self.chance(0.8) else [0] * 4
        inputs = [x.name, self.constant(self.kernel(count, x.channels // group, size, size))]
        if self.chance(0.8):
            inputs.append(self.constant(self.bias(count)))
        options: dict[str, Any] = {
            "strides": [stride] * 2,
            "dilations": [dilation] * 2,
            "pads": pads,
        }
        if self.chance(0.15):
            options = {"auto_pad": self.pick(["SAME_UPPER", "SAME_LOWER", "VALID"])}
            options["strides"] = [stride] * 2
            pads, dilation = [0] * 4, 1
        reach = dilation * (size - 1) + 1
        height, width = (
            (n + pads[i] + pads[i + 2] - reach) // stride + 1
            for i, n in enumerate((x.height, x.width))
        )
        if str(options.get("auto_pad", "")).startswith("SAME"):
            height, width = -(-x.height // stride), -(-x.width // stride)
        if height > 0 and width > 0:
            made = self.node("Conv", inputs, group=group, **options)
            made = self.node("Relu", [made]) if self.chance(0.8) else made
            self.keep(made, count, height, width)

    def transposed(self, x: Image) -> None:
        count, size, stride = int(self.rng.integers(1, 6)), self.pick([1, 2, 3]), self.pick([1, 2])
        inputs = [x.name, self.constant(self.kernel(x.channels, count, size, size))]
        inputs += [self.constant(self.bias(count))] if self.chance(0.8) else []
        height, width = ((n - 1) * stride + size for n in (x.height, x.width))
        if height <= 20:
            made = self.node("ConvTranspose", inputs, strides=[stride] * 2)
            self.keep(self.node("Relu", [made]), count, height, width)

    def normalised(self, x: Image) -> None:
        numbers = [self.rng.normal(size=x.channels), self.bias(x.channels)]
        numbers += [self.rng.normal(size=x.channels), self.rng.uniform(0.5, 2, x.channels)]
        made = self.node("BatchNormalization", [x.name, *map(self.constant, numbers)])
        self.keep(self.node("Relu", [made]), x.channels, x.height, x.width)

    def function(self, x: Image) -> None:
        op = self.pick(["Relu", "Sigmoid", "Tanh", "Neg", "Abs", "Elu", "LeakyRelu", "Identity"])
        self.keep(self.node(op, [x.name]), x.channels, x.height, x.width)

    def beside(self, x: Image) -> None:
        """A constant beside the tensor: one number, one a channel, one an entry."""
        full = (x.channels, x.height, x.width)
        shape = self.pick([(), (x.channels, 1, 1), (1, x.channels, 1, 1), full, (x.width,)])
        op = self.pick(["Add", "Mul", "Sub", "Max", "Min", "PRelu"])
        values = self.constant(self.rng.normal(size=shape))
        inputs = [values, x.name] if op != "PRelu" and self.chance(0.3) else [x.name, values]
        self.keep(self.node(op, inputs), *full)

    def pooled(self, x: Image) -> None:
        size, stride, ceil = self.pick([2, 3]), self.pick([1, 2]), self.pick([0, 1])
        if min(x.height, x.width) < size:
            return
        op = self.pick(["MaxPool", "AveragePool"])
        sides = [size] * 2, [stride] * 2
        made = self.node(op, [x.name], kernel_shape=sides[0], strides=sides[1], ceil_mode=ceil)
        height, width = (
            (-(-(n - size) // stride) if ceil else (n - size) // stride) + 1
            for n in (x.height, x.width)
        )
        self.keep(made, x.channels, height, width)

    def together(self, x: Image) -> None:
        """Two tensors of the same shape, or of which one has one entry a channel."""
        op = self.pick(["Add", "Mul", "Max", "Sub", "Min"])
        same = [
            y
            for y in self.images
            if (y.channels, y.height, y.width) == (x.channels, x.height, x.width)
        ]
        gate = self.node("GlobalAveragePool", [x.name])
        other = self.pick(same).name if self.chance(0.6) else self.node("Sigmoid", [gate])
        self.keep(self.node(op, [x.name, other]), x.channels, x.height, x.width)

    def concatenated(self, x: Image) -> None:
        same = [y for y in self.images if (y.height, y.width) == (x.height, x.width)]
        parts = [x, *(self.pick(same) for _ in range(self.pick([1, 2])))]
        total = sum(y.channels for y in parts)
        if total <= 24:
            made = self.node("Concat", [y.name for y in parts], axis=self.pick([1, -3]))
            self.keep(made, total, x.height, x.width)

    def parted(self, x: Image) -> None:
        if x.channels < 2:
            return
        first = int(self.rng.integers(1, x.channels))
        sizes = [first, x.channels - first]
        inputs = [x.name, self.constant(np.array(sizes))]
        if x.channels % 2 == 0 and self.chance(0.4) and self.graph.opset < 18:
            sizes, inputs = [x.channels // 2] * 2, inputs[:1]
        names = self.node("Split", inputs, outputs=2, axis=1)
        for name, size in zip(names, sizes, strict=True):
            self.keep(name, size, x.height, x.width)

    def sliced(self, x: Image) -> None:
        axis = self.pick([1, 1, 2, 3])
        size = (x.channels, x.height, x.width)[axis - 1]
        start = int(self.rng.integers(0, size))
        stop, step = int(self.rng.integers(start + 1, size + 1)), self.pick([1, 1, 2])
        values = [start, stop - size if stop < size and self.chance(0.3) else stop, axis, step]
        inputs = [self.constant(np.array([v])) for v in values]
        count = len(range(start, stop, step))
        shape = [x.channels, x.height, x.width]
        shape[axis - 1] = count
        self.keep(self.node("Slice", [x.name, *inputs]), *shape)

    def gathered(self, x: Image) -> None:
        count = int(self.rng.integers(1, x.channels + 2))
        at = self.rng.integers(-x.channels, x.channels, count)
        made = self.node("Gather", [x.name, self.constant(at)], axis=1)
        self.keep(made, count, x.height, x.width)

    def padded(self, x: Image) -> None:
        pads = np.array([0, 0, *self.rng.integers(0, 2, 2), 0, 0, *self.rng.integers(0, 2, 2)])
        if self.chance(0.1):
            pads[1] = 1
        inputs = [x.name, self.constant(pads)]
        if self.chance(0.4):
            inputs.append(self.constant(np.asarray(self.rng.normal())))
        sides = x.height + int(pads[2] + pads[6]), x.width + int(pads[3] + pads[7])
        self.keep(self.node("Pad", inputs), x.channels + int(pads[1]), *sides)

    def resized(self, x: Image) -> None:
        if x.height <= 8:
            scales = self.constant(np.array([1, 1, 2, 2], np.float32))
            self.graph.initializers[-1].CopyFrom(
                numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), scales)
            )
            made = self.node("Resize", [x.name, "", scales], mode=self.pick(["nearest", "linear"]))
            self.keep(made, x.channels, 2 * x.height, 2 * x.width)

    def shuffled(self, x: Image) -> None:
        groups = [g for g in range(2, x.channels) if x.channels % g == 0]
        if not groups:
            return
        g, sides = self.pick(groups), (x.height, x.width)
        target = self.constant(np.array([self.pick([-1, 0]), g, x.channels // g, *sides]))
        a = self.node("Reshape", [x.name, target])
        b = self.node("Transpose", [a], perm=[0, 2, 1, 3, 4])
        back = self.constant(np.array([0, x.channels, *sides]))
        self.keep(self.node("Reshape", [b, back]), x.channels, *sides)

    def channels_last(self, x: Image) -> None:
        a = self.node("Transpose", [x.name], perm=[0, 2, 3, 1])
        b = self.node("Add", [a, self.constant(self.rng.normal(size=x.channels))])
        made = self.node("Transpose", [b], perm=[0, 3, 1, 2])
        self.keep(made, x.channels, x.height, x.width)

    def quantised(self, x: Image) -> None:
        if self.graph.dtype != np.float32:
            return
        step = self.constant(np.asarray(0.03))
        zero = self.constant(np.asarray(self.pick([0, 3]), np.uint8))
        a = self.node("QuantizeLinear", [x.name, step, zero])
        made = self.node("DequantizeLinear", [a, step, zero])
        self.keep(made, x.channels, x.height, x.width)

    def head(self, x: Image) -> str:
        """Something that ends in a few numbers, or the image."""
        kind = self.pick(["image", "flat", "global", "mean", "reshaped"])
        if kind == "image":
            return x.name
        if kind == "global":
            x = Image(self.node("GlobalMaxPool", [x.name]), x.channels, 1, 1)
        flat, count = None, x.channels * x.height * x.width
        if kind == "mean":
            count = x.channels
            if self.graph.opset < 18:
                flat = self.node("ReduceMean", [x.name], axes=[2, 3], keepdims=0)
            else:
                axes = self.constant(np.array([2, 3]))
                flat = self.node("ReduceMean", [x.name, axes], keepdims=0)
        elif kind == "reshaped":
            target = self.constant(np.array([self.pick([0, -1]), count]))
            flat = self.node("Reshape", [x.name, target])
        flat = flat or self.node("Flatten", [x.name])
        units = self.pick([2, 5])
        hidden = self.node(
            "Gemm",
            [flat, self.constant(self.kernel(count, units)), self.constant(self.bias(units))],
        )
        hidden = self.node("Relu", [hidden])
        return str(self.node("MatMul", [hidden, self.constant(self.kernel(units, 3))]))

    @property
    def steps(self) -> tuple[Callable[[Image], None], ...]:
        """All of them, convolutions most often."""
        return (
            *[self.conv] * 6,
            self.transposed,
            self.normalised,
            self.function,
            self.beside,
            self.pooled,
            self.together,
            self.together,
            self.concatenated,
            self.concatenated,
            self.parted,
            self.sliced,
            self.gathered,
            self.padded,
            self.resized,
            self.shuffled,
            self.channels_last,
            self.quantised,
        )


def random_channels(seed: int) -> tuple[ModelProto, Graph]:
    """A random convolutional graph with one input."""
    grower = _Grower(seed)
    rng, graph = grower.rng, grower.graph
    side, channels = int(rng.choice(SIDES)), int(rng.integers(1, 4))
    batch = None if grower.chance(0.8) else int(rng.integers(1, 3))
    tensor = Tensor("x", (batch, channels, side, side), graph.dtype)
    kind = helper.np_dtype_to_tensor_dtype(graph.dtype)
    declared = [batch or "N", channels, side, side]
    graph.inputs.append(helper.make_tensor_value_info("x", kind, declared))
    graph.live.append(tensor)
    grower.keep("x", channels, side, side)
    for _ in range(int(rng.integers(*STEPS))):
        recent = grower.images[-4:] if grower.chance(0.8) else grower.images
        grower.pick(grower.steps)(grower.pick(recent))
    outputs = [grower.head(grower.images[-1])]
    if grower.chance(0.3):
        outputs.append(grower.pick(grower.images[1:] or grower.images).name)
    outputs = [name for name in dict.fromkeys(outputs) if name != "x"]
    if not outputs:
        outputs = [grower.node("Relu", ["x"])]
    values = [helper.make_tensor_value_info(n, kind, None) for n in outputs]
    made = helper.make_graph(graph.nodes, "g", graph.inputs, values, graph.initializers)
    sets = [helper.make_opsetid("", graph.opset)]
    model = helper.make_model(made, opset_imports=sets, ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    for place, value in enumerate(inferred.graph.output):
        model.graph.output[place].CopyFrom(value)
    if grower.chance(0.5):
        model.graph.value_info.extend(inferred.graph.value_info)
    for t in model.graph.initializer:
        if t.data_type == TensorProto.FLOAT and grower.chance(0.1):
            t.doc_string = f"about {t.name}"
    return model, graph
