"""A chain together with the verdicts on its units, as reductions take and give it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.decide.verdict import Stability, Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.network.domain import Box
from onnx_exact.network.operator import Operator
from onnx_exact.network.rounding import gamma
from onnx_exact.reduce.budget import (
    Budget,
    FloatType,
    evaluation_terms,
    stored,
    stored_above,
)
from onnx_exact.reduce.units import GONE, UnitMap


@dataclass(frozen=True, eq=False)
class Decided:
    """One layer with what is known of its units; arrays of shape (units,).

    Attributes:
        layer: the affine map and whether a ReLU follows.
        status: of `Status`; ACTIVE throughout for a layer without ReLU.
        lower, upper: sound bounds on the pre-activations.
        origin: which layer of the original chain this one stands for, and where its units are now.
        budget: how far each pre-activation may be moved.
        edition: how often the layer was written anew since it was read.
    """

    layer: Layer
    status: NDArray[np.int8]
    lower: Array
    upper: Array
    origin: UnitMap
    budget: Budget
    edition: int = 0

    @property
    def source(self) -> int:
        """Index of the layer of the original chain that this one stands for."""
        return self.origin.source

    @property
    def units(self) -> NDArray[np.intp]:
        """Index in that layer of the unit each unit is; NEW for one that came in."""
        return self.origin.units(self.layer.width)

    @property
    def magnitude(self) -> Array:
        """An upper bound on |h|, the layer's output."""
        if self.layer.relu:
            return np.maximum(self.upper, 0.0)
        return np.maximum(np.abs(self.lower), np.abs(self.upper))

    @property
    def output_bounds(self) -> tuple[Array, Array]:
        """Sound bounds on h, the layer's output."""
        if self.layer.relu:
            return np.maximum(self.lower, 0.0), np.maximum(self.upper, 0.0)
        return self.lower, self.upper

    @property
    def is_as_read(self) -> bool:
        """Whether it is the very layer that was read."""
        return not self.edition

    def anew(self, layer: Layer, **changes: Any) -> Decided:
        """Written as another layer, with other things known of it."""
        return replace(self, layer=layer, edition=self.edition + 1, **changes)

    def keep(self, kept: NDArray[np.bool_]) -> Decided:
        """The layer with only the units that `kept` selects."""
        return self.anew(
            Layer(self.layer.affine.rows(kept), self.layer.relu),
            status=self.status[kept],
            lower=self.lower[kept],
            upper=self.upper[kept],
            origin=self.origin.keep(kept),
            budget=self.budget.select(kept),
        )

    def reading(self, kept: NDArray[np.bool_]) -> Decided:
        """The same units without the inputs that `kept` does not select, which they do not need."""
        return self.anew(Layer(self.layer.affine.reading(kept), self.layer.relu))

    def with_affine(self, weight: NDArray[np.floating] | Operator, bias: Array) -> Decided:
        """The same units, computed from other inputs."""
        return self.anew(Layer(Affine(weight, bias), self.layer.relu))


