"""Which means decide the units of a chain, in which order, and within what time.

First pass, layer by layer: bounds, a short search for witnesses, optimised slopes. Then rounds
over the layers that still have open signs, each with more time for a single sign than the last:
bounds again (what was decided below tightens them), branching on the box where there are few inputs
and on ReLUs, a longer search, the linear relaxation where many signs share a large one, and, in
later rounds, a mixed-integer program for each sign that is left. `docs/deciding.md` has the
measurements behind this order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from onnx_exact.attack.evolution import evolve_sign
from onnx_exact.attack.pgd import Effort, search_layer
from onnx_exact.attack.samples import first_points, greatest_corners
from onnx_exact.bab.input_split.search import MOST_INPUTS, Branching
from onnx_exact.bab.relu_split.schedule import MOST_FAILURES, Splitter
from onnx_exact.bounds.alpha_crown import optimized_upper_bounds
from onnx_exact.deadline import Deadline
from onnx_exact.decide.confirm import Sign, take_over, trusted
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers, bound_by_intervals
from onnx_exact.decide.verdict import Evidence, Stability
from onnx_exact.errors import ContradictionError
from onnx_exact.memory import keep_memory
from onnx_exact.methods import DEFAULT_LP_SOLVER, PUBLISHED
from onnx_exact.network.affine import Affine, Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.threads import one_thread

Index = NDArray[np.intp]

# The first round with mixed-integer programs: before, searches show more signs in less time.
MILP_FROM_ROUND = 2
# Seconds for a single mixed-integer program, round by round, the last for all rounds from there on:
# without a time limit a run has to end too.
MILP_SECONDS = (10.0, 60.0, 300.0)
# Seconds for branching on one layer, round by round.
BRANCH_SECONDS = (120.0, 240.0, 480.0)
# Parts before the compiled kernel is worth loading, and before a population is sent out.
FIRST_PARTS = 6_000
MORE_PARTS = 15_000
# What is kept of the time for confirming what a solver says: a share, and at most so many seconds.
CONFIRMING_SHARE, CONFIRMING_SECONDS = 0.1, 30.0
# Seconds for branching on ReLUs for a single sign, round by round.
SPLIT_SECONDS = (2.0, 10.0, 40.0)
LP_SECONDS = 5.0
# From this many open signs of a layer on, compiling its relaxation pays.
LP_FROM_SIGNS = 8
# Below so many unstable units splitting comes near its optimum in less time.
LP_FROM_UNSTABLE = 400
FIRST_EFFORT = Effort(points=12, steps=40)
# Seconds for the search in one layer, round by round.
SEARCH_SECONDS = (5.0, 10.0, 20.0, 60.0)
LATER_EFFORTS = (Effort(48, 150), Effort(96, 300), Effort(384, 300), Effort(1536, 300))


def _silent(stage: str, detail: str) -> None:
    """Reports nothing."""


@dataclass(frozen=True)
class Options:
    """How a chain is decided.

    Attributes:
        method: of `onnx_exact.methods.METHODS`.
        deadline: what is open when it passes is UNDECIDED.
        seed: of every random choice.
        jobs: processes for mixed-integer programs and for branching, on the box and on ReLUs.
        lp_solver: the solver of the linear relaxation, by its name in cvxpy.
        trust_solver: whether verdicts may rest on what a solver says, beyond its tolerance.
        progress: called with a stage and a detail.
        latest: by then the first bounds on all layers have to end too; what is left of them is
            bounded by intervals alone.
    """

    method: str = "auto"
    deadline: Deadline = field(default_factory=Deadline)
    seed: int = 0
    jobs: int = 1
    lp_solver: str = DEFAULT_LP_SOLVER
    trust_solver: bool = False
    progress: Callable[[str, str], None] = _silent
    latest: Deadline = field(default_factory=Deadline)


def analyze_chain(
    chain: Chain, box: Box, options: Options | None = None, samples: Array | None = None
) -> Stability:
    """Decides the ReLU units of a chain over a box.

    Args:
        chain: the network.
        box: shape (inputs,), may be infinite.
        options: method, time, seed.
        samples: points to try as witnesses, shape (points, inputs); clipped into the box.

    Returns:
        Verdicts and sound bounds. What could not be decided in time, or before the user ended the
        deciding with Ctrl-C, is UNDECIDED; so is what nothing but a solver says, unless it is
        trusted.
    """
    options = options or Options()
    keep_memory()
    knowledge = Knowledge(chain, box, trusting=options.trust_solver)
    interrupted = False
    # What overflows has no bound.
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        try:
            _decide(knowledge, options, samples)
        except KeyboardInterrupt:
            interrupted = True
        found = knowledge.freeze()
        if options.trust_solver and knowledge.claimed:
            found = trusted(knowledge)
    return replace(found, interrupted=interrupted)


def _decide(knowledge: Knowledge, options: Options, samples: Array | None) -> None:
    box = knowledge.box
    points = first_points(knowledge.chain.layers[0].affine, box, options.seed)
    if samples is not None:
        knowledge.show(samples)
    if options.method in PUBLISHED and box.finite:
        _decide_as_published(knowledge, options, points)
        return
    # Bounds over a finite box lead to better points than more of these.
    for batch in islice(points, 1 if box.finite else None):
        knowledge.show(batch)
    _Decider(knowledge, options).run()


def _decide_as_published(knowledge: Knowledge, options: Options, points: Iterable[Array]) -> None:
    from onnx_exact.decide.published import decide_at_once, decide_one_by_one

    believed = Knowledge(
        knowledge.chain, knowledge.box, believing=True, trusting=options.trust_solver
    )
    believed.show(knowledge.witnesses)
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
    left = options.deadline.remaining
    deadline = Deadline(left - min(CONFIRMING_SHARE * left, CONFIRMING_SECONDS))
    try:
        if options.method == "isa":
            decide_at_once(believed, deadline, options.progress, points)
        else:
            decide_one_by_one(believed, deadline, options.jobs, options.progress)
    except ContradictionError:
        # A point denies what the solver says: then none of it counts.
        believed.claimed.clear()
    take_over(knowledge, believed, lambda *asked: _confirm(options, *asked))


def _confirm(options: Options, knowledge: Knowledge, signs: set[Sign]) -> None:
    _Decider(knowledge, options).confirm(signs)


class _Decider:
    """The stages of one chain."""

    def __init__(self, knowledge: Knowledge, options: Options) -> None:
        self.knowledge, self.options = knowledge, options
        self.layers = Layers(knowledge)
        self.rng = np.random.default_rng(options.seed)
        self._branchings: dict[int, Branching] = {}
        self._splitter = Splitter(
            knowledge, options.deadline, options.jobs, lambda index: self._tell("splitting", index)
        )

    def run(self) -> None:
        """Decides what can be decided in time."""
        solvers = self.options.method != "bounds" and self.knowledge.box.finite
        self._first_pass()
        rounds = 0
        while solvers and self.knowledge.open_units and not self.options.deadline.passed:
            before = self.knowledge.open_units
            self._round(rounds)
            rounds += 1
            all_means = rounds >= MILP_FROM_ROUND + len(MILP_SECONDS)
            if all_means and self.knowledge.open_units == before:
                break

    def _first_pass(self) -> None:
        """Bounds every layer, with as many of the units before it decided as is cheap."""
        for index, layer in enumerate(self.knowledge.chain.layers):
            self._tell("bounds", index)
            if self.options.latest.passed:
                bound_by_intervals(self.knowledge, index)
                continue
            self._run_corners(self.layers.bound(index))
            if layer.relu and self.knowledge.box.finite:
                self._search(index, FIRST_EFFORT, SEARCH_SECONDS[0])
                self._optimize_slopes(index)
            self.layers.relax(index)

    def confirm(self, signs: set[Sign]) -> None:
        """Bounds every layer, and branches for some signs alone."""
        for index, layer in enumerate(self.knowledge.chain.layers):
            if self.options.latest.passed:
                return
            self._run_corners(self.layers.bound(index))
            mine = {(unit, positive) for of, unit, positive in signs if of == index}
            if layer.relu and mine:
                self._optimize_slopes(index)
                if self.knowledge.chain.n_in <= MOST_INPUTS and self._open(index):
                    self._branch(index, BRANCH_SECONDS[0])
                wanted = [sign for sign in self._by_bound(index) if sign in mine]
                if wanted and index:
                    seconds = SPLIT_SECONDS[-1]
                    self._splitter.settle(index, wanted, self.layers.below(index), seconds)
            self.layers.relax(index)

    def _round(self, number: int) -> None:
        """One pass over the layers with open signs, with the means that cost more."""
        effort = LATER_EFFORTS[min(number, len(LATER_EFFORTS) - 1)]
        few_inputs = self.knowledge.chain.n_in <= MOST_INPUTS
        for index in self.knowledge.relu_layers:
            if not self._open(index) or self.options.deadline.passed:
                continue
            self._tell("bounds", index)
            self._run_corners(self.layers.refresh(index))
            if few_inputs and self._open(index):
                self._branch(index, BRANCH_SECONDS[min(number, len(BRANCH_SECONDS) - 1)])
            self._split(index, SPLIT_SECONDS[min(number, len(SPLIT_SECONDS) - 1)])
            self._search(index, effort, SEARCH_SECONDS[min(number, len(SEARCH_SECONDS) - 1)])
            self._optimize_slopes(index)
            if number == 0 and self._needs_relaxation(index):
                self._solve_relaxation(index)
            if number >= MILP_FROM_ROUND and self._open(index):
                self._solve_programs(index, number - MILP_FROM_ROUND)

    def _run_corners(self, functionals: list[Array]) -> None:
        """Runs the corners forward at which linear bounds are attained."""
        for coefficients in functionals:
            self.knowledge.show(greatest_corners(coefficients, self.knowledge.box))

    def _search(self, index: int, effort: Effort, seconds: float) -> None:
        """Searches, and again from other points as long as that settles signs of the layer."""
        before, limit = -1, self._within(seconds)
        while 0 < self._open(index) != before and not limit.passed:
            before = self._open(index)
            self._tell("witnesses", index)
            search_layer(self.knowledge, index, effort, self.rng, limit)

    def _branch(self, index: int, seconds: float) -> None:
        """Branching on the box; what it does not settle at once a population may show."""
        if index not in self._branchings:
            self._branchings[index] = Branching(self.knowledge, index)
        branching, jobs = self._branchings[index], self.options.jobs
        self._tell("branching", index)
        if branching.run(self._within(seconds), FIRST_PARTS):
            return
        if branching.run_compiled(self._within(seconds), MORE_PARTS, jobs):
            return
        self._evolve(index)
        self._tell("branching", index)
        branching.run_compiled(self._within(seconds), jobs=jobs)

    def _evolve(self, index: int) -> None:
        """A population search for each open sign of a layer."""
        for positive in (True, False):
            for unit in self._open_units(index, positive):
                if self.options.deadline.passed:
                    return
                self._tell("witnesses", index)
                evolve_sign(
                    self.knowledge, index, int(unit), positive, self.rng, self.options.deadline
                )

    def _optimize_slopes(self, index: int) -> None:
        """Optimised slopes for the open signs of a layer, and the corners they lead to."""
        box, deadline = self.knowledge.box, self.options.deadline
        for positive in (True, False):
            units = self._open_units(index, positive)
            if index and units.size and not deadline.passed:
                self._tell("slopes", index)
                rows = self._rows(index, units, positive)
                below = self.layers.below(index)
                bounds, corners = optimized_upper_bounds(rows, below, box, deadline)
                self._conclude(index, units, bounds, positive, Evidence.LINEAR)
                self.knowledge.show(corners)

    def _split(self, index: int, seconds: float) -> None:
        """Branching on ReLUs for the open signs of a layer, the most nearly excluded ones first."""
        below = self.layers.below(index)
        if below:
            self._splitter.settle(index, self._by_bound(index), below, seconds)

    def _by_bound(self, index: int) -> list[tuple[int, bool]]:
        """The open signs of a layer, first those with the least share of the unit's range."""
        lower, upper = self.knowledge.lower[index], self.knowledge.upper[index]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            share = np.nan_to_num(upper / (upper - lower), nan=0.5)
        signs = [(share[unit], int(unit), True) for unit in self._open_units(index, True)]
        signs += [(1 - share[unit], int(unit), False) for unit in self._open_units(index, False)]
        return [(unit, positive) for _, unit, positive in sorted(signs)]

    def _needs_relaxation(self, index: int) -> bool:
        """Whether many signs share a relaxation that splitting hardly came near to solving."""
        if self.knowledge.chain.n_in <= MOST_INPUTS or self._open(index) < LP_FROM_SIGNS:
            return False
        below = self.layers.below(index)
        unstable = sum(int(((r.upper_slope > 0) & (r.upper_slope < 1)).sum()) for r in below)
        return unstable >= LP_FROM_UNSTABLE

    def _solve_relaxation(self, index: int) -> None:
        """The linear relaxation of the open signs of a layer, one after another."""
        from onnx_exact.milp.triangle import TriangleRelaxation

        self._tell("relaxation", index)
        program = TriangleRelaxation(
            self.layers.below(index), self.knowledge.box, self.options.lp_solver
        )
        failed = 0
        for unit, positive in self._by_bound(index):
            seconds = min(LP_SECONDS, self.options.deadline.remaining)
            if seconds == 0.0 or failed == MOST_FAILURES:
                return
            if unit not in self._open_units(index, positive):
                continue
            units = np.array([unit])
            answer = program.upper_bound(self._rows(index, units, positive), seconds)
            if answer is None:
                # Nor will it end in time for another sign.
                return
            bound, point = answer
            self._conclude(index, units, np.array([bound]), positive, Evidence.LINEAR)
            self.knowledge.show(point[None, :])
            failed = failed + 1 if unit in self._open_units(index, positive) else 0

    def _solve_programs(self, index: int, number: int) -> None:
        """A mixed-integer program for each open sign of a layer, within this round's time."""
        from onnx_exact.milp.pool import settle_layer

        self._tell("milp", index)
        seconds = MILP_SECONDS[min(number, len(MILP_SECONDS) - 1)]
        settle_layer(self.knowledge, index, seconds, self.options.deadline, self.options.jobs)

    def _conclude(
        self, index: int, units: Index, bounds: Array, positive: bool, evidence: Evidence
    ) -> None:
        full = np.full(self.knowledge.chain.layers[index].width, np.inf)
        full[units] = bounds
        if positive:
            self.knowledge.tighten(index, evidence, upper=full)
        else:
            self.knowledge.tighten(index, evidence, lower=-full)

    def _rows(self, index: int, units: Index, positive: bool) -> Affine:
        return self.knowledge.chain.layers[index].affine.signed(units, 1.0 if positive else -1.0)

    def _open_units(self, index: int, positive: bool) -> Index:
        return np.flatnonzero(self.knowledge.open_signs(index)[0 if positive else 1])

    def _open(self, index: int) -> int:
        """Number of open signs of a layer."""
        return sum(int(signs.sum()) for signs in self.knowledge.open_signs(index))

    def _within(self, seconds: float) -> Deadline:
        return Deadline(min(seconds, self.options.deadline.remaining))

    def _tell(self, stage: str, index: int) -> None:
        count = len(self.knowledge.chain.layers)
        detail = f"layer {index + 1} of {count}, {self.knowledge.open_units} units open"
        self.options.progress(stage, detail)
