"""Intervals through Gemm, MatMul and Conv with constant weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from onnx_exact.graph.bounds import interval, sums
from onnx_exact.graph.bounds.context import Context
from onnx_exact.graph.bounds.interval import Interval
from onnx_exact.graph.bounds.room import fits_alone
from onnx_exact.graph.bounds.windows import Windows
from onnx_exact.network.affine import Array

# Above so many multiplications a convolution is bounded channel by channel instead of entry by
# entry: 2e9 are a few seconds.
LARGEST_CONVOLUTION = 2_000_000_000
# Roundings of a term beside its product and the sums: of the factors of Gemm and with them, or of a
# scale that a runtime has multiplied the weights by; and of weights that were computed.
FACTORS = 6


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
    alpha, beta = c.number("alpha", 1.0), c.number("beta", 1.0)
    if alpha == 0.0:
        return None
    added = c.inputs[2] if len(c.inputs) > 2 else None
    if added is not None and beta != 1.0:
        added = interval.multiply(added, interval.point(np.asarray(beta)))
    return _product(c, x, alpha * matrix, slot, added, max(1.0, 1.0 / abs(alpha)))


def matmul(c: Context) -> Interval | None:
    """A B with A or B constant."""
    x, matrix, slot = _sides(c)
    if x is None or matrix is None or x.rank == 0 or matrix.ndim == 0:
        return None
    return _product(c, x, matrix, slot)


def _sides(c: Context) -> tuple[Interval | None, Array | None, int]:
    """The variable, the constant, and which of the inputs the variable is."""
    slot = 0 if c.weights(1) is not None else 1
    return c.inputs[slot], c.weights(1 - slot), slot


def _product(
    c: Context,
    x: Interval,
    matrix: Array,
    slot: int,
    added: Interval | None = None,
    scale: float = 1.0,
) -> Interval | None:
    axis = -1 if slot == 0 or x.rank == 1 else -2
    along = -2 if slot == 0 and matrix.ndim > 1 else -1
    length = matrix.shape[along]
    if x.lower.shape[axis] not in (1, length):
        # A file that says what cannot be: no runtime runs it.
        return None

    def full(values: Array) -> Array:
        shape = list(values.shape)
        shape[axis] = length
        return np.broadcast_to(values, shape)

    def times(weight: Array, values: Array) -> Array:
        return np.asarray(values @ weight if slot == 0 else weight @ values)

    terms = int(np.count_nonzero(matrix, axis=along).max(initial=0))
    how = sums.Sum(c.kind, terms, FACTORS, scale)
    return sums.linear(times, matrix, x.mapped(full), how, added)


def conv(c: Context) -> Interval | None:
    """A convolution with constant weights, entry by entry where its sizes are known."""
    weight, shape = c.weights(1), c.shape()
    if weight is None or weight.ndim < 3 or shape is None or c.x.rank != weight.ndim:
        return None
    windows, group = Windows.of(c, weight.shape[2:]), c.integer("group", 1)
    if windows is None or group < 1 or weight.shape[0] % group:
        return None
    layer = _layer(c, weight, group)
    sizes = [dim.size for dim in shape[2:] if dim.static]
    placed = _placed(windows, sizes) if len(sizes) == weight.ndim - 2 else None
    if placed is not None and _by_entry(weight, placed):
        return _per_entry(c.x, layer, placed, (group * weight.shape[1], *sizes))
    return _per_channel(c.x, layer, windows.padded)


def _by_entry(weight: Array, placed: _Placed) -> bool:
    """Whether the bounds of every entry of a convolution are worth their time and memory."""
    positions = prod(placed.out)
    return positions * weight.size <= LARGEST_CONVOLUTION and fits_alone(positions * len(weight))


def conv_transpose(c: Context) -> Interval | None:
    """A transposed convolution with constant weights, channel by channel.

    Every weight meets at most one entry of each channel in every entry of the output.
    """
    weight, group = c.weights(1), c.integer("group", 1)
    if weight is None or weight.ndim < 3 or c.x.rank != weight.ndim:
        return None
    if group < 1 or len(weight) % group:
        return None
    parts = np.split(weight, group)
    turned = np.concatenate([np.swapaxes(part, 0, 1) for part in parts])
    return _per_channel(c.x, _layer(c, turned, group), padded=True)


def _layer(c: Context, weight: Array, group: int) -> _Layer:
    added = c.inputs[2] if len(c.inputs) > 2 else None
    if added is not None:
        along_channels = (1, -1, *[1] * (weight.ndim - 2))
        added = added.mapped(lambda v: v.reshape(along_channels))
    terms = int(np.count_nonzero(weight.reshape(len(weight), -1), axis=1).max(initial=0))
    return _Layer(weight, group, added, sums.Sum(c.kind, terms, FACTORS))


@dataclass(frozen=True, eq=False)
class _Layer:
    """Weights, the number of groups, the bias, and how sums are evaluated."""

    weight: Array
    group: int
    added: Interval | None
    how: sums.Sum


@dataclass(frozen=True)
class _Placed:
    """Windows on an image of known size: pads before and after, and sizes of the output."""

    windows: Windows
    before: Sequence[int]
    after: Sequence[int]
    out: tuple[int, ...]


def _placed(w: Windows, sizes: list[int]) -> _Placed | None:
    """None where no window fits."""
    before, after = w.before, w.after
    if w.auto_pad.startswith("SAME"):
        out = [-(-size // stride) for size, stride in zip(sizes, w.strides, strict=True)]
        total = [
            max((o - 1) * stride + e - size, 0)
            for o, stride, e, size in zip(out, w.strides, w.extent, sizes, strict=True)
        ]
        small, large = [t // 2 for t in total], [t - t // 2 for t in total]
        before, after = (small, large) if w.auto_pad == "SAME_UPPER" else (large, small)
    lengths = [s + b + a - e for s, b, a, e in zip(sizes, before, after, w.extent, strict=True)]
    if min(lengths) < 0:
        return None
    out_sizes = tuple(length // s + 1 for length, s in zip(lengths, w.strides, strict=True))
    return _Placed(w, before, after, out_sizes)


def _per_entry(x: Interval, layer: _Layer, placed: _Placed, entry: tuple[int, ...]) -> Interval:
    pads = [(0, 0), (0, 0), *zip(placed.before, placed.after, strict=True)]
    windows = placed.windows

    def times(w: Array, values: Array) -> Array:
        padded = np.pad(np.broadcast_to(values, (values.shape[0], *entry)), pads)
        total = np.zeros((values.shape[0], w.shape[0], *placed.out))
        for tap in np.ndindex(*windows.kernel):
            picks = tuple(
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(
                    tap, windows.dilations, placed.out, windows.strides, strict=True
                )
            )
            part = padded[(slice(None), slice(None), *picks)]
            total += _by_group(w[(slice(None), slice(None), *tap)], part, layer.group)
        return total

    return sums.linear(times, layer.weight, x, layer.how, layer.added)


def _by_group(matrix: Array, values: Array, group: int) -> Array:
    """Channels (batch, in, ...) -> (batch, out, ...) by a matrix (out, in of a group)."""
    batch, _, *sizes = values.shape
    blocks = matrix.reshape(group, -1, matrix.shape[1])
    columns = values.reshape(batch, group, matrix.shape[1], -1)
    return np.asarray(blocks @ columns).reshape(batch, matrix.shape[0], *sizes)


def _per_channel(x: Interval, layer: _Layer, padded: bool) -> Interval:
    weight = layer.weight
    axes = tuple(range(2, weight.ndim))
    x = x.hull(axes)
    if padded:
        x = Interval(np.minimum(x.lower, 0.0), np.maximum(x.upper, 0.0), x.overflows)
    channels = layer.group * weight.shape[1]

    def times(w: Array, values: Array) -> Array:
        full = np.broadcast_to(values, (values.shape[0], channels, *values.shape[2:]))
        return _by_group(w.sum(axis=axes), full, layer.group)

    return sums.linear(times, weight, x, layer.how, layer.added)
