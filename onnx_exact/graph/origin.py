"""The way back from the features of a chain to an input of the graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnx_exact.graph.index import Index
from onnx_exact.graph.layout import Layout, is_static, product
from onnx_exact.graph.ops import Diagonal, Regroup, read_step
from onnx_exact.network import Box
from onnx_exact.network.affine import Array, frozen


@dataclass(frozen=True, eq=False)
class Origin:
    """A chain's input as the image x_chain = scale * x_graph + shift of one graph input.

    Attributes:
        input: name of the graph input.
        scale: shape (n,), nowhere zero.
        shift: shape (n,).
        sample_shape: shape of one point: the input's without its batch axis. Other leading axes
            repeat the point; those of unknown size are taken as 1.
        batched: whether the first axis of the input is a batch axis, so that points are fed as
            (k, *sample_shape); else each point is fed by itself, as an array of sample_shape.
        repeats: how often the point is repeated along the leading axes behind the first.
        box: of the graph input, None where it has none.
    """

    input: str
    scale: Array
    shift: Array
    sample_shape: tuple[int, ...]
    batched: bool
    repeats: int = 1
    box: Box | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", frozen(self.scale))
        object.__setattr__(self, "shift", frozen(self.shift))

    def to_graph(self, points: Array) -> Array:
        """Points of the chain's input, shape (k, n), as points of the graph's, float64.

        Returns:
            shape (k, *sample_shape), in the box of the graph input at every place of its batch: the
            nearest points there. None at all where no point lies in all of these.
        """
        values = (np.asarray(points, dtype=np.float64) - self.shift) / self.scale
        repeated = np.repeat(values[:, None, :], self.repeats, axis=1)
        samples = repeated.reshape(len(values), *self.sample_shape)
        if self.box is None:
            return samples
        low, high = self.box.lower, self.box.upper
        if self.batched:
            # At which place of a batch a point is fed cannot be told here.
            low, high = low.max(axis=0, keepdims=True), high.min(axis=0, keepdims=True)
        if (low > high).any():
            return samples[:0]
        return np.clip(samples, low, high)

    def to_chain(self, samples: Array) -> Array:
        """Points of the graph's input, shape (k, *sample_shape), as points of the chain's (k', n).

        Every position of the leading axes is a point of its own.
        """
        rows = np.asarray(samples, dtype=np.float64).reshape(-1, self.scale.size)
        return rows * self.scale + self.shift


def trace(index: Index, tensor: str, layout: Layout, inputs: set[str]) -> Origin | None:
    """The origin of a tensor of that layout; None where it has none.

    Between the graph input and the tensor there may be what only regroups the features, and
    constants that act on each entry by itself with a scale that is nowhere zero.
    """
    if layout.is_column:
        return None
    path: list[int] = []
    name = tensor
    while name not in inputs:
        position = index.producer.get(name)
        if position is None:
            return None
        node = index.nodes[position]
        # What shape a Reshape gives is read again, where the sizes are known.
        read = node.input[:1] if node.op_type == "Reshape" else node.input
        variable = [n for n in read if n and not index.is_constant(n)]
        if len(variable) != 1:
            return None
        path.append(position)
        name = variable[0]
    shape = index.shape(name)
    if shape is None:
        return None
    # With the batch axis first where there is one.
    for start in [*range(1, len(shape) + 1), 0]:
        if not is_static(shape[start:]) or product(shape[start:]).size != layout.width:
            continue
        found = _along(index, name, Layout(shape, start, len(shape)), path[::-1], layout)
        if found is not None:
            return found
    return None


def _along(
    index: Index, name: str, start: Layout, path: list[int], target: Layout
) -> Origin | None:
    scale, shift = np.ones(start.width), np.zeros(start.width)
    tensor, layout = name, start
    for position in path:
        node = index.nodes[position]
        step = read_step(index, node, tensor, layout)
        match step:
            case Diagonal():
                by = step.scale.value
                scale, shift = scale * by, shift * by + step.shift.value
            case Regroup():
                pass
            case _:
                return None
        tensor, layout = node.output[0], step.layout
    same = product(layout.lead) == product(target.lead) and layout.width == target.width
    if not same or layout.shape != target.shape or not (scale != 0.0).all():
        return None
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    between = [dim.size if dim.static else 1 for dim in start.lead[1:]]
    features = [dim.size for dim in start.features]
    sample_shape = (*between, *features)
    repeats = int(np.prod(between))
    return Origin(name, scale, shift, sample_shape, start.start > 0, repeats)
