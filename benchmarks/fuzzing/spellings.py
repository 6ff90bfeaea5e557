"""Random graphs written otherwise, as exporters write them: the same function in other spellings.

Constants come out of nodes, ReLUs are other operators, a Gemm and its ReLU are one node, Casts to
the type that a tensor has stand anywhere, and operators are called through functions or branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.fuzzing.tensors import Array

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
FUNCTIONS = {"Identity", "Sigmoid", "Tanh", "Abs", "Neg", "Softplus"}


def respelled(model: ModelProto, seed: int) -> ModelProto:
    """The model in other spellings; weights of some layers are rounded to fewer digits."""
    spelled = ModelProto()
    spelled.CopyFrom(model)
    _Spelling(spelled, np.random.default_rng([seed, 5])).write()
    return spelled


class _Spelling:
    def __init__(self, model: ModelProto, rng: np.random.Generator) -> None:
        self._model, self._graph, self._rng = model, model.graph, rng
        self._opset = max(o.version for o in model.opset_import)
        self._count = 0
        inferred = onnx.shape_inference.infer_shapes(model)
        known = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        self._types = {v.name: v.type.tensor_type.elem_type for v in known}
        self._bound = {v.name for v in (*model.graph.input, *model.graph.output)}
        self._bound |= {a.tensor_name for a in model.graph.quantization_annotation}

    def write(self) -> None:
        nodes = [spelled for node in self._fused() for spelled in self._node(node)]
        stored = [made for tensor in self._constants() for made in self._stored(tensor)]
        del self._graph.node[:]
        self._graph.node.extend([*stored, *nodes])

    def _chance(self, share: float) -> bool:
        return bool(self._rng.random() < share)

    def _name(self) -> str:
        self._count += 1
        return f"spelled_{self._count}"

    def _constant(self, values: Array) -> str:
        name = self._name()
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    # -- nodes --

    def _fused(self) -> Iterator[NodeProto]:
        """The nodes, some products one with their ReLU, as onnxruntime writes them."""
        nodes = list(self._graph.node)
        readers: dict[str, list[int]] = {}
        for i, node in enumerate(nodes):
            for name in node.input:
                readers.setdefault(name, []).append(i)
        gone = set()
        for i, node in enumerate(nodes):
            after = readers.get(node.output[0], []) if node.output else []
            fits = node.op_type == "Gemm" and node.output[0] not in self._bound
            if fits and self._types.get(node.output[0]) == TensorProto.FLOAT and len(after) == 1:
                relu = nodes[after[0]]
                if after[0] > i and relu.op_type == "Relu" and self._chance(0.3):
                    node.op_type, node.domain = "FusedGemm", "com.microsoft"
                    node.attribute.append(helper.make_attribute("activation", "Relu"))
                    node.output[0] = relu.output[0]
                    gone.add(after[0])
                    self._import("com.microsoft", 1)
        yield from (node for i, node in enumerate(nodes) if i not in gone)

    def _import(self, domain: str, version: int) -> None:
        if all(o.domain != domain for o in self._model.opset_import):
            self._model.opset_import.append(helper.make_opsetid(domain, version))

    def _node(self, node: NodeProto) -> Iterator[NodeProto]:
        kind = self._types.get(node.output[0], 0) if len(node.output) == 1 else 0
        last = node.output[0] if kind in FLOATS and self._chance(0.15) else ""
        if last:
            node.output[0] = self._name()
        if node.op_type == "Relu" and kind in FLOATS and self._chance(0.6):
            yield from self._relu(node, np.dtype(helper.tensor_dtype_to_np_dtype(kind)))
        elif node.op_type in FUNCTIONS and not node.attribute and self._chance(0.3):
            yield self._called(node)
        else:
            yield node
        if last:
            yield helper.make_node("Cast", [node.output[0]], [last], to=kind)

    def _relu(self, node: NodeProto, dtype: np.dtype[np.generic]) -> Iterator[NodeProto]:
        zero = self._constant(np.zeros((), dtype))
        x, y = node.input[0], node.output[0]
        kind = int(self._rng.integers(7))
        if kind == 0:
            yield helper.make_node("Clip", [x, zero], [y], name=node.name)
        elif kind == 1:
            yield helper.make_node("Clip", [x, zero, self._constant(np.asarray(6e4, dtype))], [y])
        elif kind == 2:
            pair = [x, zero] if self._chance(0.5) else [zero, x]
            yield helper.make_node("Max", pair, [y], name=node.name)
        elif kind == 3:
            yield helper.make_node("LeakyRelu", [x], [y], name=node.name, alpha=0.0)
        elif kind == 4:
            yield helper.make_node("PRelu", [x, zero], [y], name=node.name)
        elif kind == 5:
            yield helper.make_node("ThresholdedRelu", [x], [y], name=node.name, alpha=0.0)
        else:
            between = self._name()
            yield helper.make_node("Relu", [x], [between], name=node.name)
            yield helper.make_node("Relu", [between], [y])

    def _called(self, node: NodeProto) -> NodeProto:
        """The operator through a function of the model's own."""
        name = f"My{node.op_type}"
        if all(f.name != name for f in self._model.functions):
            inner = helper.make_node(node.op_type, ["a"], ["b"])
            opsets = [helper.make_opsetid("", self._opset)]
            self._import("my", 1)
            function = helper.make_function("my", name, ["a"], ["b"], [inner], opsets)
            self._model.functions.append(function)
        return helper.make_node(name, node.input, node.output, name=node.name, domain="my")

    # -- constants --

    def _constants(self) -> list[TensorProto]:
        """The floating-point weights that may come out of nodes."""
        chosen = [
            t
            for t in self._graph.initializer
            if t.data_type in FLOATS and t.name not in self._bound and len(t.dims) > 0
        ]
        return [t for t in chosen if self._chance(0.5)]

    def _stored(self, tensor: TensorProto) -> Iterator[NodeProto]:
        name, values = tensor.name, numpy_helper.to_array(tensor)
        self._graph.initializer.remove(tensor)
        kind = int(self._rng.integers(9))
        if kind == 0:
            yield self._made(name, "Identity", values)
        elif kind == 1 and values.ndim == 2:
            yield self._made(name, "Transpose", values.T.copy())
        elif kind == 2:
            wide = values.astype(np.float64)
            yield self._made(name, "Cast", wide, to=tensor.data_type)
        elif kind == 3:
            narrow = values.astype(np.float16)
            yield self._made(name, "Cast", narrow, to=tensor.data_type)
        elif kind == 4:
            sizes = self._constant(np.array(values.shape, np.int64))
            yield self._made(name, "Reshape", values.reshape(-1), sizes)
        elif kind == 5 and values.dtype == np.float32 and values.size:
            yield from self._quantized(name, values)
        elif kind == 6 and values.shape[0] > 1:
            parts = [self._constant(part) for part in (values[:1], values[1:])]
            yield helper.make_node("Concat", parts, [name], axis=0)
        elif kind == 7:
            factor = np.asarray(self._rng.uniform(0.5, 2.0), values.dtype)
            yield self._made(name, "Mul", values, self._constant(factor))
        else:
            padded = np.concatenate([np.zeros_like(values[:1]), values])
            ends = [np.array([1]), np.array([len(padded)]), np.array([0])]
            yield self._made(name, "Slice", padded, *map(self._constant, ends))

    def _made(
        self, name: str, op: str, values: NDArray[np.generic], *more: str, **attributes: Any
    ) -> NodeProto:
        return helper.make_node(op, [self._constant(values), *more], [name], **attributes)

    def _quantized(self, name: str, values: Array) -> Iterator[NodeProto]:
        scale = np.float32(max(np.abs(values).max() / 127, 1e-6))
        codes = np.clip(np.round(values / scale), -128, 127).astype(np.int8)
        yield self._made(name, "DequantizeLinear", codes, self._constant(np.asarray(scale)))
