"""Intervals through Gemm, MatMul and Conv with constant weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_exact.graph.bounds import interval
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.network.affine import Array

# Above so many multiplications a convolution is bounded channel by channel instead of entry by
# entry: 2e9 are a few seconds.
LARGEST_CONVOLUTION = 2_000_000_000


def gemm(c: Context) -> Interval | None:
    """alpha A' B' + beta C with A or B constant."""
    x, matrix, slot = _sides(c)
    if x is None or matrix is None or matrix.ndim != 2:
        return None
    if x.rank != 2:
        x = x.hull().mapped(lambda v: v.reshape(1, 1))
    if c.integer("transA" if slot == 0 else "transB", 0):
        x = x.mapped(np.transpose)
    if c.integer("transB" if slot == 0 else "transA", 0):
        matrix = matrix.T
    found = interval.multiply(
        _product(x, matrix, slot), interval.point(np.asarray(c.number("alpha", 1.0)))
    )
    if len(c.inputs) > 2 and c.inputs[2] is not None:
        beta = interval.point(np.asarray(c.number("beta", 1.0)))
        found = interval.add(found, interval.multiply(c.inputs[2], beta))
    return found


def matmul(c: Context) -> Interval | None:
    """A B with A or B constant."""
    x, matrix, slot = _sides(c)
    if x is None or matrix is None or x.rank == 0 or matrix.ndim == 0:
        return None
    return _product(x, matrix, slot)


def _sides(c: Context) -> tuple[Interval | None, Array | None, int]:
    """The variable, the constant, and which of the inputs the variable is."""
    slot = 0 if c.constant(1) is not None else 1
    return c.inputs[slot], c.constant(1 - slot), slot


def _product(x: Interval, matrix: Array, slot: int) -> Interval:
    axis = -1 if slot == 0 or x.rank == 1 else -2
    terms = matrix.shape[-2 if slot == 0 and matrix.ndim > 1 else -1]

    def full(values: Array) -> Array:
        shape = list(values.shape)
        shape[axis] = terms
        return np.broadcast_to(values, shape)

    def times(weight: Array, values: Array) -> Array:
        return np.asarray(values @ weight if slot == 0 else weight @ values)

    return interval.linear(times, matrix, x.mapped(full), terms)


@dataclass(frozen=True)
class _Geometry:
    """Of a convolution: kernel, strides, dilations, pads before and after, sizes of the output."""

    kernel: tuple[int, ...]
    strides: Sequence[int]
    dilations: Sequence[int]
    before: Sequence[int]
    after: Sequence[int]
    out: tuple[int, ...]


def conv(c: Context) -> Interval | None:
    """A convolution with constant weights, entry by entry where its sizes are known."""
    weight, shape = c.constant(1), c.shape()
    if weight is None or weight.ndim < 3 or shape is None or c.x.rank != weight.ndim:
        return None
    group = c.integer("group", 1)
    sizes = [dim.size for dim in shape[2:] if dim.static]
    geometry = _geometry(c, weight.shape[2:], sizes) if len(sizes) == weight.ndim - 2 else None
    channels = group * weight.shape[1]
    if geometry is not None and prod(geometry.out) * weight.size <= LARGEST_CONVOLUTION:
        found = _per_entry(c.x, weight, group, geometry, (channels, *sizes))
    else:
        found = _per_channel(c, weight, group, channels)
    if len(c.inputs) > 2 and c.inputs[2] is not None:
        along_channels = (1, -1, *[1] * (weight.ndim - 2))
        bias = c.inputs[2].mapped(lambda v: v.reshape(along_channels))
        found = interval.add(found, bias)
    return found


def _geometry(c: Context, kernel: tuple[int, ...], sizes: list[int]) -> _Geometry | None:
    n = len(kernel)
    strides, dilations = c.integers("strides") or [1] * n, c.integers("dilations") or [1] * n
    extent = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = c.integers("pads") or [0] * (2 * n)
    before, after = pads[:n], pads[n:]
    mode = c.text("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        out = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
        total = [
            max((o - 1) * stride + e - size, 0)
            for o, stride, e, size in zip(out, strides, extent, sizes, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (small, large) if mode == "SAME_UPPER" else (large, small)
    elif mode == "VALID":
        before, after = [0] * n, [0] * n
    elif mode != "NOTSET":
        return None
    lengths = [s + b + a - e for s, b, a, e in zip(sizes, before, after, extent, strict=True)]
    if min(*lengths, *before, *after) < 0:
        return None
    out_sizes = tuple(length // s + 1 for length, s in zip(lengths, strides, strict=True))
    return _Geometry(kernel, strides, dilations, before, after, out_sizes)


def _per_entry(
    x: Interval, weight: Array, group: int, g: _Geometry, entry: tuple[int, ...]
) -> Interval:
    pads = [(0, 0), (0, 0), *zip(g.before, g.after, strict=True)]

    def times(w: Array, values: Array) -> Array:
        padded = np.pad(np.broadcast_to(values, (values.shape[0], *entry)), pads)
        total = np.zeros((values.shape[0], w.shape[0], *g.out))
        for tap in np.ndindex(*g.kernel):
            picks = tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, g.dilations, g.out, g.strides, strict=True)
            )
            part = padded[(slice(None), slice(None), *picks)]
            total += _by_group(w[(slice(None), slice(None), *tap)], part, group)
        return total

    return interval.linear(times, weight, x, weight[0].size + 1)


def _by_group(matrix: Array, values: Array, group: int) -> Array:
    """Channels (batch, in, ...) -> (batch, out, ...) by a matrix (out, in of a group)."""
    batch, _, *sizes = values.shape
    blocks = matrix.reshape(group, -1, matrix.shape[1])
    columns = values.reshape(batch, group, matrix.shape[1], -1)
    return np.asarray(blocks @ columns).reshape(batch, matrix.shape[0], *sizes)


def _per_channel(c: Context, weight: Array, group: int, channels: int) -> Interval:
    axes = tuple(range(2, weight.ndim))
    x = c.x.hull(axes)
    padded = any(c.integers("pads") or []) or c.text("auto_pad", "NOTSET").startswith("SAME")
    if padded:
        x = Interval(np.minimum(x.lower, 0.0), np.maximum(x.upper, 0.0))

    def times(w: Array, values: Array) -> Array:
        full = np.broadcast_to(values, (values.shape[0], channels, *values.shape[2:]))
        return _by_group(w.sum(axis=axes), full, group)

    return interval.linear(times, weight, x, weight[0].size + 1)
