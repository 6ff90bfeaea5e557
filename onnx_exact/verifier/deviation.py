"""How far the new network may be from the old one over the domain, in real arithmetic.

Layer k of the new chain stands for layer s = sources[k] of the old one, and unit i of that lives
on as a_i times unit j of the new one. For each such pair, a bound e_i on |g_i - a_i g'_j| over the
domain; ReLUs do not make it larger: |h_i - |a_i| h'_j - t_i| <= e_i with t_i = g_i where a_i < 0,
and 0 elsewhere. With functionals F of the old and F' of the new layer,

    F h - F' h' = sum_i F_i (h_i - |a_i| h'_j - t_i) + D h' + F t + R h,
    D_j = sum_(i -> j) F_i |a_i| - F'_j,

where R are the old units that live nowhere: those that are stably active are linear, those that are
stably inactive 0, others no further from one of the two than their bounds say, unless they are
gone together (`hyperplanes`). F t is linear. Of D h', the linear units of the new layer join R; the
others count with |D_j| max |h'_j|. R h and the linear part of D h' are pulled back through their
layers and compared below, down to the input. Equal numbers cancel exactly, so that removing units
gives 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from onnx_exact.verifier.bounds import Ranges, backward, intervals, tighten
from onnx_exact.verifier.hyperplanes import replace_together
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.rounding import (
    ROUNDOFF,
    SMALLEST,
    Array,
    Flags,
    Units,
    add_up,
    dot_up,
    maximum,
    mul_up,
)
from onnx_exact.verifier.schema import Claims


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two chains that are compared.

    Attributes:
        old, new: their arithmetic.
        claims: statuses of the old units, and the map.
        ranges: of the old chain.
        new_ranges: of the new chain, as far as it has been compared.
        apart: e for each layer of the new chain, on the old units; nan where nothing is known.
        missing: units that are gone although they are read and not stable, in words.
    """

    old: Products
    new: Products
    claims: Claims
    ranges: Ranges
    new_ranges: Ranges
    apart: list[Array]
    missing: list[str]


def compare(old: Products, new: Products, claims: Claims, ranges: Ranges) -> Comparison:
    """Compares two chains layer by layer.

    Raises:
        NotVerifiedError: the new chain is not what the map says.
    """
    # What is linear or 0 anyway is taken for that, where it would have to face the other way.
    stable = [ranges.linear(s) | ranges.inactive(s) for s in claims.sources]
    found = zip(claims.places, claims.factors, stable, strict=True)
    places = tuple(np.where(sure & (a < 0.0), -1, np.maximum(p, -1)) for p, a, sure in found)
    claims = replace(claims, places=places)
    fresh = Ranges([], [], ranges.box, tuple(layer.relu for layer in new.layers))
    compared = Comparison(old, new, claims, ranges, fresh, [], [])
    require(
        len(claims.places[-1]) == new.layers[-1].width and _same_units(compared, -1),
        "the map does not keep the outputs of a chain",
    )
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(len(new.layers)):
            _compare_layer(compared, k)
    return compared


