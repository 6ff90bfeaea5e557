"""Which labels stand for values that do not depend on the inputs of the graph, 0 among them."""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from onnx_exact.labels.constants import known
from onnx_exact.labels.labelling import Flags, Labelling
from onnx_exact.labels.move import MOVES, Labels, run_on


def pass_steady(found: Labelling, node: NodeProto, labelled: dict[str, Labels]) -> None:
    """What is made of values that do not depend on the inputs does not either."""
    if not labelled or node.output[0] in found.steady:
        return
    read = [name for name in node.input if name and not found.index.is_constant(name)]
    flags = [found.steady.get(name) for name in read]
    if any(f is None for f in flags):
        return
    if node.op_type in MOVES:
        shapes = [found.shape(name) for name in read]
        spread = [
            np.broadcast_to(f, s) for f, s in zip(flags, shapes, strict=True) if s and f is not None
        ]
        made = run_on(found.index, node, [np.asarray(f, np.int64) for f in spread]) or {}
    else:
        labels = labelled[node.output[0]]
        rank = labels.ndim
        parts = [
            f.reshape((1,) * (rank - f.ndim) + f.shape)
            if f.ndim <= rank
            else f.reshape(labels.shape)
            for f in flags
            if f is not None
        ]
        whole = np.logical_and.reduce(np.broadcast_arrays(*parts))
        made = {node.output[0]: whole.astype(np.int64)}
    for name, array in made.items():
        if name in labelled:
            found.steady[name] = over(array != 0, labelled[name])


def over(flags: Flags, labels: Labels) -> Flags:
    """Whether all entries with a label have a flag, along the axes of a label array."""
    if flags.ndim != labels.ndim:
        return np.full(labels.shape, bool(flags.all()))
    for axis, size in enumerate(labels.shape):
        if size == 1:
            flags = np.asarray(flags.all(axis=axis, keepdims=True))
    fits = all(a in (1, b) for a, b in zip(flags.shape, labels.shape, strict=True))
    return np.array(np.broadcast_to(flags, labels.shape)) if fits else np.zeros(labels.shape, bool)


def steady_labels(found: Labelling, tensor: str, labels: Labels) -> Flags:
    """Which labels of a tensor stand for constants whose values are known."""
    flags = found.steady.get(tensor)
    zero = always_zero(found, tensor, labels)
    if flags is None or flags.shape != labels.shape or not flags.any():
        return zero
    return zero | (flags & over(~np.isnan(known(found.bounds(tensor))), labels))


def always_zero(found: Labelling, tensor: str, labels: Labels) -> Flags:
    """Which entries along the axes of a label array are always 0."""
    box = found.bounds(tensor)
    zero = (box.lower == 0.0) & (box.upper == 0.0)
    return over(zero, labels)
