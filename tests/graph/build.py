"""Small ONNX models built in a few lines, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onnx_exact.graph import LocatedChain, inputs_of, locate_chains, splice
from onnx_exact.graph.layout import Layout
from onnx_exact.network import Affine, Box, Chain, Layer

# Largest deviation between a float64 view and onnxruntime, relative to the largest value seen.
TOLERANCE = {np.dtype(np.float16): 1e-2, np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}
# What sums in float32 may be off by, of numbers that are computed in float64 here.
SLACK = 1e-4
BATCH = 3


class Builder:
    """Collects nodes and initializers with random weights."""

    def __init__(
        self, opset: int = 13, ir: int = 8, dtype: Any = np.float32, seed: int = 0
    ) -> None:
        self.opset, self.ir, self.dtype = opset, ir, np.dtype(dtype)
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    @property
    def elem_type(self) -> int:
        return helper.np_dtype_to_tensor_dtype(self.dtype)

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape).astype(self.dtype))

    def positive(self, *shape: int) -> str:
        return self.constant(self.rng.uniform(0.5, 2.0, size=shape).astype(self.dtype))

    def constant(self, values: Any, name: str = "") -> str:
        array = np.asarray(values)
        name = name or f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def node(
        self, op: str, *inputs: str, outputs: Sequence[str] = (), name: str = "", **attrs: Any
    ) -> str:
        number = len(self.nodes)
        outputs = outputs or [f"t{number}"]
        made = helper.make_node(op, inputs, outputs, name=name or f"n{number}_{op}", **attrs)
        self.nodes.append(made)
        return outputs[0]

    def dense(self, x: str, n_in: int, n_out: int) -> str:
        return self.node("MatMul", x, self.weight(n_in, n_out))

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def gemm(self, x: str, n_in: int, n_out: int) -> str:
        return self.node("Gemm", x, self.weight(n_out, n_in), self.weight(n_out), transB=1)

    def model(
        self,
        outputs: Sequence[str],
        inputs: Mapping[str, Sequence[int | str]] | None = None,
        check: bool = True,
    ) -> ModelProto:
        inputs = {"x": ["batch", 6]} if inputs is None else inputs
        values = [helper.make_tensor_value_info(n, self.elem_type, s) for n, s in inputs.items()]
        if self.ir <= 3:
            values += [
                helper.make_tensor_value_info(t.name, t.data_type, t.dims)
                for t in self.initializers
            ]
        graph = helper.make_graph(
            self.nodes,
            "graph",
            values,
            [helper.make_tensor_value_info(n, self.elem_type, None) for n in outputs],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=self.ir)
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        if check:
            inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output
            for value, found in zip(model.graph.output, inferred, strict=True):
                value.type.CopyFrom(found.type)
            onnx.checker.check_model(model, full_check=True)
        return model


Op = Callable[[Builder, str], str]


def run(
    model: ModelProto, feed: Mapping[str, Any], names: Sequence[str] | None = None
) -> list[Any]:
    """Values of outputs, or of any tensors by name."""
    import onnxruntime

    if names is not None:
        probed = ModelProto()
        probed.CopyFrom(model)
        shown = {value.name for value in probed.graph.output}
        shown |= {value.name for value in probed.graph.input}
        types = {v.name: v.type for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
        for name in dict.fromkeys(names):
            if name not in shown:
                value = probed.graph.output.add(name=name)
                if name in types:
                    value.type.tensor_type.elem_type = types[name].tensor_type.elem_type
        model = probed
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    # Its fusions round scales of float64 models to float32.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    if names is None:
        return list(session.run(None, dict(feed)))
    asked = [name for name in names if name not in feed]
    found = dict(zip(asked, session.run(asked, dict(feed)), strict=True)) if asked else {}
    return [feed[name] if name in feed else found[name] for name in names]


def box_of(shape: list[Any], seed: int = 0) -> Box:
    """A random box for an input of this shape, of size 1 along symbolic axes."""
    rng = np.random.default_rng(seed)
    sizes = [d if isinstance(d, int) else 1 for d in shape]
    low = rng.normal(size=sizes).astype(np.float32)
    return Box(low, low + rng.random(sizes).astype(np.float32))


def features(values: Any, layout: Layout) -> Any:
    """The feature vectors of a tensor, shape (positions, width), in float64."""
    array = np.asarray(values, dtype=np.float64)
    lead = int(np.prod(array.shape[: layout.start]))
    trail = int(np.prod(array.shape[layout.stop :]))
    return array.reshape(lead, layout.width, trail).transpose(0, 2, 1).reshape(-1, layout.width)


def feed_for(model: ModelProto, seed: int = 0, batch: int = BATCH) -> dict[str, Any]:
    """Random values for every input."""
    rng = np.random.default_rng(seed)
    dtypes = {
        spec.name: helper.tensor_dtype_to_np_dtype(spec.elem_type) for spec in inputs_of(model)
    }
    return {
        spec.name: rng.normal(size=[d or batch for d in spec.shape or ()]).astype(dtypes[spec.name])
        for spec in inputs_of(model)
    }


def rescaled(chain: Chain) -> Chain:
    """The same function with every inner ReLU unit doubled: other weights, equal to the bit."""
    layers: list[Layer] = []
    factor = np.ones(chain.n_in)
    for i, layer in enumerate(chain.layers):
        inner = i < len(chain.layers) - 1
        scale = np.full(layer.width, 2.0 if inner else 1.0)
        affine = Affine(layer.affine.weight / factor * scale[:, None], layer.affine.bias * scale)
        layers.append(Layer(affine, layer.relu))
        factor = scale
    return Chain(tuple(layers))


def halved(chain: Chain, seed: int = 0) -> Chain:
    """A chain with about half of every inner layer's units taken out: another function."""
    rng = np.random.default_rng(seed)
    layers: list[Layer] = []
    kept = np.arange(chain.n_in)
    for i, layer in enumerate(chain.layers):
        weight, bias = layer.affine.weight[:, kept], layer.affine.bias
        kept = np.arange(layer.width)
        if i < len(chain.layers) - 1:
            kept = np.sort(rng.choice(layer.width, (layer.width + 1) // 2, replace=False))
        layers.append(Layer(Affine(weight[kept], bias[kept]), layer.relu))
    return Chain(tuple(layers))


def assert_close(found: Any, wanted: Any, dtype: Any, message: str = "") -> None:
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    assert found.shape == wanted.shape, message
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(
        found, wanted, rtol=0, atol=TOLERANCE[np.dtype(dtype)] * scale, err_msg=message
    )


def check_chain(model: ModelProto, located: LocatedChain, chain: Chain, seed: int = 0) -> None:
    """The tensor at the chain's end holds what `chain` says of the tensor at its start."""
    feed = feed_for(model, seed)
    before, after = run(model, feed, [located.input, located.output])
    first, last = located.sites[0].layout_in, located.sites[-1].layout_out
    assert_close(
        features(after, last), chain.forward(features(before, first)), located.dtype, located.name
    )


def check_model(model: ModelProto, count: int | None = 1) -> tuple[LocatedChain, ...]:
    """Everything that must hold of every model: reading, rebuilding, shrinking, leaving alone."""
    found = locate_chains(model)
    assert count is None or len(found) == count, [chain.nodes for chain in found]
    original = model.SerializeToString(deterministic=True)
    for located in found:
        check_chain(model, located, located.chain)
        assert all(
            site.layout_out.width == layer.width
            for site, layer in zip(located.sites, located.chain.layers, strict=True)
        )
    unchanged = splice(model, [(located, located.chain) for located in found])
    assert unchanged.SerializeToString(deterministic=True) == original
    feed = feed_for(model, seed=1)
    wanted = run(model, feed)
    for change in (rescaled, halved):
        new = [(located, change(located.chain)) for located in found]
        changed = splice(model, new)
        onnx.checker.check_model(changed, full_check=True)
        assert model.SerializeToString(deterministic=True) == original
        for located, chain in new:
            check_chain(changed, located, chain, seed=2)
        if change is rescaled:
            for got, want in zip(run(changed, feed), wanted, strict=True):
                assert_close(got, want, want.dtype)
        assert [v.name for v in changed.graph.output] == [v.name for v in model.graph.output]
        assert_consistent(changed)
    return found


def assert_consistent(model: ModelProto) -> None:
    """Unique names, no zero widths, and declared shapes that inference agrees with."""
    made = [o for node in model.graph.node for o in node.output if o]
    made += [tensor.name for tensor in model.graph.initializer]
    assert len(made) == len(set(made))
    names = [node.name for node in model.graph.node if node.name]
    assert len(names) == len(set(names))
    assert all(0 not in tensor.dims for tensor in model.graph.initializer)
    bare = ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.value_info
    types = {value.name: value.type.tensor_type for value in inferred}
    for value in model.graph.value_info:
        assert value.name in made
        declared = value.type.tensor_type.shape.dim
        found = types[value.name].shape.dim
        assert len(declared) == len(found)
        for mine, theirs in zip(declared, found, strict=True):
            if mine.HasField("dim_value") and theirs.HasField("dim_value"):
                assert mine.dim_value == theirs.dim_value, value.name