def deviation(compared: Comparison) -> Array:
    """A bound on |old - new| over the domain, for each output of the chain.

    Raises:
        UncheckedError: there is none.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = _after_relu(compared, len(compared.new.layers) - 1)
    require_known(
        np.isfinite(found).all(),
        next(iter(compared.missing), "nothing bounds how far an output is off"),
    )
    return found


def _compare_layer(c: Comparison, k: int) -> None:
    """Bounds the pairs of one layer of the new chain, and its pre-activations."""
    s = c.claims.sources[k]
    first, second = c.old.layers[s], c.new.layers[k]
    units = np.flatnonzero(c.claims.places[k] >= 0)
    place, factor = c.claims.places[k][units], c.claims.factors[k][units]
    new = np.column_stack([second.weight, second.bias])[place] * factor[:, None]
    rounding = (ROUNDOFF * np.abs(new) + SMALLEST) * (np.abs(factor) != 1.0)[:, None]
    loss = add_up(
        dot_up(rounding, np.append(c.new_ranges.magnitude(k - 1), 1.0)), _off(c, k, units)
    )
    rows, bias = np.hstack([first.weight[units], -new[:, :-1]]), first.bias[units]
    starts = [add_up(a, b) for a, b in ((bias, -new[:, -1]), (-bias, new[:, -1]))]
    start = add_up(np.concatenate(starts), np.tile(loss, 2))
    found = backward(_levels(c, s - 1, k - 1), np.vstack([rows, -rows]), start)
    apart = np.full(first.width, np.nan)
    # What has no bound stays nan or inf.
    apart[units] = np.maximum(found.reshape(2, -1).max(axis=0), 0.0)
    c.apart.append(apart)
    _bound_layer(c, k, units)


def _off(c: Comparison, k: int, units: Units) -> Array:
    """What errors of the weights may add for each pair of a layer.

    Two layers that are read from the same numbers have the same errors E, so that what is left of
    them is E (h - h'); the units have to be the same, too.
    """
    s, factor = c.claims.sources[k], c.claims.factors[k][units]
    first, second, place = c.old.layers[s], c.new.layers[k], c.claims.places[k][units]
    alone = [_same_units(c, k)] if not k else [_same_units(c, k), _same_units(c, k - 1)]
    lined_up = s == 0 if not k else s == c.claims.sources[k - 1] + 1
    if first.weight_error is not None and all(alone) and lined_up and first.same(second):
        return dot_up(first.weight_error, _after_relu(c, k - 1) if k else np.zeros(1))
    off = first.off(c.ranges.magnitude(s - 1))[units]
    return add_up(off, mul_up(second.off(c.new_ranges.magnitude(k - 1))[place], np.abs(factor)))


def _same_units(c: Comparison, k: int) -> bool:
    """Whether all units of a layer live on as they are."""
    places, factors = c.claims.places[k], c.claims.factors[k]
    return np.array_equal(places, np.arange(len(places))) and bool((factors == 1.0).all())


def _bound_layer(c: Comparison, k: int, units: Units) -> None:
    """Bounds on the new layer: its own, and those of the old units that live on in it."""
    s, layer = c.claims.sources[k], c.new.layers[k]
    lower, upper = intervals(layer, *c.new_ranges.outputs(k - 1), exact=True)
    place, factor, apart = c.claims.places[k][units], c.claims.factors[k][units], c.apart[k][units]
    # Of g and -g, those of the new unit being the other way round where a < 0.
    ends = [add_up(end, apart) for end in (c.ranges.upper[s][units], -c.ranges.lower[s][units])]
    for own, sign, better, both in (
        (upper, 1.0, np.fmin, ends),
        (lower, -1.0, np.fmax, ends[::-1]),
    ):
        end, size = np.where(factor > 0.0, *both), np.abs(factor)
        # Division rounds to nearest.
        end = np.where(size == 1.0, end, np.nextafter(end / size, np.inf))
        better.at(own, place, sign * end)
    fresh = np.setdiff1d(np.arange(layer.width), place)
    fresh = fresh[(lower[fresh] < 0.0) & layer.relu]
    if k and fresh.size:
        tighten(lower, upper, fresh, False, None, c.new, c.new_ranges)
    c.new_ranges.lower.append(lower)
    c.new_ranges.upper.append(upper)


def _below_zero(c: Comparison, k: int) -> Array:
    """How far the ReLU of a new layer may move units that are taken for linear."""
    return np.where(c.new.layers[k].relu, np.maximum(-c.new_ranges.lower[k], 0.0), 0.0)


def _after_relu(c: Comparison, k: int) -> Array:
    """Bounds on |h_i - |a_i| h'_j - t_i|, nan for old units that live nowhere."""
    s, place, apart = c.claims.sources[k], c.claims.places[k], c.apart[k].copy()
    if not c.old.layers[s].relu:
        more = mul_up(np.abs(c.claims.factors[k]), _below_zero(c, k)[place])
        return add_up(apart, np.where(place >= 0, more, 0.0))
    if not c.new.layers[k].relu:
        apart[~c.ranges.linear(s)] = np.nan
    # Where h is 0, all of h' is the difference.
    away = mul_up(c.claims.factors[k], c.new_ranges.magnitude(k)[place])
    return np.where(c.ranges.inactive(s) & (place >= 0), np.fmin(apart, away), apart)


def _levels(c: Comparison, s: int, k: int) -> list[PairLevel]:
    """From layer s of the old chain and layer k of the new one down to the input they share."""
    levels = []
    while s >= 0:
        matched = k >= 0 and c.claims.sources[k] == s
        levels.append(PairLevel(c, s, k, matched))
        s, k = s - 1, k - matched
    return [*levels, PairLevel(c, -1, -1, False)]


@dataclass(frozen=True, eq=False)
class PairLevel:
    """The outputs h of layer s of the old chain and h' of layer k of the new one.

    Functionals of both, F h - F' h', are rows (F, -F').

    Attributes:
        c: the chains.
        s, k: -1 for the input.
        matched: whether layer k stands for layer s; else for an earlier one.
    """

    c: Comparison
    s: int
    k: int
    matched: bool

    def bound(self, rows: Array, bias: Array) -> Array:
        """None before the input."""
        if self.s >= 0:
            return np.full(bias.shape, np.inf)
        box = self.c.ranges.box
        difference = rows[:, : len(box[0])] + rows[:, len(box[0]) :]
        rounding = dot_up(ROUNDOFF * np.abs(difference), self.c.ranges.magnitude(-1))
        return add_up(maximum(difference, bias, *box), rounding)

    def step(self, rows: Array) -> tuple[Array, Array]:
        """Through the layer that comes last, or both where one stands for the other."""
        c, s, k = self.c, self.s, self.k
        width = c.old.layers[s].width
        old, new = rows[:, :width], -rows[:, width:]
        turned, loss = np.zeros_like(old), np.zeros(len(old))
        if s in c.claims.together:
            among = ~c.ranges.linear(s) & ~c.ranges.inactive(s)
            old, turned, loss = replace_together(
                old, c.old.layers[s], among, *c.claims.together[s], c.ranges, s
            )
        if self.matched:
            lives = (c.claims.places[k] >= 0) & (c.claims.factors[k] < 0.0)
            turned = turned + np.where(lives, old, 0.0)
            old, new, more = _match(c, old, new, s, k)
            loss = add_up(loss, more)
            back, more = c.new.pull_back(k, -new, *c.new_ranges.outputs(k - 1))
        else:
            old, more = _left_over(c, old, np.ones(old.shape, dtype=bool), s)
            back = -new
        loss = add_up(loss, more)
        old, more = c.old.pull_back(s, old + turned, *c.ranges.outputs(s - 1))
        return np.hstack([old, back]), add_up(loss, more)


def _match(c: Comparison, old: Array, new: Array, s: int, k: int) -> tuple[Array, Array, Array]:
    """R, the linear part of -D, and what the rest of the difference amounts to at most."""
    place = c.claims.places[k]
    counts = np.bincount(place[place >= 0], minlength=new.shape[1])
    # New units that stand for none, and those that stand for linear ones alone, are linear.
    linear_old = (place >= 0) & c.ranges.linear(s)
    linear = counts == np.bincount(place[linear_old], minlength=new.shape[1])
    linear |= not c.new.layers[k].relu
    matched, error = _matched(c, old, k)
    difference = new - matched
    # In a row that reads other amounts of linear units, all of these are compared further down.
    linear_old = linear_old & linear[place]
    apart = (difference != 0.0) & linear & (counts > 0)
    moved = apart.any(axis=1)[:, None] & linear_old
    if moved.any():
        matched, error = _matched(c, np.where(moved, 0.0, old), k)
        difference = new - matched
    read = np.where(moved | (place < 0), 0.0, np.abs(old))
    # Units that nobody reads may be as far apart as they like.
    loss = dot_up(read, np.where(read.any(axis=0), _after_relu(c, k), 0.0))
    size = np.abs(difference)
    lost = add_up(np.where(linear, 0.0, size), error + ROUNDOFF * size)
    loss = add_up(loss, dot_up(lost, c.new_ranges.magnitude(k)))
    joins = np.where(linear, difference, 0.0)
    loss = add_up(loss, dot_up(np.abs(joins), np.where(linear, _below_zero(c, k), 0.0)))
    left, more = _left_over(c, old, moved | (place < 0), s)
    return left, joins, add_up(loss, more)


def _matched(c: Comparison, old: Array, k: int) -> tuple[Array, Array]:
    """The sums of F_i a_i over the old units i that each new unit stands for, and their errors."""
    place = c.claims.places[k]
    lives = np.flatnonzero(place >= 0)
    share = np.zeros((len(place), c.new.layers[k].width))
    share[lives, place[lives]] = np.abs(c.claims.factors[k][lives])
    counts = np.count_nonzero(share, axis=0)
    rounded = (counts > 1) | (share * (share != 1.0)).any(axis=0)
    error = ROUNDOFF * (counts + 2.0) * (np.abs(old) @ share) + SMALLEST * counts
    return old @ share, error * rounded


def _left_over(c: Comparison, old: Array, among: Flags, s: int) -> tuple[Array, Array]:
    """R: the functionals of the old units `among`, and what those that are not stable add."""
    left = np.where(among & ~c.ranges.inactive(s), old, 0.0)
    lost = np.where(c.ranges.linear(s), 0.0, left)
    # h is between 0 and its bound, and g no further below it than below 0.
    high, below = c.ranges.outputs(s)[1], np.maximum(-c.ranges.lower[s], 0.0)
    nearly = c.ranges.linear(s) | (below < high)
    high = np.minimum(high, below)
    for unit in np.flatnonzero((lost * high).any(axis=0))[:1]:
        c.missing.append(
            f"unit {unit} of layer {s + 1} is gone, but it is read and not shown to be stable"
        )
    return np.where(nearly, left, 0.0), dot_up(np.abs(lost), high)
