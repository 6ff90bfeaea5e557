"""Narrows the ranges of all units that stay unstable below a layer, before its long trees.

Default slopes serve all functionals alike. With slopes optimised for each bound of each unstable
unit relaxations lose less, and every node of a tree above them gains by it.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from onnx_exact.bab.question import in_bytes
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import better_start
from onnx_exact.bounds.crown import unstable_units
from onnx_exact.decide.branching import question_of
from onnx_exact.decide.options import Options
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Evidence, Narrowed
from onnx_exact.network.query import Query

# Multiplications between two looks at the user's deadline: a third of a second.
AT_ONCE = 1e10


class Narrower:
    """Narrows each layer once.

    Args:
        layers: of the network, with what is known of it.
        options: deadline and budgets.
    """

    def __init__(self, layers: Layers, options: Options) -> None:
        self._layers, self._options = layers, options
        self._done: set[int] = set()

    def below(self, index: int) -> None:
        """Narrows the layers before `index`, whose relaxations are those of what is known.

        Where that changes anything, what comes after is bounded and relaxed again.
        """
        changed = False
        for before in range(1, index):
            if changed:
                self._layers.bound(before)
            if before not in self._done:
                self._done.add(before)
                changed |= self._narrow(before)
            if changed:
                self._layers.relax(before)
        if changed:
            self._layers.bound(index)

    def _narrow(self, index: int) -> bool:
        """Optimised slopes for both bounds of each unstable unit of a layer; whether there are any.

        What is left when the deadline has passed stays as it is.
        """
        knowledge = self._layers.knowledge
        if not knowledge.chain.layers[index].relu:
            return False
        units = np.flatnonzero(unstable_units(knowledge.lower[index], knowledge.upper[index]))
        each = 2.0 * sum(
            float(r.core.linear.fan_in) * r.core.linear.fan_out for r in self._layers.below(index)
        )
        steps = self._steps(2.0 * units.size * each)
        at_once = max(1, int(AT_ONCE / (each * max(1, steps))))
        parts = [units[k : k + at_once] for k in range(0, units.size if steps else 0, at_once)]
        for positive, part in product((True, False), parts):
            if not self._options.deadline.passed:
                self._improve([Query(index, int(unit), positive) for unit in part], steps)
        return bool(parts)

    def _steps(self, each: float) -> int:
        """How many of so many multiplications each there is room for; 0 for too few to help."""
        budgets = self._options.budgets
        steps = min(budgets.narrow_steps, int(budgets.narrow_products / max(1.0, each)))
        return steps if 4 * steps >= budgets.narrow_steps else 0

    def _improve(self, queries: list[Query], steps: int) -> None:
        """Bounds one sign of some units, whether it occurs or not."""
        knowledge, index = self._layers.knowledge, queries[0].layer
        question = question_of(knowledge, index, queries, self._layers.below(index))
        asked = question.rows, question.below, knowledge.box
        found = optimize(*asked, steps, better_start(*asked), goal=-np.inf)
        positive = queries[0].positive
        knowledge.conclude_units(index, question.units, positive, found.bounds, Evidence.LINEAR)
        knowledge.narrowed.append(
            Narrowed(index, question.units, question.positive, in_bytes(found.cases))
        )
        knowledge.show(found.corners)
