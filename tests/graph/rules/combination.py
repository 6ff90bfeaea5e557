"""One operator with one choice of attributes, shapes and constants, as a model of any type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]

FLOATS = (TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE)
# Of these no runtime here gives or takes arrays: read back in float32.
OPAQUE = (TensorProto.BFLOAT16,)


@dataclass(frozen=True)
class Variable:
    """An input of the graph; its first axis is called "n" where every row is a point.

    Axes with another name have a size that the model does not tell.
    """

    shape: tuple[int | str, ...]
    elem_type: int | None = None

    @property
    def rows(self) -> bool:
        return bool(self.shape) and self.shape[0] == "n"


@dataclass(frozen=True, eq=False)
class Constant:
    """An initializer; floats are cast to the model's type unless they have one of their own."""

    values: Array
    fixed: bool = False


@dataclass(frozen=True, eq=False)
class Combination:
    """A node; inputs that are None are left out.

    Attributes:
        op: the operator.
        inputs: of the node, in order.
        attributes: of the node.
        opset: the version of the operator set.
        outputs: how many outputs the node has.
        types: in which the variables and constants may be.
    """

    op: str
    inputs: tuple[Variable | Constant | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    types: tuple[int, ...] = FLOATS

    @property
    def variables(self) -> dict[str, Variable]:
        return {f"x{i}": v for i, v in enumerate(self.inputs) if isinstance(v, Variable)}

    def model(self, elem_type: int) -> ModelProto:
        """The node as a model; what no runtime returns is read back in float32 as `read`."""
        dtype = helper.tensor_dtype_to_np_dtype(elem_type)
        names, initializers = [], []
        for i, given in enumerate(self.inputs):
            names.append("" if given is None else f"x{i}")
            if isinstance(given, Constant):
                values = given.values
                if values.dtype.kind == "f" and not given.fixed:
                    with np.errstate(over="ignore", under="ignore"):
                        values = values.astype(dtype)
                initializers.append(numpy_helper.from_array(values, f"x{i}"))
        inputs = [
            helper.make_tensor_value_info(name, v.elem_type or elem_type, v.shape)
            for name, v in self.variables.items()
        ]
        results = [f"y{i}" for i in range(self.outputs)]
        domain, _, op = self.op.rpartition(".")
        nodes = [helper.make_node(op, names, results, domain=domain, **self.attributes)]
        shown = results
        if self.attributes.get("to") in OPAQUE:
            nodes.append(helper.make_node("Cast", ["y0"], ["read"], to=TensorProto.FLOAT))
            shown = ["read"]
        graph = helper.make_graph(nodes, "g", inputs, [], initializers)
        opset = [helper.make_opsetid("", self.opset)]
        opset += [helper.make_opsetid(domain, 3)] if domain else []
        model = helper.make_model(graph, opset_imports=opset, ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        types = {v.name: v for v in inferred.graph.value_info}
        for name in shown:
            model.graph.output.append(types.get(name) or onnx.ValueInfoProto(name=name))
        return model
