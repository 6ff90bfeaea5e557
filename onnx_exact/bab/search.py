"""The loop of branch and bound: nodes are taken depth first, bounded, and closed or split.

Searches differ in what a node is, a part of the box or a set of signs, and in how it is bounded.
Depth first, the share of the domain's halves, quarters, ... that is done grows evenly, and tells
soon how many nodes are to come: what would take far more than are left is given up.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from onnx_exact.bab.question import Found
from onnx_exact.bab.trees import Growing
from onnx_exact.runtime.deadline import Deadline


@dataclass(frozen=True, eq=False)
class Node:
    """A subproblem that is still to be bounded.

    Attributes:
        place: in the tree.
        share: of the domain, each split counting as halves.
    """

    place: int
    share: float


N = TypeVar("N", bound=Node)


class Search(ABC, Generic[N]):
    """Goes on where it was broken off.

    Attributes:
        tree: all nodes so far.
        pending: those that are not bounded yet, the next one last.
        done: the share of the domain whose nodes are closed.
    """

    # Before so many nodes nothing is given up; nor where it may end within so many times the nodes
    # that are left.
    patience: int
    lenience = 3.0

    def __init__(self, pending: list[N], tree: Growing) -> None:
        self.tree, self.pending, self.done = tree, pending, 0.0

    @property
    def nodes(self) -> int:
        """Number of nodes made so far."""
        return len(self.tree)

    @property
    def spent(self) -> int:
        """The work done so far, in nodes."""
        return self.nodes

    def goes_on(self, most: int, deadline: Deadline) -> bool:
        """Whether there is anything to split, and hope to be done by so many nodes in all."""
        nodes, left = self.spent, most - self.spent
        if not self.pending or left <= 0 or deadline.passed:
            return False
        hope = self.lenience * left * self.done
        return nodes < self.patience or nodes * (1.0 - self.done) <= hope

    def run(self, most: int, deadline: Deadline) -> Iterator[Found]:
        """Bounds and splits nodes until nothing is left to.

        Args:
            most: nodes of all runs together.
            deadline: the user's; what is left then can be gone on with.
        """
        while self.goes_on(most, deadline):
            yield from self.step()

    @abstractmethod
    def step(self) -> Iterator[Found]:
        """Bounds the next nodes, and closes or splits them."""
