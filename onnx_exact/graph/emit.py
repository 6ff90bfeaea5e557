"""New nodes for a run of layers, built by onnx-graphsurgeon in the dialect of the old ones.

Inside a run the features lie along one axis: the last one (row form: x W^T + b, Gemm for matrices
where the old layers used Gemm, else MatMul and Add), or the last but one where other positions
follow them at both ends of the run (column form: W x + b, MatMul and Add). A Transpose or Reshape
at an end leads from or to the old layout where that is neither. A bypass is a product of its own
with what the layer before reads, and takes the place of the Gemm's C or is added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from onnx_exact.graph.layout import Dim, Layout, Shape, product
from onnx_exact.network import Layer
from onnx_exact.network.affine import Array

EXPAND_SINCE = 8


@dataclass(frozen=True)
class LayerNames:
    """What the parts of a new layer would like to be called; empty where nothing is known.

    Attributes:
        dense, add, relu: the nodes.
        product, sum: the tensors behind the MatMul and the Add (behind a Gemm: `sum`).
        weight, bias: the initializers.
        gemm: whether the old layer was a Gemm, not a MatMul.
        has_bias: whether the old layer added anything.
        bias_rank: how many axes what it added had.
    """

    dense: str = ""
    add: str = ""
    relu: str = ""
    product: str = ""
    sum: str = ""
    weight: str = ""
    bias: str = ""
    gemm: bool = True
    has_bias: bool = True
    bias_rank: int = 0


@dataclass(frozen=True, eq=False)
class Run:
    """New layers between two tensors that stay.

    Attributes:
        layers: the new layers.
        bypasses: for each of them what it reads of the input of the layer before it, shape (units,
            inputs of that layer), or None.
        names: one for each of them.
        outputs: the tensor behind each of them; the last is the run's output.
        input: the tensor the first one reads.
        layout_in, layout_out: of the two tensors that stay.
        dtype: storage type.
        opset: the model's.
    """

    layers: Sequence[Layer]
    bypasses: Sequence[Array | None]
    names: Sequence[LayerNames]
    outputs: Sequence[str]
    input: str
    layout_in: Layout
    layout_out: Layout
    dtype: np.dtype[np.floating]
    opset: int


@dataclass(frozen=True, eq=False)
class Emitted:
    """New nodes in order, their initializers, and the layout of every new tensor by name."""

    nodes: list[NodeProto]
    initializers: list[TensorProto]
    layouts: dict[str, Layout]


@dataclass(frozen=True, eq=False)
class _Operand:
    """A tensor that layers read; where it is the run's input, a Gemm may have to transpose it."""

    tensor: Any
    transposed: bool

    @property
    def options(self) -> dict[str, float | int]:
        """The attributes of a Gemm that reads it."""
        transposed = {"transA": 1} if self.transposed else {}
        return {"alpha": 1.0, "beta": 1.0, **transposed, "transB": 1}


def _in_columns(layout: Layout) -> bool:
    return layout.is_column or layout.start != layout.rank - 1


def _bypass(names: LayerNames) -> str:
    """The name of a node on the way around, if the others have any."""
    return f"{names.dense}_bypass" if names.dense else ""


def emit(run: Run, tensor_name: Callable[[str], str], node_name: Callable[[str], str]) -> Emitted:
    """The nodes of a run; the two functions make names unique."""
    return _Emitter(run, tensor_name, node_name).emit()


