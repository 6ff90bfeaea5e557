"""A layer's normal form: kinks and a linear map.

On the domain, what a layer with units g_i = w_i h + b_i gives to its reader V h' + c is

    sum_i V_i max(g_i, 0) + c  =  sum_k J_k max(g_k, 0)  +  sum_d l_d g_d  +  c',

one kink for each hyperplane {g_k = 0} and one linear term for each direction w_d:

      h ---+--- g_1, g_4 = 2 g_1, g_7 = -g_1 ---> [/] --- J_1 = V_1 + 2 V_4 + V_7 ---+
           |                                                                        |
           +--- g_2 ----------------------------> [/] --- J_2 = V_2 ----------------+---> + c'
           |                                                                        |
           +--- g_5 active, w_6 = 3 w_5 active ---------- l_5 = V_5 + 3 V_6 --------+
           +--- g_7 = -g_1 ------------------------------ l_7 = V_7 ----------------+

Every unit is one of these, and only *active* needs a verdict:

    constant    w_i = 0                V_i max(b_i, 0) goes into c';
    active      g_i >= 0               V_i g_i, with g_i = f g_d + (b_i - f b_d) where w_i = f w_d;
    multiple    g_i = a g_k, a > 0     max(g_i, 0) = a max(g_k, 0): a V_i goes into J_k;
    opposite    g_i = -a g_k, a > 0    max(g_i, 0) = a max(g_k, 0) + g_i: a V_i goes into J_k, and
                                       V_i g_i is linear.

A jump J_k of 0 is no kink, and l_d = 0 is no direction: what cancels does so on the coefficients,
before any product of matrices. A kink may face either way, J max(g, 0) = J max(-g, 0) + J g: it is
turned where that takes its direction away. What costs every reader less than half a unit in the
last place of its largest term, all of it together, is dropped where that is wanted (*negligible*).

Whatever is computed carries a bound on its rounding, which is charged to the reader's budget.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.network.approximate import Approximate, quotient
from onnx_exact.network.operator import Operator, row_blocks
from onnx_exact.reduce.budget import reach
from onnx_exact.reduce.collinear import Index, Multiples, RowsOf, collinear
from onnx_exact.reduce.ledger import Columns, Ledger, Units
from onnx_exact.reduce.orient import is_tried, turnings
from onnx_exact.reduce.units import GONE

# What may be left of terms that cancel, in roundings of these terms.
CANCELLED = 8.0


class NormalForm:
    """The normal form of a layer; arrays have an entry a unit, matrices a column a unit.

    Attributes:
        units: of the layer.
        ledger: what it moves, and the constant.
        kink: which units are kinks.
        jump: J.
        turned: which kinks face the other way.
        linear: which units may give a linear part: those that are active, or all but.
        opposite, ratio: a unit q with g_q = -ratio g_k for kink k, ratio > 0; GONE for none.
        amount: l; 0 for units that are no direction.
        line, slope: the unit d with w_i = slope_i w_d that stands for the direction of unit i.
        line_off: how far w_i may be from that.
        place, factor: the unit k with g_i = factor_i g_k that stands for the hyperplane of unit i.
        apart: J of a kink and of the unit opposite to it, before the two were one.
        constants, negligible: how many units went into the constant, and how many were dropped.
    """

    def __init__(self, units: Units, read: Operator, ledger: Ledger) -> None:
        n = units.affine.n_out
        self.units, self.ledger = units, ledger
        self.kink, self.turned = ~units.active, np.zeros(n, dtype=bool)
        self.linear = units.active.copy()
        self.jump = Columns(read, self.kink)
        self.amount = Columns(read, units.active)
        self.opposite, self.ratio = np.full(n, GONE), np.ones(n)
        self.line, self.slope, self.line_off = np.arange(n), np.ones(n), np.zeros(n)
        self.place, self.factor = np.arange(n), np.ones(n)
        self.apart: dict[int, tuple[Approximate, Approximate]] = {}
        self.constants = self.negligible = 0
        self._off = units.affine.off(units.size)
        self._move_constants()
        self._join_kinks()
        self._join_directions()
        self._turn()

    @property
    def directions(self) -> Index:
        """The units that stand for a direction."""
        return np.flatnonzero(self.amount.value.any(axis=0))

    def _cut(self, total: Approximate, sizes: Array) -> tuple[Approximate, Array]:
        """A sum without what is left of terms that cancel, and that."""
        left = np.abs(total.value) + total.off
        gone = left <= CANCELLED * self.ledger.roundoff * sizes
        kept = Approximate(np.where(gone, 0.0, total.value), np.where(gone, 0.0, total.off))
        return kept, np.where(gone, left, 0.0)

    def _move_constants(self) -> None:
        """Units that read nothing that is ever other than 0: all of them, or those that can be."""
        affine = self.units.affine
        units = np.flatnonzero(~affine.read_by_rows(self.units.size > 0.0))
        if units.size and not self._moved_constants(units) and units.size > 1:
            for unit in units[:, None]:
                self._moved_constants(unit)

    def _moved_constants(self, units: Index) -> bool:
        bias = self.units.numbers(units)[1]
        added = self.amount.of(units) @ bias + self.jump.of(units) @ bias.rectified
        if not self.ledger.take(np.zeros_like(self.ledger.room), added):
            return False
        self.amount.drop(units)
        self.jump.drop(units)
        self.kink[units] = False
        self.constants += units.size
        return True

    def _groups(self, rows: RowsOf, size: Array, order: Index) -> list[Multiples]:
        if order.size < 2:
            return []
        roundoff, allowed = self.ledger.roundoff, self.units.own
        if self.ledger.room.any():
            blocks = row_blocks(len(allowed), len(size))
            terms = [reach(rows(np.arange(b.start, b.stop)), size) for b in blocks]
            allowed = allowed + roundoff * np.concatenate(terms)
        return collinear(rows, size, allowed, order)

    def _residue(self, group: Multiples) -> Array:
        """How far each unit is from its factor times the first, beyond what it may be itself."""
        off = group.residue + self._off[group.units]
        off = off + np.abs(group.factors) * self._off[group.first]
        return np.asarray(np.maximum(off - self.units.own[group.units], 0.0))

    def _join_kinks(self) -> None:
        """Multiples and opposites, each group by itself."""
        affine, size = self.units.affine, np.append(self.units.size, 1.0)

        def rows(units: Index) -> Array:
            return np.column_stack([affine.linear.rows(units), affine.bias[units]])

        order = np.argsort(~self.units.decided, kind="stable")
        for group in self._groups(rows, size, order[self.kink[order]]):
            residue, same = self._residue(group), group.factors > 0.0
            self._join(group.first, group.units[same], group.factors[same], residue[same])
            others = np.flatnonzero(~same)
            if others.size:
                first, more = others[0], others[1:]
                other, ratio = int(group.units[first]), -float(group.factors[first])
                factors = -group.factors[more] / ratio
                both = residue[more] + factors * residue[first]
                self._join(other, group.units[more], factors, both)
                self._oppose(group.first, other, ratio, residue[[first]])

    def _join(self, into: int, units: Index, factors: Array, residue: Array) -> None:
        """Multiples of a kink, all of them or those that there is room for."""
        if units.size and not self._joined(into, units, factors, residue) and units.size > 1:
            for one in np.arange(units.size)[:, None]:
                self._joined(into, units[one], factors[one], residue[one])

    def _joined(self, into: int, units: Index, factors: Array, residue: Array) -> bool:
        read = self.jump.of(units)
        sizes = np.abs(self.jump.value[:, into]) + np.abs(read.value) @ factors
        total, cut = self._cut(self.jump.of(into) + read @ Approximate(factors), sizes)
        height = self.units.upper[[into]]
        charge = reach(read.value, residue) + reach(cut[:, None], height)
        passing = reach(self.ledger.rounding(total)[:, None], height)
        if not self.ledger.take(charge, None, passing):
            return False
        self.jump.drop(units)
        self.jump.put(into, total)
        self.kink[units], self.kink[into] = False, total.value.any()
        for unit, factor in zip(units, factors, strict=True):
            members = self.place == unit
            self.factor[members] *= factor
            self.place[members] = into
        return True

    def _oppose(self, kink: int, other: int, ratio: float, residue: Array) -> None:
        """Makes one kink of two opposite units, and the second of them linear."""
        apart, members = (self.jump.of(kink), self.jump.of(other)), self.place == other
        if apart[1].value.any() and self._joined(
            kink, np.array([other]), np.array([ratio]), residue
        ):
            self.factor[members] *= -1.0
            self.amount.put(other, apart[1])
            self.opposite[kink], self.ratio[kink], self.apart[kink] = other, ratio, apart

    def _join_directions(self) -> None:
        """Linear parts whose rows are multiples, whatever their biases."""
        linear = self.directions
        # Exactly, an opposite unit gives a linear part with no shift, and so with nothing rounded.
        last = self.units.active if not self.ledger.room.any() else ~self.units.active
        order = np.argsort(last[linear], kind="stable")
        alone = np.flatnonzero(self.kink & (self.opposite == GONE))
        if not linear.size:
            return
        rows, carries = self.units.affine.linear.rows, np.isin(np.arange(len(self.kink)), linear)
        for group in self._groups(rows, self.units.size, np.append(linear[order], alone)):
            residue = self._residue(group)
            for unit, factor, off in zip(group.units, group.factors, residue, strict=True):
                if not carries[unit] or self._along(group.first, unit, factor, off):
                    self.line[unit], self.slope[unit] = group.first, factor
                    self.line_off[unit] = off

    def _along(self, into: int, unit: int, factor: float, residue: float) -> bool:
        """Adds the linear part of a unit to that of another."""
        read = self.amount.of(unit)
        added = self.added_to(into, read, unit, factor)
        charge = np.abs(read.value) * residue
        if not self.moves_amount(into, added, charge):
            return False
        self.amount.drop([unit])
        return True

    def added_to(
        self, into: int, read: Approximate, unit: int, factor: float
    ) -> tuple[Approximate, Approximate, Array]:
        """What read g_unit is in terms of g_into: its amount, a constant, and the terms summed."""
        scaled = read * Approximate(np.array([factor]))
        own, base = (self.units.numbers(np.array([i]))[1] for i in (unit, into))
        constant = read * (own + -(Approximate(np.array([factor])) * base))
        sizes = np.abs(self.amount.value[:, into]) + np.abs(scaled.value)
        return self.amount.of(into) + scaled, constant, sizes

    def moves_amount(
        self,
        into: int,
        added: tuple[Approximate, Approximate, Array],
        charge: Array,
        whole: bool = False,
    ) -> bool:
        """Takes a new amount for a direction if there is room; if `whole`, only if it is 0."""
        total, cut = self._cut(added[0], added[2])
        if whole and total.value.any():
            return False
        charge = charge + reach(cut[:, None], self.units.magnitude[[into]])
        if not self.ledger.take(charge, added[1]):
            return False
        self.amount.put(into, total)
        return True

    def _turn(self) -> None:
        """Turns kinks that take their direction away."""
        for kink in np.flatnonzero(self.kink).tolist():
            unit, read = self.unbent(kink)
            into = int(self.line[unit])
            if self.amount.value[:, into].any():
                added = self.added_to(into, read, unit, self.slope[unit])
                charge = np.abs(read.value) * self.line_off[unit]
                self.turned[kink] = self.moves_amount(into, added, charge, whole=True)

    def unbent(self, kink: int) -> tuple[int, Approximate]:
        """J g_k as a linear part: of which unit, and how much."""
        other = int(self.opposite[kink])
        return (kink, self.jump.of(kink)) if other == GONE else (other, -self.over(kink))

    def orient(self) -> bool:
        """Turns many kinks at once, where that leaves a smaller linear part; whether it does."""
        kinks = np.flatnonzero(self.kink & ~self.turned & (self.opposite == GONE))
        directions, size, room = self.directions, self.units.size, self.ledger.room
        known = np.isfinite(size).all() and bool((room > 0.0).all())
        known = known and is_tried(kinks.size, room.size)
        if not (known and directions.size and kinks.size):
            return False
        # In the scale of inputs and budgets.
        rows = self.units.affine.linear.rows
        jump, own = self.jump.value[:, kinks] / room[:, None], rows(kinks) * size
        amount, among = self.amount.value[:, directions] / room[:, None], rows(directions) * size
        linear = amount @ among
        proposals = [p for p in turnings(jump, own, linear, among, amount) if p.any()]
        if not proposals:
            return False
        terms = np.abs(amount) @ np.abs(among)
        best, turned = min(directions.size, self._left(linear, terms)), None
        for proposal in proposals:
            more = np.abs(jump[:, proposal]) @ np.abs(own[proposal])
            rank = self._left(linear + jump[:, proposal] @ own[proposal], terms + more)
            if rank < best:
                best, turned = rank, proposal
        if turned is None:
            return False
        for kink in kinks[turned].tolist():
            self.amount.put(kink, self.jump.of(kink))
        self.turned[kinks[turned]] = True
        return True

    def _left(self, linear: Array, terms: Array) -> int:
        """The rank of what is left of terms."""
        least = CANCELLED * self.ledger.roundoff * float(np.linalg.norm(terms))
        return int((np.linalg.svd(linear, compute_uv=False) > least).sum())

    def over(self, kink: int) -> Approximate:
        """J / ratio: by how much the unit opposite to a kink is read in its place."""
        return self.jump.of(kink) * quotient(np.ones(1), self.ratio[[kink]])
