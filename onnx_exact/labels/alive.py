"""Which labels stay: those that are alive, in whole slices along one axis, in whole blocks."""

from __future__ import annotations

import numpy as np

from onnx_exact.labels.labelling import PINNED, Flags, Labelling
from onnx_exact.labels.move import Labels

# The least block of channels of onnxruntime, and what the inputs of a convolution are a multiple of
# from there on: see `python -m benchmarks.blocks`.
BLOCK, INPUTS = 8, 4


def kept_labels(labelling: Labelling, align: int | None) -> Flags:
    """Which labels stay, shape (labels,).

    Args:
        labelling: of a graph.
        align: what the channels of a convolution are a multiple of, where there are as many; None
            for what onnxruntime is fast with.
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


def _blocks(labelling: Labelling, alive: Flags, align: int | None) -> Labels | None:
    """Labels that stay to fill the last block of a convolution's channels; None: no block lacks."""
    # Labels, what their number is to be a multiple of, and from which number on.
    if align is None:
        wanted = [
            (labels, BLOCK, 0) if whole else (labels, INPUTS, BLOCK)
            for labels, whole in labelling.blocks
        ]
    else:
        reads = (read for read in labelling.reads if read.convolves)
        wanted = [(labels, align, 0) for read in reads for labels in (read.outputs, read.inputs)]
    for labels, multiple, least in wanted:
        gone = labels[~alive[labels]]
        stay = labels.size - gone.size
        if gone.size and stay % multiple and stay >= least:
            return gone[:1]
    return None
