"""A complete proof for small networks: the largest difference as mixed-integer programs in SCIP.

Each unstable unit of either network has h >= g, h >= 0, h <= g - l (1 - z), h <= u z with z binary
and bounds l, u on g (Tjeng et al. 2019). A unit of the new network whose pre-activation is the same
expression as that of an old one shares its variables. The answers hold within SCIP's tolerances:
this is the only part of the checker that rests on a solver, and its result says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from onnx_exact.verifier.balls import Balls
from onnx_exact.verifier.bounds import Ranges, intervals, upper_bounds
from onnx_exact.verifier.chain import Layer
from onnx_exact.verifier.rounding import Array

if TYPE_CHECKING:
    from onnx_exact.verifier.search import Pair

MOST_UNSTABLE = 60
# Numbers beyond this are none for SCIP.
LARGEST = 1e15
SECONDS = 60.0
# A linear expression: coefficients by variable, with the constant under -1.
Expression = dict[int, float]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Whether no output differs by more than the tolerance; else why not, and maybe where."""

    proved: bool
    reason: str = ""
    point: Array | None = None


def prove(pairs: list[Pair], tolerance: float, seen: int) -> Outcome:
    """Tries to prove that no output differs by more than `tolerance` over the box.

    Args:
        pairs: the networks, one pair for each output.
        tolerance: of a difference.
        seen: how many units are known to be unstable.
    """
    if seen > MOST_UNSTABLE:
        return Outcome(False, f"at least {seen} unstable units, more than {MOST_UNSTABLE}")
    ranges = [[plain_ranges(layers, p.low, p.high) for layers in (p.old, p.new)] for p in pairs]
    unstable = max(_unstable(r) for both in ranges for r in both)
    if not all(np.isfinite(v).all() for both in ranges for r in both for v in r.upper):
        return Outcome(False, "the domain is not bounded")
    if unstable > MOST_UNSTABLE:
        return Outcome(False, f"{unstable} unstable units, more than {MOST_UNSTABLE}")
    try:
        return _proved(pairs, ranges, tolerance)
    except OverflowError as error:
        return Outcome(False, str(error))


def _proved(pairs: list[Pair], ranges: list[list[Ranges]], tolerance: float) -> Outcome:
    deadline = time.monotonic() + SECONDS
    for pair, both in zip(pairs, ranges, strict=True):
        program = _Program(pair.low, pair.high)
        old, new = (program.network(*of) for of in zip((pair.old, pair.new), both, strict=True))
        if program.binaries > MOST_UNSTABLE:
            return Outcome(False, f"{program.binaries} unstable units that differ")
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            for sign in (1.0, -1.0):
                difference = {v: sign * (a.get(v, 0.0) - b.get(v, 0.0)) for v in a.keys() | b}
                if not program.at_most(difference, tolerance, deadline - time.monotonic()):
                    return Outcome(False, f"SCIP could not bound output {i}", program.best())
    return Outcome(True)


def plain_ranges(layers: tuple[Layer, ...], low: Array, high: Array) -> Ranges:
    """Bounds on all pre-activations, from intervals and linear bounds."""
    balls = Balls(layers)
    ranges = Ranges([], [], (low, high), tuple(layer.relu for layer in layers))
    for k, layer in enumerate(layers):
        lower, upper = intervals(layer, *ranges.outputs(k - 1), exact=True)
        if k and np.isfinite(low).all() and np.isfinite(high).all():
            off = layer.off(ranges.magnitude(k - 1))
            upper = np.fmin(upper, upper_bounds(layer.weight, layer.bias, ranges, balls) + off)
            found = upper_bounds(-layer.weight, -layer.bias, ranges, balls) + off
            lower = np.fmax(lower, -found)
        ranges.lower.append(lower)
        ranges.upper.append(upper)
    return ranges


def _unstable(ranges: Ranges) -> int:
    layers = zip(ranges.relu, ranges.lower, ranges.upper, strict=True)
    return sum(int(((low < 0.0) & (high > 0.0)).sum()) for relu, low, high in layers if relu)


class _Program:
    """Both networks over one box; expressions are over its variables."""

    def __init__(self, low: Array, high: Array) -> None:
        from pyscipopt import Model

        self._model: Any = Model()
        self._model.hideOutput()
        self._variables = [
            self._model.addVar(lb=float(a), ub=float(b)) for a, b in zip(low, high, strict=True)
        ]
        self._inputs = len(self._variables)
        self._known: dict[tuple[tuple[int, float], ...], int] = {}

    @property
    def binaries(self) -> int:
        """Number of unstable units, those that both networks have counted once."""
        return len(self._known)

    def network(self, layers: tuple[Layer, ...], ranges: Ranges) -> list[Expression]:
        """The outputs of a network."""
        values: list[Expression] = [{i: 1.0} for i in range(layers[0].weight.shape[1])]
        for k, layer in enumerate(layers):
            inputs = values
            values = []
            for i, row in enumerate(layer.weight.tolist()):
                g: Expression = {-1: float(layer.bias[i])}
                for weight, value in zip(row, inputs, strict=True):
                    if weight:
                        for v, c in value.items():
                            g[v] = g.get(v, 0.0) + weight * c
                low, high = float(ranges.lower[k][i]), float(ranges.upper[k][i])
                if not layer.relu or low >= 0.0:
                    values.append(g)
                else:
                    values.append({} if high <= 0.0 else {self._relu(g, low, high): 1.0})
        return values

    def _relu(self, g: Expression, low: float, high: float) -> int:
        key = tuple(sorted(g.items()))
        if key not in self._known:
            model = self._model
            h, z = model.addVar(lb=0.0, ub=high), model.addVar(vtype="B")
            expression = self._scip(g)
            model.addCons(h >= expression)
            model.addCons(h <= expression - low * (1 - z))
            model.addCons(h <= high * z)
            self._known[key] = len(self._variables)
            self._variables.append(h)
        return self._known[key]

    def _scip(self, expression: Expression) -> Any:
        from pyscipopt import quicksum

        if not all(abs(c) <= LARGEST for c in expression.values()):
            raise OverflowError("numbers beyond what SCIP can compute with")
        terms = (c * self._variables[v] for v, c in expression.items() if v >= 0 and c)
        return quicksum(terms) + expression.get(-1, 0.0)

    def at_most(self, expression: Expression, limit: float, seconds: float) -> bool:
        """Whether the program's bound on an expression is at most `limit`, in time."""
        if not any(expression.values()):
            return True
        model = self._model
        if seconds <= 0.0:
            return False
        model.freeTransform()
        model.setParam("limits/time", seconds)
        model.setObjective(self._scip(expression), "maximize")
        model.optimize()
        return bool(model.getStatus() == "optimal" and model.getDualbound() <= limit)

    def best(self) -> Array | None:
        """The point of the best solution of the last program, if it has one."""
        if not self._model.getNSols():
            return None
        inputs = self._variables[: self._inputs]
        return np.array([self._model.getVal(variable) for variable in inputs])
