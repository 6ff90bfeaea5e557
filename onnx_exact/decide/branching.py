"""Between what is known of a chain and branch and bound: asks it, and writes down what it finds.

Results are taken in the order in which signs are asked for, and what another's points have shown
meanwhile is passed over: so they are the same in one process and in several.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from onnx_exact.bab.input_split.search import BoxSearch
from onnx_exact.bab.question import Found, Question
from onnx_exact.bab.relu_split.search import split_sign
from onnx_exact.bounds.crown import Relaxation
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.options import Options
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline
from onnx_exact.runtime.jobs import in_order
from onnx_exact.runtime.memory import keep_memory
from onnx_exact.runtime.threads import one_thread


def question_of(
    knowledge: Knowledge, layer: int, queries: Sequence[Query], below: Sequence[Relaxation]
) -> Question:
    """Puts queries of a layer by what is known now and relaxations of the layers before."""
    return Question(
        knowledge.chain,
        knowledge.box,
        layer,
        np.array([query.unit for query in queries], dtype=np.intp),
        np.array([query.positive for query in queries], dtype=np.bool_),
        tuple(knowledge.lower[:layer]),
        tuple(knowledge.upper[:layer]),
        below,
    )


def take(knowledge: Knowledge, found: Found) -> int:
    """Writes down what was found; how many signs points showed for the first time."""
    for tree in found.trees:
        knowledge.conclude_tree(tree)
    return knowledge.show(found.points)


class BoxBranching:
    """Branching on the box for the splittable signs of one layer; goes on where it was broken off.

    Args:
        knowledge: receives bounds, trees and witnesses.
        layer: index.
        below: relaxations of the layers before.
    """

    def __init__(self, knowledge: Knowledge, layer: int, below: Sequence[Relaxation]) -> None:
        self._knowledge, self._layer = knowledge, layer
        self._queries = [q for q in knowledge.open_queries(layer) if knowledge.is_splittable(q)]
        self._search = BoxSearch(question_of(knowledge, layer, self._queries, below))

    @property
    def parts(self) -> int:
        """Number of parts made so far, the whole box among them."""
        return self._search.nodes

    def run(
        self,
        below: Sequence[Relaxation],
        most: int,
        deadline: Deadline,
        jobs: int = 1,
        *,
        compiled: bool = False,
    ) -> bool:
        """Splits until no sign of the layer is open; False where there was no hope of that.

        Args:
            below: as they are now.
            most: parts of all runs together.
            deadline, jobs, compiled: as for `BoxSearch.run`.
        """
        self._search.question = question_of(self._knowledge, self._layer, self._queries, below)
        self._forget()
        for found in self._search.run(most, deadline, jobs, compiled=compiled):
            if take(self._knowledge, found):
                self._forget()
        return not any(signs.any() for signs in self._knowledge.open_signs(self._layer))

    def _forget(self) -> None:
        """Takes off what has been settled elsewhere meanwhile."""
        self._search.close(~self._knowledge.are_open(self._queries))


class Splitter:
    """Branching on ReLUs for the open signs of a layer, in one process or in several.

    Args:
        knowledge: receives bounds, trees and witnesses.
        options: deadline, jobs and budgets.
        tell: called with the layer before each sign.
    """

    def __init__(self, knowledge: Knowledge, options: Options, tell: Callable[[int], None]) -> None:
        self._knowledge, self._tell = knowledge, tell
        self._deadline, self._jobs, self._budgets = options.deadline, options.jobs, options.budgets
        self._nodes = self._failed = 0

    def settle(self, queries: Iterable[Query], below: Sequence[Relaxation], most: int) -> None:
        """Tries one query of a layer after another, until too many in a row stay open.

        Args:
            queries: the most promising first.
            below: relaxations of the layers before, at least one.
            most: nodes for a single query.
        """
        self._failed = 0
        asked = self._asked(queries)
        for query in asked:
            question = question_of(self._knowledge, query.layer, [query], below)
            self._take(query, *split_sign(question, most, self._deadline))
            if self._jobs > 1 and self._nodes > self._budgets.relu_alone:
                self._settle_together(asked, below, most)

    def _settle_together(
        self, asked: Iterator[Query], below: Sequence[Relaxation], most: int
    ) -> None:
        """Several queries at once."""
        put = ((q, question_of(self._knowledge, q.layer, [q], below)) for q in asked)
        tasks = ((_split_apart, (q, question, most, self._deadline)) for q, question in put)
        for answer in in_order(self._jobs, tasks):
            self._take(*answer)

    def _take(self, query: Query, found: Found, nodes: int) -> None:
        """Takes an answer, unless it would not have been asked for by now."""
        if self._failed < self._budgets.relu_failures and self._knowledge.is_splittable(query):
            take(self._knowledge, found)
            self._nodes += nodes
            self._failed = self._failed + 1 if self._knowledge.is_splittable(query) else 0

    def _asked(self, queries: Iterable[Query]) -> Iterator[Query]:
        """Those that are still open when their turn comes, as long as trying pays."""
        for query in queries:
            if self._failed >= self._budgets.relu_failures or self._deadline.passed:
                return
            if self._knowledge.is_splittable(query):
                self._tell(query.layer)
                yield query


def _split_apart(
    query: Query, question: Question, most: int, deadline: Deadline
) -> tuple[Query, Found, int]:
    """Tries a query in a process of its own."""
    keep_memory()
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        return query, *split_sign(question, most, deadline)
