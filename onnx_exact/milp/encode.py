"""A chain over a box as a mixed-integer program.

Legend, for unit i of layer l with sound bounds L <= g <= U on its pre-activation:

    h^0 = x in the box,    g_i = W_i h^(l-1) + b_i,    h = max(g, 0),    hbar = max(-g, 0)

Constraints (Serra et al. 2020, equations 1 to 6), with g substituted by h - hbar:

    W_i h^(l-1) + b_i = h_i - hbar_i                            unstable or undecided units
    0 <= h_i <= U z_i,    0 <= hbar_i <= -L (1 - z_i),    z_i in {0, 1}
    W_i h^(l-1) + b_i = h_i                                     stably active units, linear layers

A stably inactive unit has h = 0 and is left out. Candidates (Serra et al. 2021, section 4): p_i = 1
only where g_i >= -delta, q_i = 1 only where g_i <= delta,

    h_i - hbar_i >= -delta p_i + L (1 - p_i),    h_i - hbar_i <= delta q_i + U (1 - q_i)

The published p_i <= z_i has delta = 0. The margin keeps a verdict away from the tolerance of the
solver: that no p_i can be 1 says that g_i < -delta everywhere. It grows with the largest number in
the program, of which the solver ignores a share; a sign whose bounds leave no room for its margin
is not asked for, nor one whose program holds numbers that the solver takes for infinite.

A program for one sign alone may multiply its functional by a power of two, for the margin to shrink
with the functional: as long as its weights add up to no more than 1, a point that the solver takes
for feasible is off by no more than before.

SCIP takes coefficients below 1e-9 for 0. Their terms are kept out of the row and widen its sides by
what they can amount to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.verdict import Status
from onnx_exact.milp.tolerance import FEASIBILITY_TOLERANCE, tolerances
from onnx_exact.network.affine import Array

if TYPE_CHECKING:
    from pyscipopt import Model, Variable

# The margin of a candidate relative to its bounds.
CANDIDATE_MARGIN = 1e-6
# What SCIP takes for 0 (numerics/epsilon), and well below what it takes for infinite.
EPSILON = 1e-9
LARGEST_NUMBER = 1e12
# The largest power of two that a functional is multiplied by: far from overflow.
LARGEST_SCALE = 2.0**100
# Wider than the rounding of a sum of terms that are kept out of a row.
OUTWARDS = 1.0 + 1e-6


@dataclass(frozen=True)
class Candidate:
    """A sign that no witness shows yet: unit `unit` of layer `layer`, positive or negative.

    Attributes:
        delta: the margin by which a program has to exclude it.
        scale: the power of two by which a program of its own multiplies the pre-activation.
    """

    layer: int
    unit: int
    positive: bool
    delta: float = field(default=0.0, compare=False)
    scale: float = field(default=1.0, compare=False)


@dataclass(frozen=True, eq=False)
class Encoding:
    """The program and its variables.

    Attributes:
        model: SCIP's model, without objective.
        inputs: the variables x, one an input.
        indicators: the binary p or q of each candidate.
    """

    model: Model
    inputs: list[Variable]
    indicators: dict[Candidate, Variable]


def candidates_of(knowledge: Knowledge, alone: bool = False) -> list[Candidate]:
    """Every sign that is open, that no program has excluded yet and that one can, by layers.

    Args:
        knowledge: what is known.
        alone: whether each has a program of its own, so that it can be scaled.
    """
    found = []
    largest = 0.0
    off = tolerances(knowledge) if knowledge.trusting else None
    for layer in range(len(knowledge.chain.layers)):
        largest = max(largest, _largest_number(knowledge, layer))
        if not knowledge.chain.layers[layer].relu or not largest <= LARGEST_NUMBER:
            continue
        low, high = knowledge.lower[layer], knowledge.upper[layer]
        scale = np.maximum(1.0, np.maximum(-low, high))
        delta = np.maximum(CANDIDATE_MARGIN * scale, EPSILON * largest)
        factors = _scales(knowledge, layer) if alone else np.ones(low.size)
        delta = delta / factors
        if off is not None:
            delta = np.maximum(delta, off[layer])
        for positive, signs in zip((True, False), knowledge.open_signs(layer), strict=True):
            room = delta < (-low if positive else high)
            units = np.flatnonzero(signs & room)
            found += [
                Candidate(layer, int(i), positive, float(delta[i]), float(factors[i]))
                for i in units
                if (layer, int(i), positive) not in knowledge.claimed
            ]
    return found


def _scales(knowledge: Knowledge, layer: int) -> Array:
    """The greatest powers of two, at least 1, that leave weights and range of a functional below 1.

    With weights that add up to 1 at most, what the solver's tolerance leaves open in the inputs is
    not multiplied; with a range below 1 the margin is the smallest there is.
    """
    reach = np.maximum(-knowledge.lower[layer], knowledge.upper[layer])
    size = np.maximum(knowledge.magnitudes[layer].sum(axis=1), reach)
    size = np.clip(size, 1.0 / LARGEST_SCALE, 1.0)
    return np.asarray(np.exp2(np.floor(-np.log2(size))))


def _largest_number(knowledge: Knowledge, layer: int) -> float:
    """The largest magnitude among a layer's weights, inputs, terms and bounds."""
    weight, bias = knowledge.magnitudes[layer], np.abs(knowledge.chain.layers[layer].affine.bias)
    inputs = np.maximum(*(np.abs(bound) for bound in knowledge.output_bounds(layer - 1)))
    with np.errstate(over="ignore", invalid="ignore"):
        reach = weight @ inputs + bias
    bounds = np.maximum(np.abs(knowledge.lower[layer]), np.abs(knowledge.upper[layer]))
    largest = max(float(v.max()) for v in (weight, inputs, reach, bounds))
    return largest if np.isfinite(reach).all() else np.inf


