"""Decides the units of a chain, by the tool's own means or by a published algorithm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

import numpy as np

from onnx_exact.attack.samples import first_points
from onnx_exact.decide.confirm import take_over, trusted
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.options import Options
from onnx_exact.decide.propagate import bound_by_intervals
from onnx_exact.decide.rounds import Rounds
from onnx_exact.decide.verdict import Stability
from onnx_exact.errors import ContradictionError
from onnx_exact.methods import PUBLISHED
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.network.query import Query
from onnx_exact.runtime.memory import keep_memory
from onnx_exact.runtime.threads import one_thread

__all__ = ["Options", "analyze_chain"]

# The share of the time that is left in which a published algorithm has to end, where there is a
# limit: what it claims has to be confirmed.
PUBLISHED_SHARE = 0.9


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
    Rounds(knowledge, options).run()


def _decide_as_published(knowledge: Knowledge, options: Options, points: Iterable[Array]) -> None:
    from onnx_exact.decide.published import decide_at_once, decide_one_by_one

    believed = Knowledge(
        knowledge.chain, knowledge.box, believing=True, trusting=options.trust_solver
    )
    believed.show(knowledge.witnesses)
    for index in range(len(knowledge.chain.layers)):
        bound_by_intervals(knowledge, index)
    deadline = options.deadline.share(PUBLISHED_SHARE)
    try:
        if options.method == "isa":
            decide_at_once(believed, deadline, options.progress, points)
        else:
            decide_one_by_one(believed, deadline, options.jobs, options.progress)
    except ContradictionError:
        # A point denies what the solver says: then none of it counts.
        believed.claimed.clear()
    take_over(knowledge, believed, lambda *asked: _confirm(options, *asked))


def _confirm(options: Options, knowledge: Knowledge, queries: set[Query]) -> None:
    Rounds(knowledge, options).confirm(queries)
