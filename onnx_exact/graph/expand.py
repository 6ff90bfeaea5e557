"""Functions of a model's own and branches, written out into the main graph, to look into.

The tensors of the graph keep their names. An output of an If becomes a Join of what both branches
make, or of the one that is taken where that is known. Nothing of this is ever written to a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, helper

from onnx_exact.graph.index import Index, attributes, subgraphs
from onnx_exact.graph.names import Names

# Of operators that only stand in the graphs that are made here.
DOMAIN = "onnx_exact"
JOIN = f"{DOMAIN}.Join"


def expanded(index: Index) -> Index:
    """The graph with its functions and branches written out; the same where it has none."""
    model = index.model
    branches = any(node.op_type == "If" and index.is_standard(node) for node in index.nodes)
    if not (model.functions or branches):
        return index
    result = _inlined(model) if model.functions else _copy(model)
    if result is None:
        return index
    _write_out(result, index)
    return Index(result)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _inlined(model: ModelProto) -> ModelProto | None:
    """A copy without functions; None where onnx cannot inline them."""
    skeleton = ModelProto(ir_version=model.ir_version)
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.CopyFrom(_without_weights(model.graph))
    known = {value.name for value in graph.input}
    graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims)
        for t in model.graph.initializer
        if t.name not in known
    )
    # Few models have functions.
    from onnx.inliner import inline_local_functions

    try:
        nodes = inline_local_functions(skeleton).graph.node
    except (RuntimeError, ValueError):
        # Such as versions of operators that differ.
        return None
    result = _copy(model)
    result.ClearField("functions")
    result.graph.ClearField("node")
    result.graph.node.extend(nodes)
    return result


def _without_weights(graph: GraphProto) -> GraphProto:
    bare = GraphProto(name=graph.name)
    bare.node.extend(graph.node)
    bare.input.extend(graph.input)
    bare.output.extend(graph.output)
    bare.value_info.extend(graph.value_info)
    return bare


def _write_out(model: ModelProto, index: Index) -> None:
    """Puts the branches of every If, and of those in these, in front of their Joins."""
    graph = model.graph
    names = Names(_all_names(graph))
    waiting = list(graph.node)[::-1]
    nodes: list[NodeProto] = []
    joined: list[str] = []
    while waiting:
        node = waiting.pop()
        if node.op_type != "If" or node.domain not in ("", "ai.onnx"):
            nodes.append(node)
            continue
        branches = (attributes(node)[name].g for name in ("then_branch", "else_branch"))
        parts = [_renamed(graph, branch, names) for branch in branches]
        taken = index.array(node.input[0])
        if taken is not None and taken.size == 1:
            parts = [parts[0] if bool(taken.reshape(())) else parts[1]]
        joins = [
            helper.make_node("Join", list(made), [output], domain=DOMAIN)
            for output, *made in zip(node.output, *(outputs for _, outputs in parts), strict=True)
        ]
        joined += node.output
        waiting += [*(n for inner, _ in parts for n in inner), *joins][::-1]
    graph.ClearField("node")
    graph.node.extend(nodes)
    declared = {value.name for value in graph.value_info} | {v.name for v in graph.output}
    known = (index.declaration(name) for name in joined if name not in declared)
    graph.value_info.extend(value for value in known if value is not None)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _renamed(
    graph: GraphProto, branch: GraphProto, names: Names
) -> tuple[list[NodeProto], list[str]]:
    """The nodes of a branch and its outputs, its own tensors under names that nobody has."""
    new = {
        name: names.claim(name)
        for name in (
            *(t.name for t in branch.initializer),
            *(output for node in branch.node for output in node.output if output),
        )
    }
    for tensor in branch.initializer:
        graph.initializer.append(tensor)
        graph.initializer[-1].name = new[tensor.name]
    nodes = [NodeProto() for _ in branch.node]
    for node, old in zip(nodes, branch.node, strict=True):
        node.CopyFrom(old)
        _rename(node, new)
    return nodes, [new.get(value.name, value.name) for value in branch.output]


def _rename(node: NodeProto, new: dict[str, str]) -> None:
    """Renames what a node reads and makes, in the graphs of its attributes too."""
    for names in (node.input, node.output):
        for i, name in enumerate(names):
            names[i] = new.get(name, name)
    for graph in subgraphs(node):
        own = {value.name for value in graph.input} | {t.name for t in graph.initializer}
        own |= {output for inner in graph.node for output in inner.output}
        outer = {k: v for k, v in new.items() if k not in own}
        for inner in graph.node:
            _rename(inner, outer)
        for value in graph.output:
            value.name = outer.get(value.name, value.name)


def _all_names(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.input
        yield from node.output
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _all_names(attribute.g)
    yield from (value.name for value in (*graph.input, *graph.output, *graph.value_info))
    yield from (tensor.name for tensor in graph.initializer)
    yield from (tensor.values.name for tensor in graph.sparse_initializer)
