"""Which labels stay: those that are alive, in whole slices along one axis, in whole blocks."""

from __future__ import annotations

import numpy as np

from onnx_exact.labels.labelling import PINNED, Flags, Labelling
from onnx_exact.labels.move import Labels


def kept_labels(labelling: Labelling, align: int) -> Flags:
    """Which labels stay, shape (labels,).

    Args:
        labelling: of a graph.
        align: what the channels of a convolution are a multiple of, where there are as many.
    """
    while True:
        alive = _alive(labelling)
        wanted = _whole(labelling, alive)
        if wanted is None:
            wanted = _blocks(labelling, alive, align)
        if wanted is None:
            return alive
        labelling.pin(wanted, "a tensor would lose other than whole slices, or a block of channels")


def _alive(labelling: Labelling) -> Flags:
    """What is PINNED, and what is read into what is alive."""
    roots = labelling.roots()
    alive = np.zeros(len(roots), dtype=bool)
    alive[PINNED] = True
    edges = [(roots[read.outputs], roots[read.inputs], read.through) for read in labelling.reads]
    changed = True
    while changed:
        changed = False
        for outputs, inputs, through in edges:
            found = inputs[through[alive[outputs]].any(axis=0)]
            if not alive[found].all():
                alive[found] = changed = True
    return alive[roots]


def _whole(labelling: Labelling, alive: Flags) -> Labels | None:
    """Labels that have to stay since a tensor would lose other than whole slices; None: none."""
    for labels in labelling.of.values():
        gone = ~alive[labels]
        if not gone.any():
            continue
        if gone.all():
            # No tensor loses all its channels.
            return labels.reshape(-1)[:1]
        if not any(_is_sliced(gone, axis) for axis in range(gone.ndim)):
            return np.asarray(labels[gone])
    return None


def _is_sliced(gone: Flags, axis: int) -> bool:
    others = tuple(other for other in range(gone.ndim) if other != axis)
    return bool((gone == gone.all(axis=others, keepdims=True)).all())


def _blocks(labelling: Labelling, alive: Flags, align: int) -> Labels | None:
    """Labels that stay to fill the last block of a convolution's channels; None: no block lacks."""
    if align == 1:
        return None
    for read in labelling.reads:
        for labels in (read.outputs, read.inputs):
            gone = labels[~alive[labels]]
            lacking = -(labels.size - gone.size) % align
            if read.convolves and gone.size and lacking:
                return gone[:1]
    return None
