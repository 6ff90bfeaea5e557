"""That two models are the same outside of the chains that were replaced.

Both are walked back from their outputs, and from the inputs of the chains, to the graph's inputs,
to constants and to the outputs of chains, where the walk ends. What is met has to be the same nodes
with the same attributes in the same order, and constants with the same bytes. Then the outputs of
the new model are, bit for bit, what the nodes behind the chains make of the new chains' outputs in
the old model: in any runtime that computes node by node, at every input rather than at those that
are tried, and whatever the nodes are (random ones, branches that are not taken, custom operators).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from google.protobuf.message import Message  # type: ignore[import-untyped]
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper

from onnx_exact.errors import ValidationError
from onnx_exact.graph.index import outer_reads, subgraphs


def check_outside(old: ModelProto, new: ModelProto, chains: Sequence[tuple[str, str]]) -> None:
    """Compares two models outside of chains.

    Args:
        old, new: with external data loaded.
        chains: the tensors that each replaced chain reads and makes.

    Raises:
        ValidationError: they differ; the message says in what.
    """
    for what in ("output", "input"):
        _same(f"the graph's {what}s", *(_fed(model, what) for model in (old, new)))
    for what in ("operator sets", "functions", "sparse constants"):
        _same(
            f"the {what}",
            *([m.SerializeToString() for m in _messages(model)[what]] for model in (old, new)),
        )
    cut = {made for _, made in chains}
    roots = [value.name for value in old.graph.output] + [read for read, _ in chains]
    before, after = (_Outside.of(model, roots, cut) for model in (old, new))
    if len(before.nodes) != len(after.nodes):
        raise _differs(f"{len(before.nodes)} nodes became {len(after.nodes)}")
    for node, now in zip(before.nodes, after.nodes, strict=True):
        if _bytes(node) != _bytes(now):
            raise _differs(f"the node {node.name or node.output[0]!r} changed")
    if before.tensors != after.tensors:
        raise _differs("other constants are read")
    constants = _constants(old), _constants(new)
    for name in sorted(before.tensors):
        pair = [kept.get(name) for kept in constants]
        if not _equal(*pair):
            raise _differs(f"the constant {name!r} changed")


def _messages(model: ModelProto) -> dict[str, Sequence[Message]]:
    """What no chain changes, whoever reads it."""
    return {
        "operator sets": model.opset_import,
        "functions": model.functions,
        "sparse constants": model.graph.sparse_initializer,
    }


def _fed(model: ModelProto, what: str) -> list[str]:
    """The names of a graph's inputs or outputs, but for the inputs that stand for constants."""
    constants = _constants(model)
    return [
        v.name for v in getattr(model.graph, what) if what == "output" or v.name not in constants
    ]


def _same(what: str, old: list[str] | list[bytes], new: list[str] | list[bytes]) -> None:
    if old != new:
        raise _differs(f"{what} changed")


def _differs(what: str) -> ValidationError:
    return ValidationError(f"the rewritten model differs outside of its chains: {what}")


def _bytes(node: NodeProto) -> bytes:
    return bytes(node.SerializeToString(deterministic=True))


def _constants(model: ModelProto) -> dict[str, TensorProto]:
    """The dense initializers of the main graph."""
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _equal(old: TensorProto | None, new: TensorProto | None) -> bool:
    if old is None or new is None:
        return old is new
    if (old.data_type, list(old.dims)) != (new.data_type, list(new.dims)):
        return False
    if old.raw_data or new.raw_data:
        return bytes(numpy_helper.to_array(old).tobytes()) == numpy_helper.to_array(new).tobytes()
    return bool(old.SerializeToString() == new.SerializeToString())


@dataclass(frozen=True, eq=False)
class _Outside:
    """What a walk back from some tensors meets: nodes in the graph's order, other tensors."""

    nodes: tuple[NodeProto, ...]
    tensors: frozenset[str]

    @staticmethod
    def of(model: ModelProto, roots: Iterable[str], cut: set[str]) -> _Outside:
        nodes, tensors = walk_back(model, roots, cut)
        return _Outside(tuple(model.graph.node[i] for i in nodes), frozenset(tensors))


def walk_back(
    model: ModelProto, roots: Iterable[str], cut: Container[str]
) -> tuple[list[int], set[str]]:
    """The nodes that some tensors are made by, as far as the tensors `cut`.

    Returns:
        positions of the nodes, in order, and the tensors that none of these makes: those of `cut`,
        the graph's inputs and initializers.
    """
    producer = {name: i for i, node in enumerate(model.graph.node) for name in node.output if name}
    nodes: set[int] = set()
    ends: set[str] = set()
    todo, seen = list(roots), set()
    while todo:
        name = todo.pop()
        if not name or name in seen:
            continue
        seen.add(name)
        if name in cut or name not in producer:
            ends.add(name)
            continue
        position = producer[name]
        if position not in nodes:
            nodes.add(position)
            node = model.graph.node[position]
            todo += node.input
            for inner in subgraphs(node):
                todo += outer_reads(inner)
    return sorted(nodes), ends
