"""A bound on how far a reduced chain is from its original, over the domain, in real arithmetic.

With h the outputs of the original's layers and h' those of the reduced chain, a functional of each,

    F h_s + f - F' h'_k - f',

is bounded by going back through both chains at once. Unit i lives on as a_i times unit j:

    |g_i - a_i g'_j| <= e_i    hence    |h_i - |a_i| h'_j - (g_i if a_i < 0 else 0)| <= e_i,

since a ReLU never makes a difference larger, and the two together add at most

    |sum_i F_i |a_i| - F'_j| max |h'_j| + sum_i |F_i| e_i

to a linear part, with e_i a bound of the same kind, one layer further down. What is linear on the
domain (stably active units, units that were put in their place) is replaced by its pre-activation,
stably inactive units by 0, units that are gone together as `hyperplanes` has it. Any other that is
gone counts with all that it can be, as it is or beside its pre-activation, whichever is less. The
rest is a functional of the layers before; in the end an affine function of the inputs is left,
which is bounded over the box. Equal numbers leave exactly 0, so that removing units alone deviates
by exactly 0.

Rounding is allowed for as in `onnx_exact.bounds.crown` (Higham 2002, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import interval_bounds
from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.hyperplanes import Together, gone_together
from onnx_exact.certify.pull_back import Rows, SizedLayer
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.operator import row_blocks
from onnx_exact.network.rounding import SMALLEST, gamma, slack
from onnx_exact.reduce import UnitMap
from onnx_exact.reduce.budget import reach

# Operations on a bound whose own rounding has to be covered.
FEW = 8


@dataclass(frozen=True, eq=False)
class Comparison:
    """A reduced chain held against its original.

    Attributes:
        outputs: bounds on |new - old| for each output; infinite where there is none.
        bounds: on the pre-activations of the reduced chain.
    """

    outputs: Array
    bounds: Bounds


def compare(
    bounds: Bounds,
    box: Box,
    new: Chain,
    origins: Sequence[UnitMap],
    gone: Sequence[UnitMap] = (),
    go_on: Callable[[], None] = lambda: None,
) -> Comparison:
    """Bounds the deviation of a reduced chain from its original over a finite box.

    Args:
        bounds: of the original, by which its stable units are known.
        box: shape (inputs,).
        new: the reduced chain, weights as stored.
        origins: for each of its layers, where the units of the original live on.
        gone: the same for layers of the original that no layer stands for.
        go_on: called before each layer; what it raises ends the comparison.
    """
    last = origins[-1]
    with np.errstate(over="ignore", invalid="ignore"):
        pairing = _Pairing(bounds, box, new, origins, gone)
        for k in range(len(new.layers)):
            go_on()
            pairing.add_layer(k)
    outputs = np.full(new.n_out, np.inf)
    if np.array_equal(last.place, np.arange(new.n_out)) and (last.factor == 1.0).all():
        outputs = np.where(np.isnan(pairing.links[-1].moved), np.inf, pairing.links[-1].moved)
    return Comparison(outputs, Bounds(new, tuple(pairing.lower), tuple(pairing.upper)))


@dataclass(frozen=True, eq=False)
class _Link:
    """The units of an original layer that live on in a new one.

    Attributes:
        units, place, factor: unit units[m] lives on as factor[m] times new unit place[m].
        width: of the new layer.
        common: new units that all stand for linear ones.
        moved: e, a bound on |h - |factor| h'| for each, on |h - g - |factor| h'| if factor < 0.
    """

    units: NDArray[np.intp]
    place: NDArray[np.intp]
    factor: Array
    width: int
    common: NDArray[np.bool_]
    moved: Array

    @staticmethod
    def of(origin: UnitMap, width: int, linear: NDArray[np.bool_]) -> _Link:
        """The link of a layer with those `linear` units, with nothing known of what was moved."""
        units = np.flatnonzero(origin.place >= 0)
        place = origin.place[units]
        common = np.zeros(width, dtype=bool)
        common[place] = True
        common[place[~linear[units]]] = False
        unknown = np.full(units.size, np.inf)
        return _Link(units, place, origin.factor[units], width, common, unknown)

    @property
    def mapped(self) -> NDArray[np.bool_]:
        """New units that stand for some of the original ones, shape (width,)."""
        return np.bincount(self.place, minlength=self.width) > 0

    def gather(self, columns: Array) -> Array:
        """sum_i columns_i |factor_i| for each new unit, shape (rows, width)."""
        total = np.zeros((len(columns), self.width))
        np.add.at(total.T, self.place, (columns * np.abs(self.factor)).T)
        return total

    def rounded(self) -> Array:
        """How far `gather` may be off, relative to what it is for the magnitudes; (width,)."""
        count = np.bincount(self.place, minlength=self.width)
        count[self.place[np.abs(self.factor) != 1.0]] += 1
        return np.where(count > 1, gamma(int(count.max(initial=0))), 0.0)


class _Pairing:
    """Both chains, and what is known of the layers of the new one that were compared so far.

    Attributes:
        links: which units live on in each.
        lower, upper: bounds on the new pre-activations.
    """

    def __init__(
        self,
        bounds: Bounds,
        box: Box,
        new: Chain,
        origins: Sequence[UnitMap],
        gone: Sequence[UnitMap],
    ) -> None:
        self._old, self._bounds, self._box = bounds.chain, bounds, box
        self._new, self._origins = new, origins
        self._input = np.maximum(np.abs(box.lower), np.abs(box.upper))
        layers = self._old.layers
        self._old_size = [bounds.magnitude(s) for s in range(len(layers))]
        before = [self._input, *self._old_size]
        self._old_layers = [SizedLayer.of(layers[s].affine, before[s]) for s in range(len(layers))]
        self._together: dict[int, list[Together]] = {}
        for origin in (*origins, *gone):
            s, size = origin.source, before[origin.source]
            among = ~bounds.linear(s) & (self._old_size[s] > 0.0)
            found = gone_together(origin, layers[s].affine, among, size, bounds.upper[s])
            self._together[s] = found
        self._new_size: list[Array] = []
        self._new_layers: list[SizedLayer] = []
        self.links: list[_Link] = []
        self.lower: list[Array] = []
        self.upper: list[Array] = []

    def add_layer(self, k: int) -> None:
        """Bounds layer `k` of the new chain and compares its units with those they stand for."""
        source, layer = self._origins[k].source, self._new.layers[k]
        old = self._old.layers[source]
        linear = self._bounds.linear(source)
        link = _Link.of(self._origins[k], layer.width, linear)
        self._new_layers.append(
            SizedLayer.of(layer.affine, self._new_size[-1] if k else self._input)
        )
        units, place, factor = link.units, link.place, link.factor
        e = np.zeros(units.size)
        widest = max(a.affine.n_in for a in (*self._old.layers, *self._new.layers))
        for part in row_blocks(units.size, widest):
            new = layer.affine.rows(place[part])
            e[part] = self._pair(
                Rows(old.affine.linear.rows(units[part]), old.affine.bias[units[part]]),
                source - 1,
                Rows(new.entries * factor[part, None], new.bias * factor[part]),
                k - 1,
            )
        e = (e + self._read_off(k, link)) * (1.0 + gamma(FEW))
        reader = self._new_layers[k]
        underflow = SMALLEST * (1.0 + reader.total)
        e += np.where(
            factor != 1.0, slack(np.abs(factor) * reader.terms[place], FEW, underflow), 0.0
        )
        self._bound(k, link, e)
        # A ReLU on one side alone changes what is negative.
        if old.relu and not layer.relu:
            e = e + np.maximum(-self._bounds.lower[source][units], 0.0)
        if layer.relu and not old.relu:
            e = e + np.maximum(-self.lower[k][place], 0.0) * np.abs(factor)
        # What is linear on one side cannot face the other way.
        turned = (factor < 0.0) & (not (old.relu and layer.relu))
        e = np.where(turned, np.inf, e)
        self.links.append(replace(link, moved=np.fmin(e, self._most(k, link))))

    def _most(self, k: int, link: _Link) -> Array:
        """What outputs can differ by at most, for what both can be."""
        source = self._origins[k].source
        factor = np.abs(link.factor)
        other = np.maximum(-self._bounds.lower[source], 0.0)[link.units]
        old = np.where(link.factor < 0.0, other, self._old_size[source][link.units])
        new = self._new_size[k][link.place] * factor
        if self._old.layers[source].relu and self._new.layers[k].relu:
            return np.maximum(old, new * (1.0 + gamma(1)))
        return (old + new) * (1.0 + gamma(FEW))

    def _read_off(self, k: int, link: _Link) -> Array:
        """What the numbers of both layers are off by adds to the difference of their units.

        Where the new layer is the original's own, off by the very same on both sides, only what its
        inputs differ by counts.
        """
        old, new = self._old.layers[self._origins[k].source].affine, self._new.layers[k].affine
        size = self._old_size[self._origins[k].source - 1] if self._origins[k].source else None
        inputs = self._input if size is None else size
        if new is old:
            return new.off(self._inputs_moved(k, inputs), shared=True)[link.units]
        own = new.off(self._new_size[k - 1] if k else self._input)
        return old.off(inputs)[link.units] + own[link.place] * np.abs(link.factor)

    def _inputs_moved(self, k: int, inputs: Array) -> Array:
        """Bounds on what the inputs of a layer that was not changed differ by."""
        source = self._origins[k].source
        if k == 0 and source == 0:
            return np.zeros_like(inputs)
        if k > 0 and self._origins[k - 1].source == source - 1:
            link = self.links[k - 1]
            same = link.units.size == inputs.size and (link.factor == 1.0).all()
            if same and np.array_equal(link.place, link.units):
                return link.moved
        return inputs + (self._new_size[k - 1] if k else self._input)

    def _bound(self, k: int, link: _Link, e: Array) -> None:
        """Bounds the pre-activations of a new layer: directly, and by way of the old ones."""
        source, layer = self._origins[k].source, self._new.layers[k]
        lower, upper = interval_bounds(layer.affine, *self._outputs(k - 1))
        share, place = 1.0 / link.factor, link.place
        exact = (e == 0.0) & (np.abs(link.factor) == 1.0)
        ends = []
        for side, sign in ((self._bounds.lower[source], -1.0), (self._bounds.upper[source], 1.0)):
            end = (sign * side[link.units] + e) * np.abs(share)
            ends.append(
                end + np.where(exact, 0.0, slack(np.abs(end) + e * np.abs(share), FEW, SMALLEST))
            )
        below, above = (np.where(share < 0.0, *pair) for pair in (ends[::-1], ends))
        np.fmax.at(lower, place, -below)
        np.fmin.at(upper, place, above)
        # What is not negative is linear; nothing more has to be known of new units.
        fresh = np.flatnonzero((lower < 0.0) & ~link.mapped)
        if layer.relu and fresh.size and k:
            minus = layer.affine.signed(fresh, -1.0)
            below, _ = crown.upper_bounds(minus, self._relaxations(), self._box)
            lower[fresh] = np.fmax(lower[fresh], -below)
        self.lower.append(lower)
        self.upper.append(upper)
        low, high = self._outputs(k)
        self._new_size.append(np.maximum(np.abs(low), np.abs(high)))

    def _outputs(self, k: int) -> tuple[Array, Array]:
        """Bounds on the outputs of a new layer, or on the inputs."""
        if k < 0:
            return self._box.lower, self._box.upper
        if self._new.layers[k].relu:
            return np.maximum(self.lower[k], 0.0), np.maximum(self.upper[k], 0.0)
        return self.lower[k], self.upper[k]

    def _relaxations(self) -> list[crown.Relaxation]:
        """Of the layers of the new chain that are bounded so far."""
        sizes = [self._input, *self._new_size]
        return [
            crown.relax(layer.affine, layer.relu, lower, upper, size)
            for layer, lower, upper, size in zip(
                self._new.layers, self.lower, self.upper, sizes, strict=False
            )
        ]

    def _pair(self, old: Rows, s: int, new: Rows, k: int) -> Array:
        """Bounds on |old(h_s) - new(h'_k)|, row by row."""
        error = np.zeros(len(old.bias))
        if not error.size:
            return error
        while s >= 0:
            if k >= 0 and self._origins[k].source == s:
                cost, old, new = self._step(old, s, new, k)
                k -= 1
            else:
                cost, old = self._old_step(old, s, old.weight, self._bounds.linear(s))
            error = error + cost
            s -= 1
        weight, bias = old.weight - new.weight, old.bias - new.bias
        # What overflowed has no bound.
        error[~(np.isfinite(weight).all(axis=1) & np.isfinite(bias))] = np.inf
        rest = Affine(np.nan_to_num(weight), np.nan_to_num(bias))
        low, high = interval_bounds(rest, self._box.lower, self._box.upper)
        # The additions of all steps are rounded as well.
        wide = 1.0 + gamma(FEW * (1 + len(self._old.layers)))
        return np.asarray((np.maximum(np.abs(low), np.abs(high)) + error) * wide)

    def _step(self, old: Rows, s: int, new: Rows, k: int) -> tuple[Array, Rows, Rows]:
        """Back through a layer that both chains have."""
        link, width = self.links[k], self._new.layers[k].width
        outgoing = old.weight[:, link.units]
        difference = np.where(link.mapped, link.gather(outgoing) - new.weight, 0.0)
        # A row in which what is linear on both sides differs is compared one layer further down.
        further = (difference[:, link.common] != 0.0).any(axis=1)
        matched = link.mapped & ~(further[:, None] & link.common)
        rounded = link.rounded()
        off = np.abs(difference) + rounded * link.gather(np.abs(outgoing))
        off += np.where(rounded > 0.0, width * SMALLEST, 0.0)
        cost = reach(np.where(matched, off, 0.0), self._new_size[k])
        here = matched[:, link.place]
        cost = cost + reach(np.where(here, outgoing, 0.0), link.moved)
        cost = cost * (1.0 + gamma(2 * width + outgoing.shape[1]))
        turned, weight = link.factor < 0.0, old.weight.copy()
        weight[:, link.units] = np.where(here & ~turned, 0.0, outgoing)
        linear = self._bounds.linear(s)
        linear[link.units[turned]] = True
        more, old = self._old_step(old, s, weight, linear)
        most, new = self._new_step(new, k, np.where(matched, 0.0, new.weight))
        return cost + more + most, old, new

    def _old_step(
        self, rows: Rows, s: int, weight: Array, linear: NDArray[np.bool_]
    ) -> tuple[Array, Rows]:
        """Back through a layer of the original, with what `weight` keeps of `rows`."""
        cost = np.zeros(len(weight))
        for together in self._together.get(s, []):
            more, weight = together.explain(weight)
            cost = cost + more
            linear[together.linear] = True
        # A unit that is neither linear nor stably inactive counts with all that it can be, or with
        # how far it can be from its pre-activation.
        below = np.maximum(-self._bounds.lower[s], 0.0)
        size = np.minimum(self._old_size[s], below)
        cost = cost + reach(weight[:, ~linear], size[~linear]) * (1.0 + gamma(linear.size))
        nearly = linear | (below < self._old_size[s])
        return self._old_layers[s].back(np.where(nearly, weight, 0.0), rows.bias, cost)

    def _new_step(self, rows: Rows, k: int, weight: Array) -> tuple[Array, Rows]:
        """Back through a layer of the new chain, as if it had no ReLU."""
        layer = self._new.layers[k]
        cost = np.zeros(len(weight))
        if layer.relu:
            cost = reach(weight, np.maximum(-self.lower[k], 0.0)) * (1.0 + gamma(layer.width))
        return self._new_layers[k].back(weight, rows.bias, cost)
