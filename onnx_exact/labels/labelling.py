"""The labels of the tensors of a graph as they are found, and who reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from onnx_exact.graph.index import Index
from onnx_exact.labels.move import Labels
from onnx_exact.network import Box

Flags = NDArray[np.bool_]
PINNED = 0


@dataclass(frozen=True, eq=False)
class Read:
    """What a node with weights reads: `through[o, i]` says whether output o depends on input i.

    `convolves`: of a convolution.
    """

    outputs: Labels
    inputs: Labels
    through: Flags
    convolves: bool


@dataclass(eq=False)
class Labelling:
    """Labels of the tensors of a graph.

    Attributes:
        index: of the graph.
        bounds: on each tensor, over the domain.
        exact: the same in real arithmetic, as far as that is known.
        constants: whether channels that are constant and not 0 may go.
        of: labels by tensor, with the tensor's rank, and size 1 along axes of which all entries
            have the same labels.
        steady: by tensor, which labels stand for values that do not depend on the graph's inputs;
            of the shape of its labels.
        reads: of the nodes with weights.
        blocks: the labels of channels that onnxruntime lays out in blocks, and whether in whole
            ones alone.
        parent: the label that a label is one with.
        met: the same, without what stays for a reason of its own.
        held: labels that stay for such a reason, and the reason.
        moved: in the last graph written, how far readers of constants that went may be off, by
            what they make.
    """

    index: Index
    bounds: Callable[[str], Box]
    exact: Callable[[str], Box]
    constants: bool = True
    of: dict[str, Labels] = field(default_factory=dict)
    steady: dict[str, Flags] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    blocks: list[tuple[Labels, bool]] = field(default_factory=list)
    parent: list[int] = field(default_factory=lambda: [PINNED])
    met: list[int] = field(default_factory=lambda: [PINNED])
    held: list[tuple[Labels, str]] = field(default_factory=list)
    moved: dict[str, float] = field(default_factory=dict)

    def fresh(self, count: int) -> Labels:
        """New labels."""
        first = len(self.parent)
        for parent in (self.parent, self.met):
            parent.extend(range(first, first + count))
        return np.arange(first, first + count)

    def root(self, label: int) -> int:
        """What stands for a label."""
        return _root(self.parent, label)

    def class_of(self, labels: Labels) -> Labels:
        """What stands for labels that meet, whether they stay or not; in line."""
        return np.array([_root(self.met, label) for label in labels.reshape(-1).tolist()])

    def roots(self) -> Labels:
        """What stands for each label."""
        return np.array([self.root(label) for label in range(len(self.parent))])

    def join(self, first: Labels, second: Labels) -> None:
        """Makes labels one, pair by pair; PINNED stands for what is one with it."""
        for a, b in {*zip(first.reshape(-1).tolist(), second.reshape(-1).tolist(), strict=True)}:
            self._unite(self.parent, a, b)
            if PINNED in (a, b):
                self.held.append((np.array([a, b]), "they meet what stays"))
            else:
                self._unite(self.met, a, b)

    def pin(self, labels: Labels, why: str) -> None:
        """Labels that stay, and why."""
        self.held.append((labels, why))
        for label in {*labels.reshape(-1).tolist()}:
            self._unite(self.parent, label, PINNED)

    @staticmethod
    def _unite(parent: list[int], a: int, b: int) -> None:
        low, high = sorted((_root(parent, a), _root(parent, b)))
        parent[high] = low

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """The sizes of a tensor, 1 along a first axis that is not known; None: other unknowns."""
        dims = self.index.shape(tensor)
        if dims is None or not all(dim.static for dim in dims[1:]):
            return None
        return tuple(dim.size if dim.static else 1 for dim in dims)

    def rank(self, tensor: str) -> int | None:
        """The number of axes."""
        dims = self.index.shape(tensor)
        return None if dims is None else len(dims)


def _root(parent: list[int], label: int) -> int:
    while parent[label] != label:
        parent[label] = parent[parent[label]]
        label = parent[label]
    return label