@dataclass(frozen=True, eq=False)
class State:
    """The layers of a chain, first to last, over a box.

    Attributes:
        dtype: what weights are stored in.
        frozen: layers of the original chain that have to stay as they are.
        exact: layers of the original chain in which no rewrite may round anything.
        gone: where the units are of layers that none stands for any more.
        edits: how often layers took the place of others.
    """

    layers: tuple[Decided, ...]
    box: Box
    dtype: FloatType
    frozen: frozenset[int] = frozenset()
    exact: frozenset[int] = frozenset()
    gone: tuple[UnitMap, ...] = ()
    edits: int = 0

    @staticmethod
    def of(chain: Chain, stability: Stability, box: Box, dtype: FloatType) -> State:
        """The start of every reduction: nothing reduced yet."""
        layers: list[Decided] = []
        for index, (layer, verdicts) in enumerate(zip(chain.layers, stability.layers, strict=True)):
            if verdicts is None:
                status = np.full(layer.width, Status.ACTIVE, dtype=np.int8)
                before = layers[-1].output_bounds if layers else (box.lower, box.upper)
                low, high = interval_bounds(layer.affine, *before)
            else:
                status, low, high = verdicts.status, verdicts.lower, verdicts.upper
            origin = UnitMap.identity(index, layer.width)
            nothing = np.zeros(layer.width)
            budget = Budget(nothing, nothing, nothing)
            layers.append(Decided(layer, status, low, high, origin, budget))
        return State(tuple(layers), box, dtype).budgeted()

    def budgeted(self) -> State:
        """The state with budgets that nothing is taken of."""
        budgets = [self.new_budget(index) for index in range(len(self.layers))]
        layers = (replace(d, budget=b) for d, b in zip(self.layers, budgets, strict=True))
        return replace(self, layers=tuple(layers))

    @property
    def chain(self) -> Chain:
        """The chain as it stands."""
        return Chain(tuple(decided.layer for decided in self.layers))

    @property
    def unit_roundoff(self) -> float:
        """u, half the distance from 1 to the next number of the model's dtype."""
        return 0.5 * float(np.finfo(self.dtype).eps)

    def input_magnitude(self, index: int) -> Array:
        """An upper bound on the magnitude of the inputs of a layer."""
        if index:
            return self.layers[index - 1].magnitude
        return np.maximum(np.abs(self.box.lower), np.abs(self.box.upper))

    def terms(self, index: int, *, alone: bool = False) -> Array:
        """What evaluating a layer and the one that it reads adds up, see `budget`; or it `alone`.

        Of inputs that are not bounded nothing is counted: they allow nothing.
        """
        first = index if alone else max(index - 1, 0)
        sizes = [self.input_magnitude(i) for i in range(first, index + 1)]
        sizes = [np.where(np.isfinite(size), size, 0.0) for size in sizes]
        return evaluation_terms([d.layer.affine for d in self.layers[first : index + 1]], sizes)

    def rebased(self, index: int) -> State:
        """The state where a layer reads another one than it did: its terms are new."""
        decided = self.layers[index]
        terms = np.maximum(decided.budget.terms, self.terms(index))
        budget = replace(decided.budget, terms=terms)
        return self.with_layers(index, index + 1, replace(decided, budget=budget))

    def new_budget(self, index: int) -> Budget:
        """The budget of a layer as it stands; what float64 itself rounds is allowed for as well."""
        first = max(index - 1, 0)
        terms = 1 + sum(d.layer.affine.n_in for d in self.layers[first : index + 1])
        with np.errstate(over="ignore", invalid="ignore"):
            bounded = self.terms(index)
        found = np.where(np.isfinite(bounded), bounded, 0.0)
        return Budget.of(found, self.unit_roundoff + gamma(terms))

    def input_bounds(self, index: int) -> tuple[Array, Array]:
        """Sound bounds on the inputs of a layer."""
        return self.layers[index - 1].output_bounds if index else (self.box.lower, self.box.upper)

    def limit(self, index: int, max_deviation: float) -> float:
        """`max_deviation`, or 0 for a layer in which nothing may be rounded."""
        return 0.0 if self.layers[index].source in self.exact else max_deviation

    def may_drop_units(self, index: int) -> bool:
        """Whether neither a layer nor the one that reads it has to stay as it is."""
        return self.frozen.isdisjoint(decided.source for decided in self.layers[index : index + 2])

    def thaws(self, new: State) -> bool:
        """Whether a layer that has to stay as it is would not."""
        as_read = {decided.source for decided in new.layers if decided.is_as_read}
        return any(d.source in self.frozen - as_read for d in self.layers)

    def with_layers(self, start: int, stop: int, *new: Decided) -> State:
        """The state with layers[start:stop] replaced by `new`."""
        stay = {decided.source for decided in new}
        gone = (d.origin for d in self.layers[start:stop] if d.source not in stay)
        # Of most there is nothing to say.
        gone = (m for origin in gone if ((m := origin.lost()).place < GONE).any())
        layers = (*self.layers[:start], *new, *self.layers[stop:])
        return replace(self, layers=layers, gone=(*self.gone, *gone), edits=self.edits + 1)

    def stored(self, values: Array) -> Array:
        """`values` as the model's dtype holds them; inf where they do not fit."""
        return stored(values, self.dtype)

    def stored_above(self, values: Array) -> Array:
        """The least numbers of the model's dtype that are not below `values`."""
        return stored_above(values, self.dtype)