class _Emitter:
    def __init__(
        self, run: Run, tensor_name: Callable[[str], str], node_name: Callable[[str], str]
    ) -> None:
        import onnx_graphsurgeon

        self._gs = onnx_graphsurgeon
        self._run = run
        self._tensor_name = tensor_name
        self._node_name = node_name
        self._named = any(names.dense for names in run.names)
        self._nodes: list[Any] = []
        self._layouts: dict[str, Layout] = {}

    def emit(self) -> Emitted:
        run = self._run
        x = self._gs.Variable(run.input, dtype=run.dtype)
        constant = len(run.layers) == 1 and not run.layers[0].affine.weight.any()
        if constant and self._constant(x):
            return self._export()
        x, layout, transposed = self._enter(x)
        last = len(run.layers) - 1
        before = _Operand(x, transposed)
        for i, layer in enumerate(run.layers):
            after = Layout.at_axis(layout.shape, layout.start, layer.width)
            done = i == last and self._fits(after)
            output = run.outputs[i] if done or i != last else self._fresh(run.outputs[i])
            operand, around = _Operand(x, transposed), run.bypasses[i]
            read = None if around is None else (before, around)
            x = self._layer(operand, layer, run.names[i], output, after, read)
            before, layout, transposed = operand, after, False
        if not self._fits(layout):
            self._leave(x, layout)
        return self._export()

    # -- the ends --

    def _enter(self, x: Any) -> tuple[Any, Layout, bool]:
        """The input in row or column form, and whether the first Gemm has to transpose it."""
        into, out = self._run.layout_in, self._run.layout_out
        if not into.is_column:
            if into.along(-1):
                return x, Layout(into.shape, into.rank - 1, into.rank), False
            shape = (*into.lead, Dim(into.width))
            return self._reshape(x, shape, [0] * into.start), _last(shape), False
        if not into.along(-2):
            shape = (*into.lead, Dim(into.width), *into.trail)
            x = self._reshape(x, shape, [0] * into.start)
            into = Layout(shape, len(shape) - 2, len(shape) - 1)
        else:
            into = Layout(into.shape, into.rank - 2, into.rank - 1)
        if out.is_column:
            return x, into, False
        after = _last((*into.lead, *into.trail, Dim(into.width)))
        if into.rank == 2 and self._run.names[0].gemm:
            return x, after, True
        return self._transpose(x, after, self._fresh(self._run.input)), after, False

    def _fits(self, layout: Layout) -> bool:
        """Whether a tensor of this layout is the run's output as it is."""
        target = self._run.layout_out
        same_side = layout.is_column == target.is_column
        return same_side and layout.shape == target.shape

    def _leave(self, x: Any, layout: Layout) -> None:
        """From row or column form to the layout of the run's output."""
        target, output = self._run.layout_out, self._run.outputs[-1]
        if target.is_column and not layout.is_column:
            # Positions keep their order: those behind the features in the end become one axis.
            split = (*target.lead, product(target.trail), Dim(layout.width))
            if layout.shape != split:
                x = self._reshape(x, split, self._kept(layout.shape, target.lead))
            column = Layout((*target.lead, split[-1], split[-2]), len(split) - 2, len(split) - 1)
            if column.shape == target.shape:
                self._transpose(x, column, output)
                return
            x, layout = self._transpose(x, column, self._fresh(output)), column
        self._reshape(x, target.shape, self._kept(layout.shape, target.lead), output)

    @staticmethod
    def _kept(shape: Shape, lead: Shape) -> list[int]:
        """How a Reshape is told to leave the first axes as they are, where they are these."""
        return [0] * len(lead) if shape[: len(lead)] == lead else []

    def _reshape(self, x: Any, shape: Shape, kept: list[int], name: str = "") -> Any:
        """Reshape: the first axes kept as they are, at most one other of unknown size."""
        rest = shape[len(kept) :]
        sizes = kept + [dim.size if dim.static else -1 for dim in rest]
        if sizes.count(-1) > 1:
            raise ValueError(f"more than one unknown size in {shape}")
        name = name or self._fresh(x.name)
        target = self._gs.Constant(self._tensor_name(f"{name}_shape"), np.array(sizes, np.int64))
        return self._node("Reshape", [x, target], name)

    def _transpose(self, x: Any, after: Layout, name: str) -> Any:
        axes = list(range(after.rank))
        axes[-2:] = axes[:-3:-1]
        return self._node("Transpose", [x], name, perm=axes)

    # -- layers --

    def _layer(
        self,
        x: _Operand,
        layer: Layer,
        names: LayerNames,
        output: str,
        after: Layout,
        around: tuple[_Operand, Array] | None,
    ) -> Any:
        behind = self._fresh(names.sum or output) if layer.relu else output
        self._layouts |= {behind: after, output: after}
        if after.rank == 2 and not _in_columns(after) and names.gemm:
            made = self._gemm(x, layer, names, output, behind, around)
        else:
            made = self._matmul(x, layer, names, output, behind, around)
        return self._node("Relu", [made], output, names.relu) if layer.relu else made

    def _gemm(
        self,
        x: _Operand,
        layer: Layer,
        names: LayerNames,
        output: str,
        behind: str,
        around: tuple[_Operand, Array] | None,
    ) -> Any:
        weight = self._weight(layer.affine.weight, names.weight, output)
        added = self._bias(layer.affine.bias, names, output)
        if around is not None:
            before, matrix = around
            bypass = self._weight(matrix, "", f"{output}_bypass")
            name = self._tensor_of_bypass(output, self._layouts[output])
            inputs = [before.tensor, bypass, added]
            added = self._node("Gemm", inputs, name, _bypass(names), **before.options)
        return self._node("Gemm", [x.tensor, weight, added], behind, names.dense, **x.options)

    def _matmul(
        self,
        x: _Operand,
        layer: Layer,
        names: LayerNames,
        output: str,
        behind: str,
        around: tuple[_Operand, Array] | None,
    ) -> Any:
        after = self._layouts[output]
        bias = layer.affine.bias
        adds = around is not None or names.has_bias or bool(bias.any())
        behind_product = self._fresh(names.product or behind) if adds else behind
        self._layouts[behind_product] = after
        weight = layer.affine.weight
        made = self._product(x, weight, names.weight, output, behind_product, names.dense)
        if not adds:
            return made
        added = self._bias(bias[:, None] if _in_columns(after) else bias, names, output)
        if around is not None:
            before, matrix = around
            name = self._tensor_of_bypass(output, after)
            wish = f"{output}_bypass"
            bypass = self._product(before, matrix, "", wish, name, _bypass(names))
            shifted = self._tensor_of_bypass(output, after)
            added = self._node("Add", [bypass, added], shifted, _bypass(names))
        return self._node("Add", [made, added], behind, names.add)

    def _product(
        self, x: _Operand, weight: Array, wish: str, output: str, made: str, name: str
    ) -> Any:
        """The MatMul in row or column form."""
        if _in_columns(self._layouts[made]):
            return self._node("MatMul", [self._weight(weight, wish, output), x.tensor], made, name)
        return self._node("MatMul", [x.tensor, self._weight(weight.T, wish, output)], made, name)

    def _tensor_of_bypass(self, output: str, after: Layout) -> str:
        name = self._fresh(f"{output}_bypass")
        self._layouts[name] = after
        return name

    def _weight(self, values: Array, wish: str, output: str) -> Any:
        return self._stored(values, wish or f"{output}_weight")

    def _bias(self, values: Array, names: LayerNames, output: str) -> Any:
        # Readers index the second axis of a bias that had one.
        lacking = min(names.bias_rank, self._layouts[output].rank) - values.ndim
        values = values.reshape((1,) * max(0, lacking) + values.shape)
        return self._stored(values, names.bias or f"{output}_bias")

    def _stored(self, values: Array, wish: str) -> Any:
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(values.astype(self._run.dtype))
        if not np.isfinite(stored).all():
            raise ValueError(f"a weight of {wish!r} overflows {self._run.dtype}")
        return self._gs.Constant(self._tensor_name(wish), stored)

    # -- a constant --

    def _constant(self, x: Any) -> bool:
        """The output as a constant of the right shape; False where no clean form exists."""
        run = self._run
        layer, target, output = run.layers[0], run.layout_out, run.outputs[0]
        values = np.maximum(layer.affine.bias, 0.0) if layer.relu else layer.affine.bias
        wish = run.names[0].bias or f"{output}_value"
        if product(target.shape).static:
            sizes = [dim.size for dim in target.shape]
            flat = values.reshape(*[dim.size for dim in target.features], *[1] * len(target.trail))
            constant = self._stored(np.broadcast_to(flat, sizes), wish)
            self._node("Identity", [constant], output, run.names[0].dense)
            return True
        into = run.layout_in
        if run.opset < EXPAND_SINCE or into.is_column != target.is_column:
            return False
        if into.is_column:
            value = self._stored(values[:, None], wish)
            layout = Layout((*into.lead, Dim(len(values)), *into.trail), into.start, into.start + 1)
        else:
            value = self._stored(values, wish)
            layout = _last((*into.lead, Dim(len(values))))
        done = self._fits(layout)
        name = output if done else self._fresh(output)
        expanded = self._node("Expand", [value, self._sizes(x, into, len(values))], name)
        if not done:
            self._leave(expanded, layout)
        return True

    def _sizes(self, x: Any, into: Layout, width: int) -> Any:
        """The shape of x with `width` in place of its features, as a tensor of the graph."""
        whole = self._node("Shape", [x], self._fresh(f"{x.name}_shape"))
        trail = range(into.stop, into.rank) if into.is_column else range(0)
        parts = [self._picked(whole, range(into.start)), np.array([width], np.int64)]
        parts.append(self._picked(whole, trail))
        inputs = [
            self._integers(p) if isinstance(p, np.ndarray) else p for p in parts if p is not None
        ]
        return self._node("Concat", inputs, self._fresh(f"{x.name}_sizes"), axis=0)

    def _picked(self, whole: Any, axes: range) -> Any:
        if not axes:
            return None
        index = self._integers(np.array(axes, np.int64))
        return self._node("Gather", [whole, index], self._fresh(f"{whole.name}_part"), axis=0)

    def _integers(self, values: NDArray[np.int64]) -> Any:
        return self._gs.Constant(self._tensor_name(f"{self._run.outputs[-1]}_size"), values)

    # -- nodes --

    def _fresh(self, wish: str) -> str:
        return self._tensor_name(wish)

    def _node(self, op: str, inputs: list[Any], output: str, name: str = "", **attrs: Any) -> Any:
        if self._named:
            name = self._node_name(name or f"{output}_{op}")
        made = self._gs.Variable(output, dtype=self._run.dtype)
        self._nodes.append(self._gs.Node(op, name=name, attrs=attrs, inputs=inputs, outputs=[made]))
        return made

    def _export(self) -> Emitted:
        graph = self._gs.Graph(nodes=self._nodes, opset=self._run.opset)
        exported = self._gs.export_onnx(graph, do_type_check=False).graph
        return Emitted(list(exported.node), list(exported.initializer), self._layouts)


def _last(shape: Shape) -> Layout:
    return Layout(shape, len(shape) - 1, len(shape))
