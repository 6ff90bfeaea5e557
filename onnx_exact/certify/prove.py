"""Proves the verdicts on a chain once more, from nothing but what a certificate will hold.

Layer by layer, each with what was proved of those before: interval bounds, linear bounds with
default slopes, and for stable units that these do not show, slopes or splittings of their own. What
cannot be proved, or only by more parts of the box than are worth giving, is UNDECIDED from there
on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from onnx_exact.bab.input_split.search import MOST_INPUTS
from onnx_exact.bab.trees import BoxTree, ReluTree
from onnx_exact.bounds import crown
from onnx_exact.bounds.interval import Signed, exact_extremes, interval_bounds, times
from onnx_exact.certify.bounds import Bounds
from onnx_exact.certify.leaves import Sign, split_until_proved
from onnx_exact.certify.parts import Signs, split_until_excluded
from onnx_exact.certify.proof import (
    BoxTreeProof,
    ChainProof,
    LayerProof,
    Proof,
    ReluTreeProof,
    Slopes,
    TreeProof,
)
from onnx_exact.certify.slopes import optimized_slopes
from onnx_exact.certify.witnesses import chosen_witnesses
from onnx_exact.deadline import Deadline
from onnx_exact.decide.verdict import LayerVerdicts, Stability, Status
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.threads import one_thread

# How far below 0 a bound has to be, relative to the terms of the pre-activation, so that whoever
# checks it with another rounding finds it below 0 too.
MARGIN = 1e-12
# Nodes of a tree: of parts of the box, and of ReLUs.
MOST_PARTS = 150_000
MOST_NODES = 8_000
# Seconds for a sign that no splitting is known for.
SECONDS = 20.0
# Share of the bytes a proof may take that witnesses and trees get.
WITNESS_SHARE, TREE_SHARE = 0.25, 0.7


def prove_chain(
    chain: Chain, box: Box, stability: Stability, deadline: Deadline, most_bytes: float = np.inf
) -> ChainProof:
    """Proves what can be proved of the verdicts on a chain.

    Args:
        chain: the network.
        box: the domain, finite.
        stability: the verdicts, the splittings and the witnesses.
        deadline: for looking for proofs of what is not proved yet.
        most_bytes: that splittings and witnesses may take together, before compression.
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
        self._trees: list[TreeProof] = []

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
        """Interval bounds and linear bounds with default slopes."""
        layer = self._chain.layers[index]
        before = self._relaxations[-1] if index else None
        low, high = (before.low, before.high) if before else (self._box.lower, self._box.upper)
        lower, upper = interval_bounds(layer.affine, low, high)
        self._lower.append(lower)
        self._upper.append(upper)
        if not index:
            return
        for sign, side in ((1.0, upper), (-1.0, lower)):
            loose = np.flatnonzero(((lower < 0.0) & (upper > 0.0)) | (not layer.relu))
            if loose.size:
                rows = self._rows(index, loose, sign > 0.0)
                found, _ = crown.upper_bounds(rows, self._relaxations, self._box)
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
            slopes = self._prove_by_slopes(index, verdicts, proof)
            self._prove_by_trees(index, verdicts, proof)
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
        weight = Signed.of(affine.weight)
        low, high = np.abs(before.low), np.abs(before.high)
        above = times(weight.positive, high) - times(weight.negative, low) + np.abs(affine.bias)
        below = times(weight.positive, low) - times(weight.negative, high) + np.abs(affine.bias)
        exact = affine.off(before.magnitude) == 0.0
        return (above == 0.0) & exact, (below == 0.0) & exact

    def _room(self, index: int) -> Array:
        """The margin of each unit of a layer."""
        affine = self._chain.layers[index].affine
        size = self._relaxations[index - 1].magnitude
        return MARGIN * (times(np.abs(affine.weight), size) + np.abs(affine.bias))

    def _rows(self, index: int, units: NDArray[np.intp], positive: bool) -> Affine:
        return self._chain.layers[index].affine.signed(units, 1.0 if positive else -1.0)

    def _open(
        self, verdicts: LayerVerdicts, proof: NDArray[np.int8], positive: bool
    ) -> NDArray[np.intp]:
        """Units said to be stable that lack a proof of the sign in question."""
        status = Status.INACTIVE if positive else Status.ACTIVE
        return np.flatnonzero((verdicts.status == status) & (proof == Proof.NONE))

    def _exclude(self, index: int, units: NDArray[np.intp], positive: bool) -> None:
        """Takes in that signs do not occur."""
        if positive:
            self._upper[index][units] = np.minimum(self._upper[index][units], 0.0)
        else:
            self._lower[index][units] = np.maximum(self._lower[index][units], 0.0)

    def _prove_by_slopes(
        self, index: int, verdicts: LayerVerdicts, proof: NDArray[np.int8]
    ) -> Slopes | None:
        """Optimised slopes for signs that default ones leave open."""
        room = self._room(index)
        found = []
        for positive in (True, False):
            units = self._open(verdicts, proof, positive)
            if not units.size:
                continue
            bounds, values = optimized_slopes(
                self._rows(index, units, positive),
                self._relaxations,
                self._loose,
                self._box,
                -room[units],
                self._deadline,
            )
            done = bounds <= -room[units]
            proof[units[done]] = Proof.SLOPES
            self._exclude(index, units[done], positive)
            side = np.full(int(done.sum()), positive)
            found.append(Slopes(units[done].astype(np.int32), side, values[done]))
        if not sum(s.unit.size for s in found):
            return None
        return Slopes(
            np.concatenate([s.unit for s in found]),
            np.concatenate([s.positive for s in found]),
            np.concatenate([s.values for s in found]),
        )

    def _prove_by_trees(self, index: int, verdicts: LayerVerdicts, proof: NDArray[np.int8]) -> None:
        """Splittings that are known, and where there are none, new ones."""
        for tree in self._stability.trees:
            if tree.layer == index and isinstance(tree, BoxTree):
                self._split_box(index, proof, tree)
        if self._chain.n_in <= MOST_INPUTS:
            for positive in (True, False):
                units = self._open(verdicts, proof, positive)
                if units.size:
                    side = np.full(units.size, positive)
                    sides = np.full(1, -1, dtype=np.int16)
                    self._split_box(index, proof, BoxTree(index, units, side, sides))
        known = {
            (tree.unit, tree.positive): tree.splits
            for tree in self._stability.trees
            if tree.layer == index and isinstance(tree, ReluTree)
        }
        for positive in (True, False):
            for unit in self._open(verdicts, proof, positive):
                splits = known.get((int(unit), positive))
                self._split_relus(index, proof, int(unit), positive, splits)

    def _split_box(self, index: int, proof: NDArray[np.int8], tree: BoxTree) -> None:
        lacking = proof[tree.units] == Proof.NONE
        units, positive = tree.units[lacking], tree.positive[lacking]
        if not units.size:
            return
        affine = self._chain.layers[index].affine
        sign = np.where(positive, 1.0, -1.0)
        signs = Signs(
            self._chain,
            index,
            affine.signed(units, sign),
            -self._room(index)[units],
            self._lower,
            self._upper,
            self._box,
        )
        nodes = split_until_excluded(signs, tree.sides, MOST_PARTS, self._deadline)
        if nodes is None or nodes.nbytes > self._bytes:
            return
        self._bytes -= nodes.nbytes
        self._trees.append(BoxTreeProof(index, units.astype(np.int32), positive, nodes))
        proof[units] = Proof.TREE
        for side in (True, False):
            self._exclude(index, units[positive == side], side)

    def _split_relus(
        self,
        index: int,
        proof: NDArray[np.int8],
        unit: int,
        positive: bool,
        splits: NDArray[np.int32] | None,
    ) -> None:
        one = np.array([unit])
        sign = Sign(
            self._rows(index, one, positive),
            self._relaxations,
            self._loose,
            -float(self._room(index)[unit]),
            self._box,
        )
        if splits is None:
            splits = np.full((1, 2), -1, dtype=np.int32)
        seconds = Deadline(min(SECONDS, self._deadline.remaining))
        leaves = split_until_proved(sign, splits, MOST_NODES, seconds)
        if leaves is None or leaves.nbytes > self._bytes:
            return
        self._bytes -= leaves.nbytes
        self._trees.append(
            ReluTreeProof(
                index,
                one.astype(np.int32),
                np.array([positive]),
                leaves.nodes,
                leaves.slopes,
                leaves.multipliers,
            )
        )
        proof[unit] = Proof.TREE
        self._exclude(index, one, positive)

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
