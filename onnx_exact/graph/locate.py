"""Finds the maximal chains of affine maps and ReLUs in a graph.

    chain = segment (Relu segment)* Relu?

A segment holds at least one Gemm or MatMul with a constant, and whatever acts on each unit by
itself or only regroups the features. A chain starts at its first Gemm or MatMul and ends where a
tensor is read by anyone else, or at an operator that is none of these.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from onnx_exact.errors import ModelError
from onnx_exact.graph.index import FLOATS, Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.ops import Dense, Diagonal, Rectify, Regroup, Step, entry, read_step
from onnx_exact.network import Affine, Chain, Layer, SplitChain
from onnx_exact.network.approximate import Approximate, affine_of


@dataclass(frozen=True)
class Site:
    """Where one layer of a chain lives in the file.

    Attributes:
        nodes: positions of its nodes in the graph.
        input, output: names of the tensors at its boundaries.
        layout_in, layout_out: where the features lie in these.
        dense: positions of its Gemm and MatMul nodes among all nodes, at least one.
        relu: position of its Relu, if it has one.
        connections: entries of its weight matrices, each with as many as the file needs.
    """

    nodes: tuple[int, ...]
    input: str
    output: str
    layout_in: Layout
    layout_out: Layout
    dense: tuple[int, ...]
    relu: int | None
    connections: int


@dataclass(frozen=True, eq=False)
class LocatedChain:
    """A chain of a graph, and where each of its layers lives.

    Attributes:
        name: for the report, unique in the graph.
        chain: its float64 view; plain weights hold exactly the stored numbers.
        sites: one for every layer of `chain`.
        dtype: storage type of the weights.
        nodes: names of the nodes it came from (the output's name where a node has none).
        magnitudes: the same chain with the absolute values of all numbers that were read, which
            bounds what its nodes add up on the way; None where each layer is one product and at
            most one sum.
    """

    name: str
    chain: Chain
    sites: tuple[Site, ...]
    dtype: np.dtype[np.floating]
    nodes: tuple[str, ...]
    magnitudes: Chain | None = None

    @property
    def folded(self) -> tuple[bool, ...]:
        """For each layer, whether it has fewer connections as read than in the file."""
        return tuple(
            layer.affine.linear.size < site.connections
            for layer, site in zip(self.chain.layers, self.sites, strict=True)
        )

    def connections(self, new: Chain | SplitChain | None = None) -> int:
        """Connections in the file, of this chain or of a new one in its place.

        A layer of the new one that is the same object as here keeps its nodes.
        """
        layers = zip(self.chain.layers, self.sites, strict=True)
        more = {id(a): site.connections - a.affine.linear.size for a, site in layers}
        if new is None:
            new = self.chain
        return new.connections + sum(more.get(id(layer), 0) for layer in new.layers)

    @property
    def input(self) -> str:
        """Name of the tensor the chain reads."""
        return self.sites[0].input

    @property
    def output(self) -> str:
        """Name of the tensor the chain makes."""
        return self.sites[-1].output


@dataclass(frozen=True, eq=False)
class _Walked:
    node: int
    step: Step
    input: str
    output: str
    layout_in: Layout


def locate_chains(model: ModelProto | Index) -> tuple[LocatedChain, ...]:
    """All maximal chains that have a ReLU or at least two layers, in the order of the graph.

    Raises:
        ModelError: a weight that a chain would take in is NaN or infinite.
    """
    index = model if isinstance(model, Index) else Index(model)
    found = []
    used: set[int] = set()
    for position, node in enumerate(index.nodes):
        start = entry(index, node) if position not in used else None
        if start is None:
            continue
        walked = _parsed(_walk(index, position, *start))
        chain = _located(index, walked) if walked else None
        used.update(w.node for w in walked)
        if chain is not None:
            found.append(chain)
    return _uniquely_named(found)


def _walk(index: Index, position: int | None, tensor: str, layout: Layout) -> list[_Walked]:
    """Steps from the node at `position` on, up to the first barrier."""
    walked: list[_Walked] = []
    rectified = False
    while position is not None:
        node = index.nodes[position]
        step = read_step(index, node, tensor, layout)
        if step is None:
            break
        if isinstance(step, Rectify) and rectified and not index.checked:
            # What is positive already stays as it is.
            step = Regroup(layout)
        if not isinstance(step, Regroup):
            rectified = isinstance(step, Rectify) or (isinstance(step, Dense) and step.rectified)
        walked.append(_Walked(position, step, tensor, node.output[0], layout))
        tensor, layout = node.output[0], step.layout
        position = index.sole_reader(tensor)
    return walked


def _parsed(walked: list[_Walked]) -> list[_Walked]:
    """The longest prefix that follows the grammar and does not end in mere regrouping."""
    end = segment_end = 0
    dense = False
    for i, w in enumerate(walked):
        if isinstance(w.step, Rectify):
            if not dense:
                break
            end = segment_end = i + 1
            dense = False
        elif isinstance(w.step, Dense):
            dense = not w.step.rectified
            if w.step.rectified:
                end = segment_end = i + 1
        if dense and isinstance(w.step, Dense | Diagonal):
            segment_end = i + 1
    return walked[: max(end, segment_end)]


class _Layers:
    """Collects steps into layers."""

    def __init__(self) -> None:
        self.layers: list[Layer] = []
        self.sites: list[Site] = []
        self._steps: list[_Walked] = []
        # Weight and bias of the layer that has begun.
        self._affine: tuple[Approximate, Approximate] | None = None
        self._connections = 0
        # Scale and shift of the units between the last ReLU and the next dense map.
        self._before: tuple[Approximate, Approximate] | None = None
        # Steps since the last that changed a value: they go with whichever layer comes next.
        self._idle: list[_Walked] = []

    def add(self, w: _Walked) -> None:
        """Takes the next step in."""
        match w.step:
            case Dense(weight=weight, bias=bias):
                self._dense(weight, bias)
                if w.step.rectified:
                    self._take(w)
                    self.close(relu=True)
                    return
            case Diagonal(scale=scale, shift=shift):
                self._diagonal(scale, shift)
            case Rectify():
                self._take(w)
                self.close(relu=True)
                return
            case _:
                self._idle.append(w)
                return
        self._take(w)

    def _take(self, w: _Walked) -> None:
        self._steps += [*self._idle, w]
        self._idle = []

    def _dense(self, weight: Approximate, bias: Approximate) -> None:
        if self._before is not None:
            scale, shift = self._before
            # W (s h + t) + b, and exactly b where nothing is shifted.
            bias = bias + weight @ shift if shift.value.any() or shift.error is not None else bias
            weight = weight * scale.reshaped(1, -1)
            self._before = None
        if self._affine is not None:
            first, constant = self._affine
            outputs, inputs = len(weight.value), first.value.shape[1]
            if outputs * inputs > weight.value.size + first.value.size:
                self.close(relu=False)
            else:
                self._connections += weight.value.size
                weight, bias = weight @ first, weight @ constant + bias
        if self._affine is None:
            self._connections = weight.value.size
        self._affine = weight, bias

    def _diagonal(self, scale: Approximate, shift: Approximate) -> None:
        if self._affine is not None:
            weight, bias = self._affine
            self._affine = weight * scale.reshaped(-1, 1), bias * scale + shift
        elif self._before is not None:
            self._before = (self._before[0] * scale, self._before[1] * scale + shift)
        else:
            self._before = (scale, shift)

    def close(self, relu: bool) -> None:
        """Ends the layer."""
        assert self._affine is not None
        steps = self._steps
        self.layers.append(Layer(_affine(*self._affine), relu))
        self.sites.append(
            Site(
                nodes=tuple(w.node for w in steps),
                input=steps[0].input,
                output=steps[-1].output,
                layout_in=steps[0].layout_in,
                layout_out=steps[-1].step.layout,
                dense=tuple(w.node for w in steps if isinstance(w.step, Dense)),
                relu=steps[-1].node if relu else None,
                connections=self._connections,
            )
        )
        self._affine, self._steps = None, []

    @property
    def open(self) -> bool:
        """Whether a layer has begun that is not closed."""
        return self._affine is not None


def _affine(weight: Approximate, bias: Approximate) -> Affine:
    try:
        return affine_of(weight, bias)
    except ValueError as error:
        raise ModelError(
            "the product of successive weights overflows; repair the weights first"
        ) from error


def _collected(walked: list[_Walked]) -> _Layers:
    collected = _Layers()
    for w in walked:
        collected.add(w)
    if collected.open:
        collected.close(relu=False)
    return collected


def _in_magnitudes(step: Step) -> Step:
    """The step with the absolute values of its numbers, and of what they were computed from."""
    match step:
        case Dense():
            return replace(step, weight=step.weight.magnitude, bias=step.bias.magnitude)
        case Diagonal():
            return Diagonal(step.scale.magnitude, step.shift.magnitude, step.layout)
        case _:
            return step


def _magnitudes(chain: Chain, walked: list[_Walked]) -> Chain | None:
    """The chain of magnitudes where layers have several numbers an entry and none overflows."""
    computing = sum(isinstance(w.step, Dense | Diagonal) for w in walked)
    if computing <= len(chain.layers):
        return None
    try:
        absolute = [replace(w, step=_in_magnitudes(w.step)) for w in walked]
        return Chain(tuple(_collected(absolute).layers))
    except ModelError:
        return None


def _located(index: Index, walked: list[_Walked]) -> LocatedChain | None:
    collected = _collected(walked)
    chain = Chain(tuple(collected.layers))
    dense = sum(len(site.dense) for site in collected.sites)
    if dense < 2 and chain.relu_units == 0:
        return None
    nodes = [index.nodes[w.node] for w in walked]
    names = tuple(node.name or node.output[0] for node in nodes)
    first = nodes[0]
    constants = filter(None, map(index.value, first.input[:2]))
    kinds = [c.values.dtype for c in constants if c.values.dtype in FLOATS.values()]
    label = names[0] if len(names) == 1 else f"{names[0]}..{names[-1]}"
    magnitudes = _magnitudes(chain, walked)
    return LocatedChain(label, chain, tuple(collected.sites), kinds[0], names, magnitudes)


def _uniquely_named(found: list[LocatedChain]) -> tuple[LocatedChain, ...]:
    counts = Counter(chain.name for chain in found)
    # Names of nodes may repeat; those of tensors do not.
    return tuple(
        chain if counts[chain.name] == 1 else replace(chain, name=f"{chain.name} -> {chain.output}")
        for chain in found
    )
