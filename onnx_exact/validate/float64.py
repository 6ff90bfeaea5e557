"""A chain's nodes as they run on float64: onnxruntime has some operators in float32 alone.

Cast to the type of the tensor   x, which is float64 here
FusedGemm, FusedMatMul           their parts
Clip                             min(max(x, low), high)
LeakyRelu, PRelu                 max(x, 0) + slope min(x, 0)
ThresholdedRelu of threshold 0   max(x, 0)
HardSigmoid                      min(max(alpha x + beta, 0), 1)
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper, numpy_helper

from onnx_exact.graph.index import attributes

# Max and Min take float64 since this operator set.
SINCE = 8
# The defaults of attributes, which are float32.
LEAKY_ALPHA, HARD_ALPHA, HARD_BETA = (float(np.float32(v)) for v in (0.01, 0.2, 0.5))


def in_float64(node: NodeProto) -> list[NodeProto]:
    """A node of a chain as one or more that run on float64, its constants in float64, too.

    They are of the operator set `SINCE` at least.
    """
    parts = _Parts(node)
    known = {name: attribute.f for name, attribute in attributes(node).items()}
    x, y = node.input[0] if node.input else "", node.output[0]
    match node.op_type:
        case "Cast" | "Concat" | "Mean" | "Sum" if len(node.input) == 1:
            return [helper.make_node("Identity", [x], [y])]
        case "FusedGemm":
            return _fused_gemm(node)
        case "FusedMatMul":
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            return parts.product(x, node.input[1], turned, known.get("alpha", 1.0))
        case "Clip":
            given = [*node.input[1:3], "", ""]
            low, high = (
                parts.number(known[name]) if name in known else given[place]
                for place, name in enumerate(("min", "max"))
            )
            return parts.limited(x, [low, high])
        case "ThresholdedRelu":
            return [helper.make_node("Relu", [x], [y])]
        case "LeakyRelu":
            return parts.two_sided(x, parts.number(known.get("alpha", LEAKY_ALPHA)))
        case "PRelu":
            return parts.two_sided(x, node.input[1])
        case "HardSigmoid":
            alpha, beta = known.get("alpha", HARD_ALPHA), known.get("beta", HARD_BETA)
            scaled = parts.add("Mul", x, parts.number(alpha))
            moved = parts.add("Add", scaled, parts.number(beta))
            return parts.limited(moved, [parts.number(0.0), parts.number(1.0)])
    return [node]


class _Parts:
    """Nodes in place of one, with tensors named after its output."""

    def __init__(self, node: NodeProto) -> None:
        self._output = node.output[0]
        self._nodes: list[NodeProto] = []

    def _name(self) -> str:
        return f"{self._output} in float64, {len(self._nodes)}"

    def number(self, value: float) -> str:
        """A constant."""
        name = self._name()
        tensor = numpy_helper.from_array(np.asarray(value, dtype=np.float64))
        self._nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def add(self, op: str, *inputs: str) -> str:
        """One more node."""
        name = self._name()
        self._nodes.append(helper.make_node(op, list(inputs), [name]))
        return name

    def limited(self, x: str, ends: list[str]) -> list[NodeProto]:
        """min(max(x, low), high), either of which may be missing."""
        low, high = ends
        x = self.add("Max", x, low) if low else x
        return self._done("Min", x, high) if high else self._done("Identity", x)

    def two_sided(self, x: str, slope: str) -> list[NodeProto]:
        """max(x, 0) + slope min(x, 0)."""
        zero = self.number(0.0)
        below = self.add("Mul", self.add("Min", x, zero), slope)
        return self._done("Add", self.add("Max", x, zero), below)

    def _done(self, op: str, *inputs: str) -> list[NodeProto]:
        self._nodes.append(helper.make_node(op, list(inputs), [self._output]))
        return self._nodes

    def product(self, x: str, weight: str, turned: bool, factor: float) -> list[NodeProto]:
        """factor x W or factor x W'."""
        weight = self.add("Transpose", weight) if turned else weight
        return self._done("Mul", self.add("MatMul", x, weight), self.number(factor))


def _fused_gemm(node: NodeProto) -> list[NodeProto]:
    """A Gemm and its ReLU."""
    gemm = helper.make_node("Gemm", node.input, [f"{node.output[0]} before its Relu"])
    gemm.attribute.extend(a for a in node.attribute if not a.name.startswith("activation"))
    return [gemm, helper.make_node("Relu", gemm.output, node.output)]
