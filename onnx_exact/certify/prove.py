"""Replays the evidence of the verdicts on a chain, from nothing but what a certificate will hold.

Layer by layer, each with what was proved of those before: interval bounds, linear bounds with
default slopes and with slopes of 0, and for stable units that these do not show, the slopes or
splittings that settled them, gone on with for a little where bounds are now a little wider; slopes
that narrow units below them come along. What does not hold, or takes too many bytes, is UNDECIDED
from there on.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.input_split.search import MOST_INPUTS, BoxSearch
from onnx_exact.bab.question import Question, in_bytes, margins
from onnx_exact.bab.relu_split.search import split_sign
from onnx_exact.bab.trees import LEAF, Leaves, Tree
from onnx_exact.bounds import crown
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import SLOPE_STEPS, Cases, bounds_of
from onnx_exact.bounds.interval import SignedOperator, exact_extremes, interval_bounds
from onnx_exact.budgets import BUDGETS
from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.certificate import arrays_of_tree
from onnx_exact.certify.proof import ChainProof, LayerProof, Proof, Slopes
from onnx_exact.certify.witnesses import chosen_witnesses
from onnx_exact.decide.verdict import LayerVerdicts, Narrowed, Stability, Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.threads import one_thread

# Share of the bytes a proof may take that witnesses and trees get.
WITNESS_SHARE, TREE_SHARE = 0.25, 0.7
# Parts of the box of which no fewer are to be expected in a byte of a compressed tree.
MOST_PARTS_A_BYTE = 4.0


def prove_chain(
    chain: Chain, box: Box, stability: Stability, deadline: Deadline, most_bytes: float = np.inf
) -> ChainProof:
    """The verdicts on a chain whose evidence holds, and that evidence as a certificate has it.

    Args:
        chain: the network.
        box: the domain, finite.
        stability: the verdicts, the splittings and the witnesses.
        deadline: the user's.
        most_bytes: that splittings, compressed, and witnesses may take together.
    """
    # What overflows has no bound.
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        prover = _Prover(chain, box, stability, deadline, most_bytes)
        for index in range(len(chain.layers)):
            prover.add_layer(index)
        return prover.finished(most_bytes)


class _Prover:
    """The layers proved so far."""

    def __init__(
        self, chain: Chain, box: Box, stability: Stability, deadline: Deadline, most_bytes: float
    ) -> None:
        self._chain, self._box, self._stability = chain, box, stability
        self._deadline, self._bytes = deadline, TREE_SHARE * most_bytes
        self._lower: list[Array] = []
        self._upper: list[Array] = []
        self._relaxations: list[crown.Relaxation] = []
        self._loose: list[NDArray[np.intp]] = []
        self._layers: list[LayerProof | None] = []
        self._trees: list[Tree] = []

    def add_layer(self, index: int) -> None:
        """Proves what can be proved of one layer."""
        layer, verdicts = self._chain.layers[index], self._stability.layers[index]
        self._bound(index)
        if verdicts is None:
            self._layers.append(None)
            self._loose.append(np.zeros(0, dtype=np.intp))
        else:
            proof = self._proved(index, verdicts)
            self._layers.append(proof)
            self._loose.append(proof.loose)
        size = self._relaxations[-1].magnitude if index else self._input_size
        self._relaxations.append(
            crown.relax(layer.affine, layer.relu, self._lower[index], self._upper[index], size)
        )

    @property
    def _input_size(self) -> Array:
        return np.maximum(np.abs(self._box.lower), np.abs(self._box.upper))

    def _bound(self, index: int) -> None:
        """Interval bounds, and linear bounds with default slopes and with slopes of 0."""
        layer = self._chain.layers[index]
        before = self._relaxations[-1] if index else None
        low, high = (before.low, before.high) if before else (self._box.lower, self._box.upper)
        lower, upper = interval_bounds(layer.affine, low, high)
        self._lower.append(lower)
        self._upper.append(upper)
        if not index:
            return
        for slopes, sign in product((None, crown.flat_slopes(self._relaxations)), (1.0, -1.0)):
            side = upper if sign > 0.0 else lower
            loose = np.flatnonzero(crown.unstable_units(lower, upper) | (not layer.relu))
            if loose.size:
                rows = self._rows(index, loose, sign > 0.0)
                found, _ = crown.upper_bounds(rows, self._relaxations, self._box, slopes)
                side[loose] = (np.fmin if sign > 0.0 else np.fmax)(side[loose], sign * found)

    def _proved(self, index: int, verdicts: LayerVerdicts) -> LayerProof:
        """The proofs of one layer's verdicts; its bounds are tightened by them."""
        inactive, active = (verdicts.status == s for s in (Status.INACTIVE, Status.ACTIVE))
        proof = np.full(verdicts.units, Proof.NONE, dtype=np.int8)
        if not index:
            self._settle_ties(verdicts)
        clear = self._clear(index)
        proof[(inactive & clear[0]) | (active & clear[1])] = Proof.BOUNDS
        slopes = None
        if index and self._bounded(index):
            trees = [tree for tree in self._stability.trees if tree.layer == index]
            slopes = self._narrowed(index, self._prove_by_slopes(index, verdicts, proof, trees))
            for tree in trees:
                if tree.splits.size > 1:
                    self._prove_by_tree(index, proof, tree)
            for tree in self._roots(index, verdicts, proof):
                self._prove_by_tree(index, proof, tree)
        # A bound that is below 0 by less than the margin is one all the same.
        open_units = (inactive | active) & (proof == Proof.NONE)
        bounded = (inactive & (self._upper[index] <= 0.0)) | (active & (self._lower[index] >= 0.0))
        proof[open_units & bounded] = Proof.BOUNDS
        lacking = (inactive | active) & (proof == Proof.NONE)
        status = np.where(lacking, Status.UNDECIDED, verdicts.status).astype(np.int8)
        return LayerProof(status, proof, slopes)

    def _bounded(self, index: int) -> bool:
        """Whether all that a layer reads is bounded."""
        known = (*self._lower[:index], *self._upper[:index], self._room(index))
        return all(bool(np.isfinite(values).all()) for values in known)

    def _settle_ties(self, verdicts: LayerVerdicts) -> None:
        """Bounds the first layer's stable units in rationals where rounding hides their sign."""
        affine, box = self._chain.layers[0].affine, self._box
        lower, upper = self._lower[0], self._upper[0]
        for status, hidden in (
            (Status.INACTIVE, upper > 0.0),
            (Status.ACTIVE, lower < 0.0),
        ):
            for unit in np.flatnonzero((verdicts.status == status) & hidden):
                least, most, off = exact_extremes(affine, int(unit), box.lower, box.upper)
                if most <= -off:
                    upper[unit] = min(upper[unit], 0.0)
                if least >= off:
                    lower[unit] = max(lower[unit], 0.0)

    def _clear(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which units are never positive, and never negative, by enough of a margin."""
        lower, upper = self._lower[index], self._upper[index]
        if not index:
            return upper <= 0.0, lower >= 0.0
        exact_high, exact_low = self._free_of_rounding(index)
        room = self._room(index)
        return (upper <= -room) | (exact_high & (upper <= 0.0)), (lower >= room) | (
            exact_low & (lower >= 0.0)
        )

    def _free_of_rounding(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Units whose interval's upper end, and lower end, is a sum of zeros."""
        affine, before = self._chain.layers[index].affine, self._relaxations[index - 1]
        weight = SignedOperator(affine.linear)
        low, high = np.abs(before.low), np.abs(before.high)
        above = weight.plus(high) - weight.minus(low) + np.abs(affine.bias)
        below = weight.plus(low) - weight.minus(high) + np.abs(affine.bias)
        exact = affine.off(before.magnitude) == 0.0
        return (above == 0.0) & exact, (below == 0.0) & exact

    def _room(self, index: int) -> Array:
        """The margin of each unit of a layer."""
        return margins(self._chain.layers[index].affine, self._relaxations[index - 1].magnitude)

    def _rows(self, index: int, units: NDArray[np.intp], positive: bool) -> Affine:
        return self._chain.layers[index].affine.signed(units, 1.0 if positive else -1.0)

    def _question(
        self, index: int, units: NDArray[np.intp], positive: NDArray[np.bool_]
    ) -> Question:
        known = tuple(self._lower[:index]), tuple(self._upper[:index]), self._relaxations[:index]
        return Question(self._chain, self._box, index, units, positive, *known)

    def _exclude(self, index: int, units: NDArray[np.intp], positive: NDArray[np.bool_]) -> None:
        """Takes in that signs do not occur."""
        above, below = units[positive], units[~positive]
        self._upper[index][above] = np.minimum(self._upper[index][above], 0.0)
        self._lower[index][below] = np.maximum(self._lower[index][below], 0.0)

    def _prove_by_slopes(
        self, index: int, verdicts: LayerVerdicts, proof: NDArray[np.int8], trees: list[Tree]
    ) -> Slopes | None:
        """Slopes of signs that default ones leave open: those that settled them to begin with."""
        split = {int(unit) for tree in trees if tree.splits.size > 1 for unit in tree.units}
        units, positive = self._lacking(verdicts, proof, split)
        if not units.size:
            return None
        start = self._defaults(index, units.size)
        kept = {(int(t.units[0]), bool(t.positive[0])): t.leaves for t in trees if t.leaves}
        for row, sign in enumerate(zip(units.tolist(), positive.tolist(), strict=True)):
            leaf = kept.get(sign)
            if leaf is not None:
                start[row, leaf.units] = leaf.slopes[0]
        question = self._question(index, units, positive)
        asked = question.rows, question.below, self._box
        found = optimize(*asked, BUDGETS.replay_steps, _with_slopes(question, start))
        done = found.bounds <= 0.0
        proof[units[done]] = Proof.SLOPES
        self._exclude(index, units[done], positive[done])
        values = in_bytes(found.cases.rows(done))[:, self._loose_below(index)]
        return Slopes(units[done].astype(np.int32), positive[done], values) if done.any() else None

    def _narrowed(self, index: int, slopes: Slopes | None) -> Slopes | None:
        """Slopes that narrow the ranges of units besides those that exclude signs."""
        for narrowed in self._stability.narrowed:
            if narrowed.layer == index:
                slopes = self._narrow(narrowed, slopes)
        return slopes

    def _narrow(self, narrowed: Narrowed, slopes: Slopes | None) -> Slopes | None:
        """Takes in bounds with slopes of their own; those that are better join the others."""
        index, positive = narrowed.layer, bool(narrowed.positive[0])
        question = self._question(index, narrowed.units, narrowed.positive)
        cases = _with_slopes(question, narrowed.slopes)
        bounds, _ = bounds_of(question.rows, question.below, self._box, cases)
        known = self._upper[index] if positive else -self._lower[index]
        better = bounds < known[narrowed.units]
        values = narrowed.slopes[better][:, self._loose_below(index)]
        units = narrowed.units[better].astype(np.int32)
        nbytes = len(zlib.compress(values.tobytes()))
        if not units.size or nbytes > self._bytes:
            return slopes
        self._bytes -= nbytes
        side = self._upper[index] if positive else self._lower[index]
        side[units] = bounds[better] if positive else -bounds[better]
        found = Slopes(units, narrowed.positive[better], values)
        return found if slopes is None else slopes.and_(found)

    def _roots(
        self, index: int, verdicts: LayerVerdicts, proof: NDArray[np.int8]
    ) -> Iterator[Tree]:
        """Trees to begin with for signs of which no evidence that holds was kept.

        Bounds settled them that were a little narrower on the way.
        """
        units, positive = self._lacking(verdicts, proof, set())
        leaf, none = np.array([LEAF], dtype=np.int32), np.zeros(0, dtype=np.float32)
        if units.size and self._chain.n_in <= MOST_INPUTS:
            yield Tree(index, units, positive, leaf)
        elif units.size:
            leaves = Leaves(none.astype(np.intp), np.zeros((1, 0), dtype=np.uint8), none)
            for i in range(units.size):
                yield Tree(index, units[[i]], positive[[i]], leaf, leaves)

    @staticmethod
    def _lacking(
        verdicts: LayerVerdicts, proof: NDArray[np.int8], passed_over: set[int]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Stable units without a proof, and whether it is their positive sign that is excluded."""
        stable = np.isin(verdicts.status, (Status.INACTIVE, Status.ACTIVE))
        found = [u for u in np.flatnonzero(stable & (proof == Proof.NONE)) if u not in passed_over]
        units = np.array(found, dtype=np.intp)
        return units, verdicts.status[units] == Status.INACTIVE

    def _defaults(self, index: int, count: int) -> NDArray[np.uint8]:
        """The slopes that everybody starts from, of all units below, for so many bounds."""
        slopes = np.concatenate([r.lower_slope for r in self._relaxations[:index]])
        return np.tile(np.rint(slopes * SLOPE_STEPS).astype(np.uint8), (count, 1))

    def _loose_below(self, index: int) -> NDArray[np.intp]:
        """The loose units of the layers before one, numbered through all of them."""
        starts = np.cumsum([0, *(layer.width for layer in self._chain.layers[: index - 1])])
        found = zip(starts, self._loose[:index], strict=True)
        return np.concatenate([start + loose for start, loose in found]).astype(np.intp)

    def _prove_by_tree(self, index: int, proof: NDArray[np.int8], known: Tree) -> None:
        """Replays a splitting for those of its signs that are not proved yet."""
        lacking = proof[known.units] == Proof.NONE
        if not lacking.any() or self._size(known) > self._bytes:
            return
        question = self._question(index, known.units[lacking], known.positive[lacking])
        most = BUDGETS.replay_least + int(BUDGETS.replay_times * known.splits.size)
        if known.leaves is None:
            most = int(min(most, MOST_PARTS_A_BYTE * self._bytes))
            search = BoxSearch(question, known)
            trees = [t for found in search.run(most, self._deadline) for t in found.trees]
        else:
            trees = [*split_sign(question, most, self._deadline, known)[0].trees]
        for tree in trees:
            tree = self._on_loose(tree)
            nbytes = self._size(tree)
            if nbytes <= self._bytes:
                self._bytes -= nbytes
                self._trees.append(tree)
                proof[tree.units] = Proof.TREE
                self._exclude(index, tree.units, tree.positive)

    def _size(self, tree: Tree) -> int:
        """The bytes that a tree takes in a certificate."""
        arrays = arrays_of_tree(tree, self._chain).values()
        return sum(len(zlib.compress(array.tobytes())) for array in arrays)

    def _on_loose(self, tree: Tree) -> Tree:
        """A tree whose leaves have slopes for the loose units below, and no others."""
        if tree.leaves is None:
            return tree
        slopes = self._defaults(tree.layer, len(tree.leaves.slopes))
        slopes[:, tree.leaves.units] = tree.leaves.slopes
        loose = self._loose_below(tree.layer)
        return replace(tree, leaves=Leaves(loose, slopes[:, loose], tree.leaves.multipliers))

    def finished(self, most_bytes: float) -> ChainProof:
        """The proof of the whole chain, with witnesses."""
        unstable = [
            np.zeros(0, dtype=np.intp) if layer is None else layer.where(Status.UNSTABLE)
            for layer in self._stability.layers
        ]
        points, shown = chosen_witnesses(
            self._chain,
            self._box,
            self._stability.witnesses,
            unstable,
            WITNESS_SHARE * most_bytes,
        )
        for layer, units, seen in zip(self._layers, unstable, shown, strict=True):
            if layer is not None:
                layer.proof[units] = np.where(seen[units], Proof.WITNESS, Proof.UNSHOWN)
        bounds = Bounds(self._chain, tuple(self._lower), tuple(self._upper))
        return ChainProof(tuple(self._layers), tuple(self._trees), points, bounds)


def _with_slopes(question: Question, values: NDArray[np.uint8]) -> Cases:
    """Cases with slopes in units of 1 / `SLOPE_STEPS`, given for all units below side by side."""
    starts = np.cumsum([r.affine.n_out for r in question.below])[:-1]
    return Cases((), tuple(np.split(values / SLOPE_STEPS, starts, axis=1)), ())
