"""Nodes in an order in which each comes behind those whose outputs it reads."""

from __future__ import annotations

import heapq

from onnx import GraphProto

from onnx_exact.graph.index import outer_reads, subgraphs


def sort_nodes(graph: GraphProto) -> bool:
    """Sorts the nodes of a graph, those that need not move among each other as they were.

    Returns:
        False where they run in a circle; they are left as they are then.
    """
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waiting: list[int] = []
    followers: dict[int, list[int]] = {}
    for i, node in enumerate(graph.node):
        read = {name for name in node.input if name}
        for inner in subgraphs(node):
            read |= outer_reads(inner)
        makers = {maker[name] for name in read if name in maker}
        waiting.append(len(makers))
        for made in makers:
            followers.setdefault(made, []).append(i)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    order: list[int] = []
    while ready:
        first = heapq.heappop(ready)
        order.append(first)
        for i in followers.get(first, ()):
            waiting[i] -= 1
            if waiting[i] == 0:
                heapq.heappush(ready, i)
    if len(order) < len(graph.node):
        return False
    if order != sorted(order):
        nodes = [graph.node[i] for i in order]
        graph.ClearField("node")
        graph.node.extend(nodes)
    return True
