"""Which means decide the units of a chain, in which order, and within what budget.

First pass, layer by layer: bounds, a short search for witnesses, optimised slopes. Then rounds
over the layers that still have open queries, each with more work for a single query than the last:
bounds again (what was decided below tightens them), branching on the box where there are few inputs
and on ReLUs, a longer search, the linear relaxation where many queries share a large one, and, in
later rounds, a mixed-integer program for each query that is left. `docs/deciding.md` has the
measurements behind this order.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.attack.pgd import Effort
from onnx_exact.attack.samples import greatest_corners
from onnx_exact.bab.input_split.search import MOST_INPUTS
from onnx_exact.bab.question import bounded_by_slopes
from onnx_exact.bounds.alpha_crown import optimize
from onnx_exact.bounds.cases import better_start, bounds_of
from onnx_exact.budgets import of_round
from onnx_exact.decide.branching import BoxBranching, Splitter, question_of
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.narrow import Narrower
from onnx_exact.decide.options import Options
from onnx_exact.decide.propagate import Layers, bound_by_intervals
from onnx_exact.decide.searches import evolve_query, search_layer
from onnx_exact.decide.verdict import Evidence
from onnx_exact.network.affine import Array
from onnx_exact.network.query import Query

# Steps on slopes for the open queries of a layer.
SLOPE_STEPS = 20
# From this many open queries of a layer on, compiling its relaxation pays.
LP_FROM_QUERIES = 8
# Below so many unstable units splitting comes near its optimum in less time.
LP_FROM_UNSTABLE = 400
FIRST_EFFORT = Effort(points=12, steps=40)
LATER_EFFORTS = (Effort(48, 150), Effort(96, 300), Effort(384, 300), Effort(1536, 300))


class Rounds:
    """The means for one chain, from the cheapest to the dearest.

    Args:
        knowledge: receives all that is found.
        options: see there.
    """

    def __init__(self, knowledge: Knowledge, options: Options) -> None:
        self.knowledge, self.options = knowledge, options
        self._budgets = options.budgets
        self._layers = Layers(knowledge)
        self._rng = np.random.default_rng(options.seed)
        self._narrower = Narrower(self._layers, options)
        self._branchings: dict[int, BoxBranching] = {}
        self._splitter = Splitter(knowledge, options, lambda index: self._tell("splitting", index))

    def run(self) -> None:
        """Decides what can be decided within the budgets, until a round settles nothing."""
        solvers = self.options.method != "bounds" and self.knowledge.box.finite
        self._first_pass()
        # From there on a round has nothing that the one before did not have.
        last = self._budgets.programs_from_round + len(self._budgets.program_work)
        number, before = 0, -1
        while solvers and self.knowledge.open_units and not self.options.deadline.passed:
            if number >= last and self.knowledge.open_units == before:
                break
            before = self.knowledge.open_units
            self._round(number)
            number += 1

    def _first_pass(self) -> None:
        """Bounds every layer, with as many of the units before it decided as is cheap."""
        for index, layer in enumerate(self.knowledge.chain.layers):
            self._tell("bounds", index)
            if self.options.latest.passed:
                bound_by_intervals(self.knowledge, index)
                continue
            self._run_corners(self._layers.bound(index))
            if layer.relu and self.knowledge.box.finite:
                self._search(index, FIRST_EFFORT, 0)
                self._optimize_slopes(index)
            self._layers.relax(index)

    def confirm(self, queries: set[Query]) -> None:
        """Bounds every layer, and branches for some queries alone."""
        for index, layer in enumerate(self.knowledge.chain.layers):
            if self.options.latest.passed:
                return
            self._run_corners(self._layers.bound(index))
            if layer.relu and any(query.layer == index for query in queries):
                self._optimize_slopes(index)
                if self.knowledge.chain.n_in <= MOST_INPUTS and self._open(index):
                    self._branch(index, 0)
                wanted = [query for query in self._by_bound(index) if query in queries]
                self._split(index, wanted, len(self._budgets.relu_nodes))
            self._layers.relax(index)

    def _round(self, number: int) -> None:
        """One pass over the layers with open queries, with the means that cost more."""
        few_inputs = self.knowledge.chain.n_in <= MOST_INPUTS
        for index in self.knowledge.relu_layers:
            if not self._open(index) or self.options.deadline.passed:
                continue
            self._tell("bounds", index)
            self._run_corners(self._layers.refresh(index))
            if number >= self._budgets.narrow_from_round:
                self._narrower.below(index)
            if few_inputs and self._open(index):
                self._branch(index, number)
            self._split(index, self._by_bound(index), number)
            self._search(index, LATER_EFFORTS[min(number, len(LATER_EFFORTS) - 1)], number)
            self._optimize_slopes(index)
            if number == 0 and self._needs_relaxation(index):
                self._solve_relaxation(index)
            if number >= self._budgets.programs_from_round and self._open(index):
                self._solve_programs(index, number - self._budgets.programs_from_round)

    def _run_corners(self, functionals: list[Array]) -> None:
        """Runs the corners forward at which linear bounds are attained."""
        for coefficients in functionals:
            self.knowledge.show(greatest_corners(coefficients, self.knowledge.box))

    def _search(self, index: int, effort: Effort, number: int) -> None:
        """Searches, and again from other points as long as that settles queries of the layer."""
        before, left = -1, of_round(self._budgets.search_products, number)
        while 0 < self._open(index) != before and left > 0.0:
            if self.options.deadline.passed:
                return
            before = self._open(index)
            self._tell("witnesses", index)
            left -= search_layer(
                self.knowledge, index, effort, self._rng, left, self.options.deadline
            )

    def _branch(self, index: int, number: int) -> None:
        """Branching on the box; what it does not settle at once a population may show."""
        below, deadline, jobs = self._layers.below(index), self.options.deadline, self.options.jobs
        if index not in self._branchings:
            self._branchings[index] = BoxBranching(self.knowledge, index, below)
        branching, budgets = self._branchings[index], self._budgets
        self._tell("branching", index)
        if branching.run(below, budgets.box_first_parts, deadline):
            return
        if branching.run(below, budgets.box_more_parts, deadline, jobs, compiled=True):
            return
        self._evolve(index)
        self._tell("branching", index)
        most = int(of_round(budgets.box_parts, number))
        branching.run(below, most, deadline, jobs, compiled=True)

    def _evolve(self, index: int) -> None:
        """A population search for each open query of a layer."""
        for query in self.knowledge.open_queries(index):
            if self.options.deadline.passed:
                return
            if self.knowledge.is_open(query):
                self._tell("witnesses", index)
                evolve_query(self.knowledge, query, self._rng, self.options.deadline)

    def _optimize_slopes(self, index: int) -> None:
        """Optimised slopes for the open queries of a layer, and the corners they lead to."""
        knowledge = self.knowledge
        for positive in (True, False):
            queries = [q for q in knowledge.open_queries(index) if q.positive == positive]
            if not (index and queries) or self.options.deadline.passed:
                continue
            self._tell("slopes", index)
            question = question_of(knowledge, index, queries, self._layers.below(index))
            asked = question.rows, question.below, knowledge.box
            found = optimize(*asked, SLOPE_STEPS, better_start(*asked))
            bounds, excluded = found.bounds, np.flatnonzero(found.bounds <= 0.0)
            knowledge.conclude_units(index, question.units, positive, bounds, Evidence.LINEAR)
            knowledge.trees += bounded_by_slopes(
                question.only(excluded), found.cases.rows(excluded)
            )
            knowledge.show(found.corners)

    def _split(self, index: int, queries: list[Query], number: int) -> None:
        """Branching on ReLUs for some queries of a layer, in the order given."""
        below = self._layers.below(index)
        if below and queries:
            most = int(of_round(self._budgets.relu_nodes, number))
            self._splitter.settle(queries, below, most)

    def _by_bound(self, index: int) -> list[Query]:
        """The open queries of a layer, the most nearly excluded first.

        That is, with the least share of the unit's range on the side that is asked for.
        """
        lower, upper = self.knowledge.lower[index], self.knowledge.upper[index]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            share = np.nan_to_num(upper / (upper - lower), nan=0.5)
        shares = np.stack([share, 1.0 - share])
        return sorted(
            self.knowledge.open_queries(index), key=lambda q: (shares[q.row, q.unit], q.unit)
        )

    def _needs_relaxation(self, index: int) -> bool:
        """Whether many queries share a relaxation that splitting hardly came near to solving."""
        if self.knowledge.chain.n_in <= MOST_INPUTS or self._open(index) < LP_FROM_QUERIES:
            return False
        below = self._layers.below(index)
        unstable = sum(int(r.unstable.sum()) for r in below)
        return unstable >= LP_FROM_UNSTABLE

    def _solve_relaxation(self, index: int) -> None:
        """The linear relaxation of the open queries of a layer, one after another."""
        from onnx_exact.milp.triangle import TriangleRelaxation

        self._tell("relaxation", index)
        below = self._layers.below(index)
        program = TriangleRelaxation(below, self.knowledge.box, self.options.lp_solver)
        failed = 0
        for query in self._by_bound(index):
            if self.options.deadline.passed or failed == self._budgets.relaxation_failures:
                return
            if not self.knowledge.is_open(query):
                continue
            question = question_of(self.knowledge, index, [query], below)
            answer = program.upper_bound(question.rows, self._budgets.relaxation_iterations)
            if answer is None:
                # Nor will another query's program end.
                return
            bound, point, cases = answer
            self.knowledge.conclude(query, bound, Evidence.LINEAR)
            kept = cases.rounded()
            if bounds_of(question.rows, below, self.knowledge.box, kept)[0][0] <= 0.0:
                self.knowledge.trees += bounded_by_slopes(question, kept)
            self.knowledge.show(point[None, :])
            failed = failed + 1 if self.knowledge.is_open(query) else 0

    def _solve_programs(self, index: int, number: int) -> None:
        """A mixed-integer program for each open query of a layer, within this round's budget."""
        from onnx_exact.decide.programs import settle_layer

        self._tell("milp", index)
        work = of_round(self._budgets.program_work, number)
        settle_layer(self.knowledge, index, self.options.deadline, work, self.options.jobs)

    def _open(self, index: int) -> int:
        """Number of open queries of a layer."""
        return sum(int(signs.sum()) for signs in self.knowledge.open_signs(index))

    def _tell(self, stage: str, index: int) -> None:
        count = len(self.knowledge.chain.layers)
        detail = f"layer {index + 1} of {count}, {self.knowledge.open_units} units open"
        self.options.progress(stage, detail)
