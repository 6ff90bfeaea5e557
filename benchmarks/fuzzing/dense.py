"""Dense layers in all spellings, with units that are dead, always on, proportional or unread."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.fuzzing.tensors import Array, Graph, Tensor

# Values of about this size are what every operator is made for.
REACH = 4.0
# A stored weight and its bias, with the numbers of inputs and units.
Shared = tuple[str, str, int, int]


def weights(g: Graph, n_in: int, n_out: int, reach: float) -> tuple[Array, Array]:
    """A random layer: of its units some are dead, some always on, some copies or idle."""
    rng = g.rng
    w = rng.normal(0.0, n_in**-0.5, (n_out, n_in))
    if g.chance(0.3):
        w *= rng.random(w.shape) < 0.5
    b = rng.normal(0.0, 0.2, n_out)
    for i in range(n_out):
        most = 1.05 * reach * np.abs(w[i]).sum() + 0.1
        kind = rng.random()
        if kind < 0.25:
            b[i] = -most
        elif kind < 0.45:
            b[i] = most
        elif kind < 0.52 and i:
            factor = float(2.0 ** rng.integers(-2, 3))
            w[i], b[i] = factor * w[i - 1], factor * b[i - 1]
        elif kind < 0.56 and i:
            w[i], b[i] = -w[i - 1], -b[i - 1]
        elif kind < 0.6:
            w[i] = 0.0
    if g.chance(0.3):
        w[:, rng.random(n_in) < 0.2] = 0.0
    return w, b


def dense(g: Graph, x: Tensor, n_out: int, shared: list[Shared]) -> Tensor:
    """One affine map along the last axis, in one of its spellings."""
    n_in = x.shape[-1]
    assert n_in is not None
    w, b = weights(g, n_in, n_out, x.reach)
    after = replace(x, shape=(*x.shape[:-1], n_out), exact=False, reach=min(REACH, 2 * x.reach))
    spelling = g.rng.random()
    if x.rank == 2 and spelling < 0.55:
        return _gemm(g, x, after, w, b, shared)
    if x.rank == 2 and x.is_batched and spelling < 0.65:
        return _from_the_left(g, x, after, w, b)
    matrix = w.T
    if x.rank > 2 and g.chance(0.2):
        matrix = matrix[None]
    product = g.make("MatMul", [x.name, g.constant(matrix, x.dtype)], after)
    if g.chance(0.15):
        return product
    bias = b[(None,) * int(g.rng.integers(0, x.rank))]
    pair = [product.name, g.constant(bias, x.dtype, "b")]
    op = "Sub" if g.chance(0.1) else "Add"
    return g.make(op, pair[:: g.one_of((1, -1))] if op == "Add" else pair, after)


def _gemm(
    g: Graph,
    x: Tensor,
    after: Tensor,
    w: Array,
    b: Array,
    shared: list[Shared],
) -> Tensor:
    same = [s for s in shared if s[2:] == w.shape[::-1]]
    if same and g.chance(0.5):
        name, bias, _, _ = g.one_of(same)
        return g.make("Gemm", [x.name, name, bias], after, transB=1)
    attributes: dict[str, Any] = {}
    if g.chance(0.2):
        attributes["alpha"] = float(g.one_of((0.5, 1.0, -1.0, 0.3)))
    if g.chance(0.2):
        attributes["beta"] = float(g.one_of((0.0, 0.5, 1.0, 2.0)))
    transposed = g.chance(0.6)
    name = g.constant(w if transposed else w.T, x.dtype)
    if transposed:
        attributes["transB"] = 1
    inputs = [x.name, name]
    if g.chance(0.85):
        inputs.append(g.constant(b[None] if g.chance(0.2) else b, x.dtype, "b"))
        if set(attributes) == {"transB"}:
            shared.append((name, inputs[2], w.shape[1], w.shape[0]))
    return g.make("Gemm", inputs, after, **attributes)


def _from_the_left(g: Graph, x: Tensor, after: Tensor, w: Array, b: Array) -> Tensor:
    """W x in columns, and back."""
    turned = g.make("Transpose", [x.name], x, perm=[1, 0])
    product = g.make("MatMul", [g.constant(w, x.dtype), turned.name], after)
    added = g.make("Add", [product.name, g.constant(b[:, None], x.dtype, "b")], after)
    kept = g.make("Relu", [added.name], after) if g.chance(0.4) else added
    return g.make("Transpose", [kept.name], after, perm=[1, 0])


def columns(g: Graph, x: Tensor) -> Tensor | None:
    """One or two affine maps along the last axis but one."""
    if not x.is_float or x.rank < 2 or x.shape[-2] is None:
        return None
    for _ in range(int(g.rng.integers(1, 3))):
        n_out = int(g.rng.integers(1, 6))
        w, b = weights(g, x.shape[-2] or 1, n_out, x.reach)
        shape = (*x.shape[:-2], n_out, x.shape[-1])
        x = replace(x, shape=shape, exact=False, reach=min(REACH, 2 * x.reach))
        x = g.make("MatMul", [g.constant(w, x.dtype), x.name], x)
        if g.chance(0.7):
            x = g.make("Add", [x.name, g.constant(b[:, None], x.dtype, "b")], x)
        if g.chance(0.8):
            x = g.make("Relu", [x.name], x)
    return x


def between(g: Graph, x: Tensor) -> Tensor:
    """What may stand between an affine map and its ReLU, or behind it, without ending a chain."""
    kind = g.rng.random()
    width = x.shape[-1]
    if kind < 0.08:
        return g.make("Dropout", [x.name], x)
    if kind < 0.16:
        return g.make("Identity", [x.name], x)
    if kind < 0.24 and width is not None:
        scale = g.rng.choice([0.5, 1.0, 2.0, -1.0], width)
        return g.make(g.one_of(("Mul", "Div")), [x.name, g.constant(scale, x.dtype)], x)
    if kind < 0.32 and width is not None and x.rank == 2:
        numbers = [g.rng.uniform(0.5, 1.5, width), g.rng.normal(0, 0.2, width)]
        numbers += [g.rng.normal(0, 0.2, width), g.rng.uniform(0.5, 1.5, width)]
        names = [g.constant(v, x.dtype, "bn") for v in numbers]
        return g.make("BatchNormalization", [x.name, *names], x)
    if kind < 0.38 and x.rank == 2 and x.shape[0] is None:
        longer = g.with_axes("Unsqueeze", x.name, [1], 13)
        return replace(x, name=g.with_axes("Squeeze", longer, [1], 13))
    return x


def network(g: Graph, x: Tensor, shared: list[Shared]) -> Tensor:
    """A few layers one behind the other."""
    if x.rank > 2 and x.is_batched and g.chance(0.5):
        size = int(np.prod([s for s in x.shape[1:] if s is not None]))
        x = replace(x, name=g.add("Flatten", [x.name])[0], shape=(None, size))
    for _ in range(int(g.rng.integers(1, 4))):
        x = between(g, dense(g, x, int(g.rng.integers(1, 9)), shared))
        if g.chance(0.85):
            x = between(g, replace(g.make("Relu", [x.name], x)))
    if g.chance(0.6):
        x = dense(g, x, int(g.rng.integers(1, 5)), shared)
    return x