class OutOfTimeError(Exception):
    """A deadline passed before a program was complete."""


def encode(
    knowledge: Knowledge, candidates: list[Candidate], deadline: Deadline | None = None
) -> Encoding:
    """The program over all layers up to the last candidate's.

    Args:
        knowledge: finite bounds on every layer up to there.
        candidates: at least one.
        deadline: by which it has to be complete; None for no end.

    Raises:
        OutOfTimeError: it passed.
    """
    model, inputs = _empty(knowledge)
    by_unit = {(c.layer, c.unit, c.positive): c for c in candidates}
    indicators: dict[Candidate, Variable] = {}
    below: list[Variable | None] = list(inputs)
    for index in range(max(c.layer for c in candidates) + 1):
        below = [
            _add_unit(model, knowledge, index, unit, below, by_unit, indicators)
            for unit in _in_time(knowledge.chain.layers[index].width, deadline)
        ]
    return Encoding(model, inputs, indicators)


def encode_one(
    knowledge: Knowledge, candidate: Candidate, deadline: Deadline | None = None
) -> Encoding:
    """The program whose objective is one candidate's signed, scaled pre-activation: a maximum.

    Only units that the candidate depends on are in it.

    Raises:
        OutOfTimeError: as of `encode`.
    """
    model, inputs = _empty(knowledge)
    sign = candidate.scale if candidate.positive else -candidate.scale
    layer = knowledge.chain.layers[candidate.layer]
    row = sign * layer.affine.weight[candidate.unit]
    needed = _needed(knowledge, candidate)
    below: list[Variable | None] = list(inputs)
    for index in range(candidate.layer):
        below = [
            _add_unit(model, knowledge, index, unit, below, {}, {}) if needed[index][unit] else None
            for unit in _in_time(knowledge.chain.layers[index].width, deadline)
        ]
    bounds = knowledge.upper if candidate.positive else knowledge.lower
    bound = sign * float(bounds[candidate.layer][candidate.unit])
    value = model.addVar(name="g", lb=None, ub=bound)
    constant = -sign * float(layer.affine.bias[candidate.unit])
    inputs_of = knowledge.output_bounds(candidate.layer - 1)
    _add_row(model, row, below, inputs_of, [(value, -1.0)], constant)
    model.setObjective(value, "maximize")
    return Encoding(model, inputs, {})


def _in_time(units: int, deadline: Deadline | None) -> Iterator[int]:
    """The units of a layer, as long as there is time."""
    for unit in range(units):
        if deadline is not None and deadline.passed:
            raise OutOfTimeError
        yield unit


