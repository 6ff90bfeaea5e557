"""A chain over a box as a mixed-integer program.

Legend, for unit i of layer l with sound bounds L <= g <= U on its pre-activation:

    h^0 = x in the box,    g_i = W_i h^(l-1) + b_i,    h = max(g, 0),    hbar = max(-g, 0)

Constraints (Serra et al. 2020, equations 1 to 6), with g substituted by h - hbar:

    W_i h^(l-1) + b_i = h_i - hbar_i                            unstable or undecided units
    0 <= h_i <= U z_i,    0 <= hbar_i <= -L (1 - z_i),    z_i in {0, 1}
    W_i h^(l-1) + b_i = h_i                                     stably active units, linear layers

A stably inactive unit has h = 0 and is left out. Targets (the candidates of Serra et al. 2021,
section 4): p_i = 1 only where g_i >= -delta, q_i = 1 only where g_i <= delta,

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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.milp.tolerance import FEASIBILITY_TOLERANCE, tolerances
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline

if TYPE_CHECKING:
    from pyscipopt import Model, Variable

# The margin of a target relative to its bounds.
RELATIVE_MARGIN = 1e-6
# What SCIP takes for 0 (numerics/epsilon), and well below what it takes for infinite.
EPSILON = 1e-9
LARGEST_NUMBER = 1e12
# The largest power of two that a functional is multiplied by: far from overflow.
LARGEST_SCALE = 2.0**100
# Wider than the rounding of a sum of terms that are kept out of a row.
OUTWARDS = 1.0 + 1e-6


@dataclass(frozen=True)
class Target:
    """A query as a program answers it.

    Attributes:
        query: what is asked.
        margin: by which a program has to exclude it.
        scale: the power of two by which a program of its own multiplies the pre-activation.
    """

    query: Query
    margin: float
    scale: float = 1.0


@dataclass(frozen=True, eq=False)
class Encoding:
    """The program and its variables.

    Attributes:
        model: SCIP's model, without objective.
        inputs: the variables x, one an input.
        indicators: the binary p or q of each query.
    """

    model: Model
    inputs: list[Variable]
    indicators: dict[Query, Variable]


def targets_of(
    bounds: ChainBounds, queries: Iterable[Query], *, alone: bool = False, trusting: bool = False
) -> list[Target]:
    """The queries that a program can exclude, with their margins, in the order given.

    Args:
        bounds: what is known.
        queries: of ReLU units.
        alone: whether each has a program of its own, so that it can be scaled.
        trusting: whether the margin has to be one that the solver's tolerance cannot bridge.
    """
    sizes = np.maximum.accumulate([_largest_number(bounds, i) for i in _layers(bounds)])
    off = tolerances(bounds) if trusting else None
    margins: dict[int, tuple[Array, Array]] = {}
    found = []
    for query in queries:
        layer, unit = query.layer, query.unit
        if not sizes[layer] <= LARGEST_NUMBER:
            continue
        if layer not in margins:
            factors = _scales(bounds, layer) if alone else np.ones(bounds.lower[layer].size)
            least = _margins(bounds, layer, float(sizes[layer])) / factors
            margins[layer] = (least if off is None else np.maximum(least, off[layer])), factors
        margin, scale = (float(values[unit]) for values in margins[layer])
        room = -bounds.lower[layer][unit] if query.positive else bounds.upper[layer][unit]
        if margin < room:
            found.append(Target(query, margin, scale))
    return found


def _layers(bounds: ChainBounds) -> range:
    return range(len(bounds.chain.layers))


def _margins(bounds: ChainBounds, layer: int, largest: float) -> Array:
    """The margins of a layer's units, given the largest number in their program."""
    reach = np.maximum(-bounds.lower[layer], bounds.upper[layer])
    return np.maximum(RELATIVE_MARGIN * np.maximum(1.0, reach), EPSILON * largest)


def _scales(bounds: ChainBounds, layer: int) -> Array:
    """The greatest powers of two, at least 1, that leave weights and range of a functional below 1.

    With weights that add up to 1 at most, what the solver's tolerance leaves open in the inputs is
    not multiplied; with a range below 1 the margin is the smallest there is.
    """
    reach = np.maximum(-bounds.lower[layer], bounds.upper[layer])
    magnitude = bounds.chain.layers[layer].affine.linear.absolute()
    size = np.maximum(magnitude.apply(np.ones(magnitude.n_in)), reach)
    size = np.clip(size, 1.0 / LARGEST_SCALE, 1.0)
    return np.asarray(np.exp2(np.floor(-np.log2(size))))


def _largest_number(bounds: ChainBounds, layer: int) -> float:
    """The largest magnitude among a layer's weights, inputs, terms and bounds."""
    affine = bounds.chain.layers[layer].affine
    magnitude, inputs = affine.linear.absolute(), bounds.size(layer - 1)
    with np.errstate(over="ignore", invalid="ignore"):
        reach = magnitude.apply(inputs) + np.abs(affine.bias)
    own = np.maximum(np.abs(bounds.lower[layer]), np.abs(bounds.upper[layer]))
    largest = max(float(np.abs(v).max()) for v in (affine.entries, inputs, reach, own))
    return largest if np.isfinite(reach).all() else np.inf


