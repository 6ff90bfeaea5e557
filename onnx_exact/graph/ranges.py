"""The interval of every tensor of a graph over a domain, evaluated node by node when asked for.

The intervals hold for the numbers that the graph defines over the reals and for what any runtime
computes in the types of the tensors, within the error that docs/guarantees.md states for each
operator; they are sound in spite of the float64 they are computed in. They say nothing of NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from onnx import ModelProto

from onnx_exact.graph.bounds import apply, unknown_of
from onnx_exact.graph.bounds.interval import Interval, intersect
from onnx_exact.graph.bounds.room import Room
from onnx_exact.graph.expand import expanded
from onnx_exact.graph.fold import interval_of
from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.locate import LocatedChain, locate_chains
from onnx_exact.graph.origin import Origin, trace
from onnx_exact.graph.read import inputs_of
from onnx_exact.graph.reasons import described, end_of, left_out
from onnx_exact.network import Box
from onnx_exact.network.affine import Array


@dataclass(frozen=True, eq=False)
class ChainDomain:
    """What a chain's input can be.

    Attributes:
        box: shape (n_in,), the hull over the positions of all other axes.
        origin: the way back to a graph input, of which `box` is then the image, widened by what
            the operators in between round in the model's type; None where there is no such way.
    """

    box: Box
    origin: Origin | None


class Ranges:
    """Intervals of the tensors of `model` where its inputs lie in `domain`.

    Args:
        model: not to be changed while this object is in use.
        domain: boxes of float inputs by name, each broadcasting against its input's shape with
            size 1 along unknown axes; inputs without a box are unbounded.
        checked: whether chains are those alone that the checker of certificates reads.

    Raises:
        ValueError: a box that does not fit its input.
    """

    def __init__(
        self, model: ModelProto, domain: Mapping[str, Box], *, checked: bool = False
    ) -> None:
        self._written = Index(model, None if checked else self.of, checked=checked)
        self._index = expanded(self._written)
        self._inputs = {spec.name for spec in inputs_of(model)}
        self._domain = dict(domain)
        self._known: dict[str, Interval] = {}
        self._room = Room()
        for spec in inputs_of(model):
            if spec.name in domain and spec.is_float:
                box = domain[spec.name]
                self._known[spec.name] = self._fitted(spec.name, Interval(box.lower, box.upper))
        self._given = dict(self._known)

    @cached_property
    def chains(self) -> tuple[LocatedChain, ...]:
        """The chains of the model on this domain.

        Raises:
            ModelError: a weight that a chain would take in is NaN or infinite.
        """
        return locate_chains(self._written)

    def of(self, tensor: str) -> Box:
        """The box of a tensor, with its rank and size 1 along unknown axes.

        Infinite where nothing is known; an array without axes where not even the rank is.
        """
        found = self._interval(tensor)
        return Box(found.lower, found.upper, source=f"interval of {tensor}")

    def assume(self, tensor: str, box_lower: Array, box_upper: Array) -> None:
        """Takes in tighter bounds known from elsewhere, for the reals and for any runtime.

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

    def left_out(self) -> tuple[str, ...]:
        """The ReLUs and products that are in no chain, a line each with the node and the reason."""
        return left_out(self._written, self.chains)

    def end_of(self, chain: LocatedChain) -> str:
        """Why a chain goes no further, with the node."""
        return end_of(self._written, chain)

    def unbounded(self, tensor: str) -> str | None:
        """What leaves a tensor without bounds, in words; None where it has some on every side."""
        if self._interval(tensor).finite:
            return None
        while True:
            position = self._index.producer.get(tensor)
            if position is None:
                return f"nothing bounds the input {tensor!r}; give --domain {tensor}=LO:HI"
            node = self._index.nodes[position]
            loose = [n for n in node.input if n and not self._interval(n).finite]
            if not loose:
                return f"{described(node)} has no bounds that are known"
            tensor = loose[0]

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
            origin = replace(origin, box=box)
            source = box.source if box is not None else "every finite input"
        return ChainDomain(Box(flat.lower, flat.upper, source=source), origin)

    @cached_property
    def _outputs(self) -> dict[str, Layout]:
        return {c.output: c.sites[-1].layout_out for c in self.chains}

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
        # Constants are not kept: in float64 they would take a multiple of the file.
        found = self._constant(tensor)
        if found is None:
            found = self._known[tensor] = self._unknown(tensor)
        return found

    def _constant(self, tensor: str) -> Interval | None:
        """The interval of a constant; None where it is none, or float64 does not hold it."""
        value = self._index.value(tensor)
        return None if value is None else interval_of(value)

    def _evaluate(self, position: int) -> None:
        index, node = self._index, self._index.nodes[position]
        inputs = tuple(
            (self._known[name] if name in self._known else self._leaf(name)) if name else None
            for name in node.input
        )
        for i, output in enumerate(node.output):
            if output in self._known or not output:
                continue
            inputs = self._room.inputs(index.shape(output), inputs)
            found = self._constant(output) or apply(index, node, inputs, i)
            if found is None:
                # An operator without a rule may divide by 0.
                found = replace(self._unknown(output), overflows=True)
            fitted = self._fitted(output, found, strict=False)
            self._known[output] = self._room.keep(output, fitted)

    def _unknown(self, tensor: str) -> Interval:
        """What its type says of a tensor, or that it has no entries."""
        shape, kind = self._index.shape(tensor), self._index.elem_type(tensor)
        found = unknown_of(kind, None if shape is None else len(shape))
        if shape is None or not any(dim.static and dim.size == 0 for dim in shape):
            return found
        sizes = [dim.size if dim.static else 1 for dim in shape]
        return found.mapped(lambda v: np.broadcast_to(v, sizes))

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
            self._room.free(name)
