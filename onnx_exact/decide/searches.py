"""Searches for witnesses: what an attack proposes is run forward, and what it shows is told it."""

from __future__ import annotations

import numpy as np

from onnx_exact.attack.evolution import evolve
from onnx_exact.attack.pgd import Climb, Effort
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.network.query import Query
from onnx_exact.runtime.deadline import Deadline


def search_layer(
    knowledge: Knowledge,
    layer: int,
    effort: Effort,
    rng: np.random.Generator,
    most_products: float,
    deadline: Deadline,
) -> float:
    """Searches witnesses for the open queries of a layer by projected gradients.

    Args:
        knowledge: receives the witnesses.
        layer: whose open queries are asked.
        effort: for each of them.
        rng: of every random choice.
        most_products: multiplications after which the search ends.
        deadline: ends the search when it passes.

    Returns:
        The multiplications that it took.
    """
    live = [np.flatnonzero(~knowledge.bounds.inactive(below)) for below in range(layer)]
    queries, size, spent = knowledge.open_queries(layer), effort.queries_at_once, 0.0
    for start in range(0, len(queries), size):
        part = [query for query in queries[start : start + size] if knowledge.is_open(query)]
        if not part or spent >= most_products or deadline.passed:
            continue
        climb = Climb(knowledge.chain, live, knowledge.box, part, effort, rng, knowledge.witnesses)
        while not (climb.done or spent + climb.products >= most_products or deadline.passed):
            knowledge.show(climb.advance())
            climb.keep(knowledge.are_open(part))
        spent += climb.products
    return spent


def evolve_query(
    knowledge: Knowledge, query: Query, rng: np.random.Generator, deadline: Deadline
) -> None:
    """Searches a witness for one open query by a population, for chains with few inputs."""
    target = knowledge.chain.up_to(query.layer, query.unit, query.positive)
    for points in evolve(target, knowledge.box, rng):
        if (knowledge.show(points) and not knowledge.is_open(query)) or deadline.passed:
            return
