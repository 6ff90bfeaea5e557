"""Random graphs of the operators a chain takes in, of barriers, branches and layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_exact.graph import Ranges, locate_chains
from onnx_exact.network import Box
from tests.graph.build import BATCH, Builder, assert_close, check_model, features, feed_for, run

Draw = st.DrawFn
# Each axis: its size, and whether that is only known when the model runs.
Axes = tuple[tuple[int, bool], ...]
LARGEST_RANK = 4


@dataclass(frozen=True)
class Tensor:
    name: str
    axes: Axes

    @property
    def rank(self) -> int:
        return len(self.axes)

    def known(self, axis: int) -> bool:
        return not self.axes[axis][1]

    def size(self, axis: int) -> int:
        return self.axes[axis][0]

    def with_axis(self, name: str, axis: int, size: int) -> Tensor:
        axes = list(self.axes)
        axes[axis] = (size, False)
        return Tensor(name, tuple(axes))


def merged(axes: Axes) -> tuple[int, bool]:
    return int(np.prod([size for size, _ in axes])), any(symbolic for _, symbolic in axes)


def matrix(b: Builder, *shape: int) -> str:
    # About as large at the end of a layer as at its start.
    values = b.rng.normal(size=shape) / np.sqrt(max(shape))
    return b.constant(values.astype(b.dtype))


def row(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    n_out = draw(st.integers(1, 5))
    y = b.node("MatMul", t.name, matrix(b, t.size(-1), n_out))
    return t.with_axis(y, -1, n_out)


def column(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    n_out = draw(st.integers(1, 5))
    y = b.node("MatMul", matrix(b, n_out, t.size(-2)), t.name)
    return t.with_axis(y, -2, n_out)


def gemm(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    n_out, left = draw(st.integers(1, 5)), draw(st.booleans())
    inner = draw(st.sampled_from([axis for axis in (0, 1) if t.known(axis)]))
    flip = draw(st.booleans())
    n_in, other = t.size(inner), t.axes[1 - inner]
    if left:
        w = matrix(b, n_in, n_out) if flip else matrix(b, n_out, n_in)
        bias = [b.weight(n_out, 1)] if draw(st.booleans()) else []
        y = b.node("Gemm", w, t.name, *bias, transA=int(flip), transB=int(inner == 1), alpha=0.5)
        return Tensor(y, ((n_out, False), other))
    w = matrix(b, n_out, n_in) if flip else matrix(b, n_in, n_out)
    bias = [b.weight(*draw(st.sampled_from([(n_out,), (1,), ()])))] if draw(st.booleans()) else []
    y = b.node("Gemm", t.name, w, *bias, transA=int(inner == 0), transB=int(flip), beta=0.5)
    return Tensor(y, (other, (n_out, False)))


def per_entry(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    rank = draw(st.integers(0, t.rank))
    axes = t.axes[t.rank - rank :]
    shape = [1 if symbolic or draw(st.booleans()) else size for size, symbolic in axes]
    op = draw(st.sampled_from(["Add", "Sub", "Mul", "Div"]))
    inputs = [t.name, b.positive(*shape)]
    if op != "Div" and draw(st.booleans()):
        inputs.reverse()
    return Tensor(b.node(op, *inputs), t.axes)


def normalisation(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    n = t.size(1)
    constants = [b.positive(n), b.weight(n), b.weight(n), b.positive(n)]
    return Tensor(b.node("BatchNormalization", t.name, *constants), t.axes)


def unary(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    op = draw(st.sampled_from(["Relu", "Relu", "Relu", "Identity", "Dropout", "Sigmoid"]))
    return Tensor(b.node(op, t.name), t.axes)


def flatten(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    axis = draw(st.integers(0, t.rank))
    y = b.node("Flatten", t.name, axis=axis)
    return Tensor(y, (merged(t.axes[:axis]), merged(t.axes[axis:])))


def unsqueeze(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    axis = draw(st.integers(0, t.rank))
    y = b.node("Unsqueeze", t.name, b.ints(axis))
    return Tensor(y, (*t.axes[:axis], (1, False), *t.axes[axis:]))


def squeeze(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    axis = t.axes.index((1, False))
    y = b.node("Squeeze", t.name, b.ints(axis))
    return Tensor(y, (*t.axes[:axis], *t.axes[axis + 1 :]))


def split_axis(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    """Reshape of one even axis into two."""
    axis = next(i for i in range(t.rank) if t.known(i) and t.size(i) % 2 == 0)
    after = (*t.axes[:axis], (2, False), (t.size(axis) // 2, False), *t.axes[axis + 1 :])
    return Tensor(b.node("Reshape", t.name, target(b, after)), after)


def merge_axes(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    """Reshape of two neighbouring axes into one."""
    axis = draw(st.integers(0, t.rank - 2))
    after = (*t.axes[:axis], merged(t.axes[axis : axis + 2]), *t.axes[axis + 2 :])
    return Tensor(b.node("Reshape", t.name, target(b, after)), after)


def target(b: Builder, axes: Axes) -> str:
    return b.ints(*[-1 if symbolic else size for size, symbolic in axes])


def layer(draw: Draw, b: Builder, t: Tensor) -> Tensor:
    """A matrix, perhaps something per unit, mostly a Relu, perhaps other axes."""
    t = draw(st.sampled_from(dense_steps(t)))(draw, b, t)
    for optional in (per_entry, split_axis if has_even_axis(t) else unsqueeze):
        if t.rank < LARGEST_RANK and draw(st.integers(0, 2)) == 0:
            t = optional(draw, b, t)
    return Tensor(b.relu(t.name), t.axes) if draw(st.integers(0, 5)) else t


def dense_steps(t: Tensor) -> list[Step]:
    found: list[Step] = [row, row] if t.known(-1) else []
    if t.rank > 1 and t.known(-2):
        found.append(column)
    if t.rank == 2 and (t.known(0) or t.known(1)):
        found += [gemm, gemm, gemm]
    return found


def has_even_axis(t: Tensor) -> bool:
    return any(t.known(i) and t.size(i) % 2 == 0 for i in range(t.rank))


def steps(t: Tensor) -> list[Step]:
    found: list[Step] = [unary, per_entry, flatten]
    if dense_steps(t):
        found += [layer] * 12
    if t.rank > 1 and t.known(1):
        found.append(normalisation)
    if t.rank < LARGEST_RANK:
        found.append(unsqueeze)
        if has_even_axis(t):
            found.append(split_axis)
    if t.rank > 1:
        found.append(merge_axes)
        if (1, False) in t.axes:
            found.append(squeeze)
    return found


Step = Callable[[Draw, Builder, Tensor], Tensor]
INPUTS: list[Axes] = [
    ((BATCH, True), (6, False)),
    ((6, False), (BATCH, True)),
    ((2, False), (4, False)),
    ((BATCH, True), (2, False), (4, False)),
    ((1, False), (6, False), (BATCH, True)),
]


@st.composite
def models(draw: Draw) -> onnx.ModelProto:
    b = Builder(seed=draw(st.integers(0, 1000)), dtype=np.float64)
    axes = draw(st.sampled_from(INPUTS))
    tensors = [Tensor("x", axes)]
    for _ in range(draw(st.integers(2, 8))):
        # Mostly one after another, now and then a branch.
        back = draw(st.sampled_from([0] * 12 + [1, 2]))
        t = tensors[max(0, len(tensors) - 1 - back)]
        step = draw(st.sampled_from(steps(t)))
        tensors.append(step(draw, b, t))
    read = {name for node in b.nodes for name in node.input}
    ends = [t.name for t in tensors[1:] if t.name not in read]
    extra = draw(st.lists(st.sampled_from([t.name for t in tensors[1:]]), max_size=1))
    shape = ["batch" if symbolic else size for size, symbolic in axes]
    model = b.model(list(dict.fromkeys(ends + extra)), {"x": shape})
    if draw(st.booleans()):
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph.value_info
        model.graph.value_info.extend(inferred)
    return model


@settings(max_examples=150)
@given(models())
def test_random_graph_is_read_rebuilt_and_bounded(model: onnx.ModelProto) -> None:
    found = check_model(model, count=None)
    feed = feed_for(model, seed=3)
    low, high = float(feed["x"].min()), float(feed["x"].max())
    rank = (1,) * feed["x"].ndim
    ranges = Ranges(model, {"x": Box(np.full(rank, low), np.full(rank, high))})
    for located in found:
        domain = ranges.chain_domain(located)
        (value,) = run(model, feed, [located.input])
        points = features(value, located.sites[0].layout_in)
        slack = 1e-9 * max(1.0, np.abs(points).max())
        assert (points >= domain.box.lower - slack).all()
        assert (points <= domain.box.upper + slack).all()
        if domain.origin is not None and domain.origin.batched:
            origin = domain.origin
            sample = origin.to_graph(points[:1])
            if sample.shape[1:] == feed["x"].shape[1:]:
                batch = np.repeat(sample, len(feed["x"]), axis=0)
                (again,) = run(model, {"x": batch}, [located.input])
                image = features(again, located.sites[0].layout_in)
                assert_close(image, np.broadcast_to(points[:1], image.shape), np.float32)


def test_random_graphs_hold_chains_of_every_kind() -> None:
    """The strategy is not vacuous: it makes long chains, columns and several chains at once."""
    seen = {"long": 0, "column": 0, "several": 0, "regrouped": 0}

    @settings(max_examples=150, database=None)
    @given(models())
    def look(model: onnx.ModelProto) -> None:
        found = locate_chains(model)
        sites = [site for located in found for site in located.sites]
        seen["long"] += any(len(located.sites) > 2 for located in found)
        seen["column"] += any(site.layout_in.is_column for site in sites)
        seen["several"] += len(found) > 1
        seen["regrouped"] += any(len(site.layout_out.features) > 1 for site in sites)

    look()
    assert all(count > 3 for count in seen.values()), seen