def _needed(knowledge: Knowledge, candidate: Candidate) -> list[NDArray[np.bool_]]:
    """Which units of each layer below have a path to the candidate that can be active."""
    layers = knowledge.chain.layers
    reads = layers[candidate.layer].affine.weight[candidate.unit] != 0.0
    needed = []
    for index in range(candidate.layer - 1, -1, -1):
        if layers[index].relu:
            reads = reads & (knowledge.status(index) != Status.INACTIVE)
        needed.append(reads)
        reads = (layers[index].affine.weight[reads] != 0.0).any(axis=0)
    return needed[::-1]


def limit_time(model: Model, seconds: float) -> None:
    """Ends a solve after `seconds`, which may be inf."""
    model.setParam("limits/time", min(seconds, float(model.infinity())))


def _empty(knowledge: Knowledge) -> tuple[Model, list[Variable]]:
    """A silent model with nothing but the inputs."""
    from pyscipopt import Model

    model = Model()
    model.hideOutput()
    model.setParam("numerics/feastol", FEASIBILITY_TOLERANCE)
    box = knowledge.box
    inputs = [
        model.addVar(name=f"x_{j}", lb=float(box.lower[j]), ub=float(box.upper[j]))
        for j in range(knowledge.chain.n_in)
    ]
    return model, inputs


def _add_unit(
    model: Model,
    knowledge: Knowledge,
    index: int,
    unit: int,
    below: list[Variable | None],
    by_unit: dict[tuple[int, int, bool], Candidate],
    indicators: dict[Candidate, Variable],
) -> Variable | None:
    """Adds one unit and returns its h, None where it is stably inactive."""
    layer = knowledge.chain.layers[index]
    row, bias = layer.affine.weight[unit], float(layer.affine.bias[unit])
    low, high = float(knowledge.lower[index][unit]), float(knowledge.upper[index][unit])
    name = f"{index}_{unit}"
    inputs = knowledge.output_bounds(index - 1)
    status = knowledge.status(index)[unit]
    if layer.relu and status == Status.INACTIVE:
        return None
    if not layer.relu or status == Status.ACTIVE:
        h = model.addVar(name=f"h_{name}", lb=low, ub=high)
        _add_row(model, row, below, inputs, [(h, -1.0)], -bias)
        return h
    h = model.addVar(name=f"h_{name}", lb=0.0, ub=high)
    hbar = model.addVar(name=f"hbar_{name}", lb=0.0, ub=-low)
    z = model.addVar(name=f"z_{name}", vtype="B")
    _add_row(model, row, below, inputs, [(h, -1.0), (hbar, 1.0)], -bias)
    model.addCons(h <= high * z)
    model.addCons(hbar <= -low * (1 - z))
    for positive in (True, False):
        candidate = by_unit.get((index, unit, positive))
        if candidate is None:
            continue
        delta = candidate.delta
        switch = model.addVar(name=f"{'p' if positive else 'q'}_{name}", vtype="B")
        if positive:
            model.addCons(h - hbar >= -delta * switch + low * (1 - switch))
        else:
            model.addCons(h - hbar <= delta * switch + high * (1 - switch))
        indicators[candidate] = switch
    return h


def _add_row(
    model: Model,
    row: Array,
    below: list[Variable | None],
    bounds: tuple[Array, Array],
    own: list[tuple[Variable, float]],
    constant: float,
) -> None:
    """Adds row h + own = constant; coefficient by coefficient, which is the quick way in.

    With bounds on h, the terms of coefficients that the solver would drop become a range.
    """
    negligible = np.abs(row) <= EPSILON
    ends = np.array([row[negligible] * bound[negligible] for bound in bounds])
    least, most = OUTWARDS * ends.min(axis=0).sum(), OUTWARDS * ends.max(axis=0).sum()
    (first, factor), *rest = own
    constraint = model.addCons(factor * first == constant)
    if least != 0.0 or most != 0.0:
        model.chgLhs(constraint, constant - most)
        model.chgRhs(constraint, constant - least)
    for variable, coefficient in rest:
        model.addCoefLinear(constraint, variable, coefficient)
    for j in np.flatnonzero(~negligible):
        source = below[j]
        if source is not None:
            model.addCoefLinear(constraint, source, float(row[j]))