class OutOfTimeError(Exception):
    """A deadline passed before a program was complete."""


def encode(
    bounds: ChainBounds, targets: Sequence[Target], deadline: Deadline | None = None
) -> Encoding:
    """The program over all layers up to the last target's.

    Args:
        bounds: finite on every layer up to there.
        targets: at least one.
        deadline: by which it has to be complete; None for no end.

    Raises:
        OutOfTimeError: it passed.
    """
    model, inputs = _empty(bounds)
    margins = {target.query: target.margin for target in targets}
    indicators: dict[Query, Variable] = {}
    below: list[Variable | None] = list(inputs)
    for index in range(max(query.layer for query in margins) + 1):
        below = [
            _add_unit(model, bounds, index, unit, below, margins, indicators)
            for unit in _in_time(bounds.chain.layers[index].width, deadline)
        ]
    return Encoding(model, inputs, indicators)


def encode_one(bounds: ChainBounds, target: Target, deadline: Deadline | None = None) -> Encoding:
    """The program whose objective is one target's signed, scaled pre-activation: a maximum.

    Only units that the target depends on are in it.

    Raises:
        OutOfTimeError: as of `encode`.
    """
    model, inputs = _empty(bounds)
    query = target.query
    sign = query.sign * target.scale
    layer = bounds.chain.layers[query.layer]
    row = sign * layer.affine.row(query.unit)
    needed = _needed(bounds, query)
    below: list[Variable | None] = list(inputs)
    for index in range(query.layer):
        below = [
            _add_unit(model, bounds, index, unit, below, {}, {}) if needed[index][unit] else None
            for unit in _in_time(bounds.chain.layers[index].width, deadline)
        ]
    side = bounds.upper if query.positive else bounds.lower
    value = model.addVar(name="g", lb=None, ub=sign * float(side[query.layer][query.unit]))
    constant = -sign * float(layer.affine.bias[query.unit])
    _add_row(model, row, below, bounds.outputs(query.layer - 1), [(value, -1.0)], constant)
    model.setObjective(value, "maximize")
    return Encoding(model, inputs, {})


def _in_time(units: int, deadline: Deadline | None) -> Iterator[int]:
    """The units of a layer, as long as there is time."""
    for unit in range(units):
        if deadline is not None and deadline.passed:
            raise OutOfTimeError
        yield unit


def _needed(bounds: ChainBounds, query: Query) -> list[NDArray[np.bool_]]:
    """Which units of each layer below have a path to the query's unit that can be active."""
    layers = bounds.chain.layers
    reads = layers[query.layer].affine.row(query.unit) != 0.0
    needed = []
    for index in range(query.layer - 1, -1, -1):
        reads = reads & ~bounds.inactive(index)
        needed.append(reads)
        reads = layers[index].affine.linear.pattern().pull_back(reads.astype(np.float64)) > 0.0
    return needed[::-1]


def limit_time(model: Model, deadline: Deadline) -> None:
    """Ends a solve when a deadline passes."""
    model.setParam("limits/time", min(deadline.remaining, float(model.infinity())))


def _empty(bounds: ChainBounds) -> tuple[Model, list[Variable]]:
    """A silent model with nothing but the inputs."""
    from pyscipopt import Model

    model = Model()
    model.hideOutput()
    model.setParam("numerics/feastol", FEASIBILITY_TOLERANCE)
    box = bounds.box
    inputs = [
        model.addVar(name=f"x_{j}", lb=float(box.lower[j]), ub=float(box.upper[j]))
        for j in range(bounds.chain.n_in)
    ]
    return model, inputs


def _add_unit(
    model: Model,
    bounds: ChainBounds,
    index: int,
    unit: int,
    below: list[Variable | None],
    margins: Mapping[Query, float],
    indicators: dict[Query, Variable],
) -> Variable | None:
    """Adds one unit and returns its h, None where it is stably inactive."""
    layer = bounds.chain.layers[index]
    row, bias = layer.affine.row(unit), float(layer.affine.bias[unit])
    low, high = float(bounds.lower[index][unit]), float(bounds.upper[index][unit])
    name = f"{index}_{unit}"
    inputs = bounds.outputs(index - 1)
    if layer.relu and high <= 0.0:
        return None
    if not layer.relu or low >= 0.0:
        h = model.addVar(name=f"h_{name}", lb=low, ub=high)
        _add_row(model, row, below, inputs, [(h, -1.0)], -bias)
        return h
    h = model.addVar(name=f"h_{name}", lb=0.0, ub=high)
    hbar = model.addVar(name=f"hbar_{name}", lb=0.0, ub=-low)
    z = model.addVar(name=f"z_{name}", vtype="B")
    _add_row(model, row, below, inputs, [(h, -1.0), (hbar, 1.0)], -bias)
    model.addCons(h <= high * z)
    model.addCons(hbar <= -low * (1 - z))
    for query in (Query(index, unit, True), Query(index, unit, False)):
        margin = margins.get(query)
        if margin is None:
            continue
        switch = model.addVar(name=f"{'p' if query.positive else 'q'}_{name}", vtype="B")
        if query.positive:
            model.addCons(h - hbar >= -margin * switch + low * (1 - switch))
        else:
            model.addCons(h - hbar <= margin * switch + high * (1 - switch))
        indicators[query] = switch
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
