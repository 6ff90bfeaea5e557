"""The interval of every tensor of a graph over a domain, evaluated node by node when asked for.

The intervals speak about real arithmetic: they hold for the numbers the graph defines, and are
sound in spite of the float64 they are computed in. A runtime that rounds to float32 between nodes
may leave them by its own rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from onnx import ModelProto

from onnx_exact.graph.bounds import EVERY_OUTPUT, RULES, Context
from onnx_exact.graph.bounds.interval import Interval, intersect, point, unknown
from onnx_exact.graph.index import FLOATS, Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.locate import LocatedChain, locate_chains
from onnx_exact.graph.origin import Origin, trace
from onnx_exact.graph.read import inputs_of
from onnx_exact.network import Box
from onnx_exact.network.affine import Array


@dataclass(frozen=True, eq=False)
class ChainDomain:
    """What a chain's input can be.

    Attributes:
        box: shape (n_in,), the hull over the positions of all other axes.
        origin: the way back to a graph input, of which `box` is then the exact image (up to
            rounding outward); None where there is no such way.
    """

    box: Box
    origin: Origin | None


class Ranges:
    """Intervals of the tensors of `model` where its inputs lie in `domain`.

    Args:
        model: not to be changed while this object is in use.
        domain: boxes of float inputs by name, each broadcasting against its input's shape with
            size 1 along unknown axes; inputs without a box are unbounded.

    Raises:
        ValueError: a box that does not fit its input.
    """

    def __init__(self, model: ModelProto, domain: Mapping[str, Box]) -> None:
        self._index = Index(model)
        self._inputs = {spec.name for spec in inputs_of(model)}
        self._domain = dict(domain)
        self._known: dict[str, Interval] = {}
        for spec in inputs_of(model):
            if spec.name in domain and spec.is_float:
                box = domain[spec.name]
                self._known[spec.name] = self._fitted(spec.name, Interval(box.lower, box.upper))
        self._given = dict(self._known)

    def of(self, tensor: str) -> Box:
        """The box of a tensor, with its rank and size 1 along unknown axes.

        Infinite where nothing is known; an array without axes where not even the rank is.
        """
        found = self._interval(tensor)
        return Box(found.lower, found.upper, source=f"interval of {tensor}")

    def assume(self, tensor: str, box_lower: Array, box_upper: Array) -> None:
        """Takes in tighter bounds known from elsewhere.

        Args:
            tensor: its name.
            box_lower, box_upper: one value for each feature where the tensor is the output of a
                chain, else arrays that broadcast against the tensor's shape.

        Raises:
            ValueError: bounds that do not fit the tensor.
        """
        lower, upper = (np.asarray(v, dtype=np.float64) for v in (box_lower, box_upper))
        layout = self._outputs.get(tensor)
        if layout is not None and lower.shape == (layout.width,):
            sizes = [dim.size for dim in layout.features]
            shape = (1,) * layout.start + tuple(sizes) + (1,) * len(layout.trail)
            lower, upper = lower.reshape(shape), upper.reshape(shape)
        tighter = intersect(self._interval(tensor), self._fitted(tensor, Interval(lower, upper)))
        self._forget_behind(tensor)
        self._known[tensor] = self._given[tensor] = tighter

    def chain_domain(self, located: LocatedChain) -> ChainDomain:
        """The box of a chain's input, and where it comes from."""
        site = located.sites[0]
        layout = site.layout_in
        found = self._interval(located.input)
        if found.rank != layout.rank:
            found = found.hull().mapped(lambda v: v.reshape((1,) * layout.rank))
        others = (*range(layout.start), *range(layout.stop, layout.rank))
        sizes = (1,) * layout.start + tuple(dim.size for dim in layout.features)
        sizes += (1,) * len(layout.trail)
        flat = found.hull(others).mapped(lambda v: np.broadcast_to(v, sizes).reshape(-1))
        origin = trace(self._index, located.input, layout, self._inputs)
        source = f"interval of {located.input}"
        if origin is not None:
            box = self._domain.get(origin.input)
            source = box.source if box is not None else "every finite input"
        return ChainDomain(Box(flat.lower, flat.upper, source=source), origin)

    @cached_property
    def _outputs(self) -> dict[str, Layout]:
        return {c.output: c.sites[-1].layout_out for c in locate_chains(self._index)}

    def _interval(self, tensor: str) -> Interval:
        for position in self._behind(tensor):
            self._evaluate(position)
        return self._known[tensor] if tensor in self._known else self._leaf(tensor)

    def _behind(self, tensor: str) -> list[int]:
        """The nodes to evaluate before `tensor` is known, in the order of the graph."""
        wanted: set[int] = set()
        open_ends = [tensor]
        while open_ends:
            name = open_ends.pop()
            position = self._index.producer.get(name)
            if position is None or name in self._known or position in wanted:
                continue
            wanted.add(position)
            open_ends += self._index.nodes[position].input
        return sorted(wanted)

    def _leaf(self, tensor: str) -> Interval:
        values = self._index.floats(tensor)
        if values is not None:
            found = point(values)
        else:
            shape = self._index.shape(tensor)
            found = unknown(None if shape is None else len(shape))
        self._known[tensor] = found
        return found

    def _evaluate(self, position: int) -> None:
        index, node = self._index, self._index.nodes[position]
        inputs = tuple(
            (self._known[name] if name in self._known else self._leaf(name)) if name else None
            for name in node.input
        )
        rule = RULES.get(node.op_type) if index.is_standard(node) else None
        is_constant = node.op_type == "Constant" and not inputs
        for i, output in enumerate(node.output):
            if output in self._known or not output:
                continue
            found = None
            if is_constant and (values := index.floats(output)) is not None:
                found = point(values)
            elif rule is not None and (i == 0 or node.op_type in EVERY_OUTPUT):
                found = self._applied(Context(index, node, inputs), output)
            self._known[output] = unknown(self._rank(output)) if found is None else found

    def _applied(self, context: Context, output: str) -> Interval | None:
        if self._index.elem_type(output) not in (0, *FLOATS):
            return None
        found = RULES[context.node.op_type](context)
        return None if found is None else self._fitted(output, found, strict=False)

    def _rank(self, tensor: str) -> int | None:
        shape = self._index.shape(tensor)
        return None if shape is None else len(shape)

    def _fitted(self, tensor: str, found: Interval, strict: bool = True) -> Interval:
        """The interval with the tensor's rank: axes in front are added, as in broadcasting.

        Where the rank is not known, the bounds over all entries.
        """
        shape = self._index.shape(tensor)
        if shape is None:
            return found.hull().mapped(lambda v: v.reshape(()))
        lacking = len(shape) - found.rank
        sizes = (1,) * lacking + found.lower.shape
        fits = lacking >= 0 and all(
            size == 1 or not dim.static or dim.size == size
            for size, dim in zip(sizes, shape, strict=True)
        )
        if not fits:
            if strict:
                raise ValueError(f"bounds of shape {found.lower.shape} for {tensor!r}")
            return found.hull().mapped(lambda v: v.reshape((1,) * len(shape)))
        return found.mapped(lambda v: v.reshape(sizes))

    def _forget_behind(self, tensor: str) -> None:
        """Drops what was computed from the bounds of `tensor`."""
        touched = {tensor}
        for node in self._index.nodes:
            if touched.intersection(node.input):
                touched.update(output for output in node.output if output)
        for name in touched - self._given.keys():
            self._known.pop(name, None)
