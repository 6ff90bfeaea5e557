"""One program for each of several queries, in one process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from onnx_exact.bounds.chain_bounds import ChainBounds
from onnx_exact.milp.encode import Target
from onnx_exact.milp.unit import Answer, ask
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.jobs import in_order


def answers(
    bounds: ChainBounds,
    targets: Sequence[Target],
    is_open: Callable[[Query], bool],
    most_work: float,
    deadline: Deadline,
    jobs: int = 1,
) -> Iterator[Answer]:
    """The answers to the queries that are open when their turn comes, in the order given.

    What an answer is does not depend on those before it. A query that one of these has settled
    meanwhile is left out, whether a process has already begun with it or not: so the answers are
    the same for any number of processes.

    Args:
        bounds: finite up to the queries' layers.
        targets: the most promising first.
        is_open: whether a query is still to be answered.
        most_work: of a single program.
        deadline: nothing is asked once it has passed.
        jobs: processes, by joblib and whatever backend it is set to.
    """
    if jobs == 1:
        for target in targets:
            if deadline.passed:
                return
            if is_open(target.query):
                yield ask(bounds, target, most_work, deadline)
        return
    wanted = (t for t in targets if is_open(t.query) and not deadline.passed)
    tasks = ((ask, (bounds, target, most_work, deadline)) for target in wanted)
    for answer in in_order(jobs, tasks):
        if is_open(answer.target.query):
            yield answer
