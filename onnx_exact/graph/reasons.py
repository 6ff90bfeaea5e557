"""Why a chain ends where it does, and why a layer is in none: node and reason, in a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnx import NodeProto

from onnx_exact.graph.index import FLOATS, Index
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.graph.ops import OLDEST_OPSET, READERS, entry, is_unchecked, read_step
from onnx_exact.graph.ops.dense import ENTRIES
from onnx_exact.graph.ops.piecewise import PIECES

CONVOLUTIONS = {"Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "DepthToSpace"}
# The function that a ReLU unit is, in the spellings that say so themselves.
RECTIFIERS = {"Relu"}
# Deeper than this nobody looks for what a ReLU reads.
MOST_STEPS = 100
SHOWN_READERS = 3


def described(node: NodeProto) -> str:
    """A node as a user finds it: its operator, and its name or its output."""
    return f"{node.op_type} {node.name or next(iter(node.output), '')!r}"


def left_out(index: Index, chains: Sequence[LocatedChain]) -> tuple[str, ...]:
    """The ReLUs and products that are in no chain, with the reason for each, in order."""
    used = {node for chain in chains for site in chain.sites for node in site.nodes}
    lines: list[str] = []
    explained: set[int] = set()
    for position, node in enumerate(index.nodes):
        if position not in used and index.is_standard(node) and node.op_type in RECTIFIERS:
            lines.append(f"{described(node)} {_why_no_unit(index, node, used, explained)}")
    for position, node in enumerate(index.nodes):
        if position in used | explained or index.operator(node) not in ENTRIES:
            continue
        if any(index.is_constant(name) or index.is_overridable(name) for name in node.input[:2]):
            lines.append(f"{described(node)} {_why_no_chain(index, position)}")
    if not lines and not chains:
        lines += _without_layers(index)
    return tuple(lines)


def end_of(index: Index, chain: LocatedChain) -> str:
    """Why a chain goes no further."""
    return _stop(index, chain.output, chain.sites[-1].layout_out)


def _without_layers(index: Index) -> Iterator[str]:
    functions = [node for node in index.nodes if not index.operator(node)]
    yield from (f"{described(node)} {IS_FUNCTION}" for node in functions[:1])
    if not functions:
        yield "there is no Gemm or MatMul with a constant"


IS_FUNCTION = (
    "is a function of the model's own, which a chain does not go through; inline it first"
    " (onnx.inliner.inline_local_functions)"
)


UNCHECKED = "is not read by the checker of certificates; it may be reduced without --certificate"


def _why_no_unit(index: Index, node: NodeProto, used: set[int], explained: set[int]) -> str:
    """Why a ReLU is no unit of a chain, by walking back to what it reads."""
    tensor = node.input[0]
    for _ in range(MOST_STEPS):
        position = index.producer.get(tensor)
        if position is None:
            return f"reads the input {tensor!r} of the graph: no layer is in front of it"
        maker = index.nodes[position]
        if index.operator(maker) in ENTRIES:
            explained.add(position)
            end = "is in a chain that ends before it"
            why = end if position in used else _why_no_chain(index, position)
            return f"reads {described(maker)}, which {why}"
        varying = [name for name in maker.input if name and not index.is_constant(name)]
        if is_unchecked(index, maker) and index.operator(maker) in READERS:
            return f"reads {described(maker)}, which {UNCHECKED}"
        if index.operator(maker) not in READERS or len(varying) != 1:
            return f"reads {described(maker)}, which {_why_no_layer(index, maker, varying)}"
        tensor = varying[0]
    return "reads too many nodes that are no layers"


def _why_no_chain(index: Index, position: int) -> str:
    """Why a product is in no chain: none starts at it, or none comes as far as a ReLU behind it."""
    node = index.nodes[position]
    reason = _why_no_entry(index, node)
    if reason is not None:
        return reason
    start = entry(index, node)
    assert start is not None
    tensor, layout = start
    while (step := read_step(index, node, tensor, layout)) is not None:
        tensor, layout = node.output[0], step.layout
        reader = index.sole_reader(tensor)
        if reader is None:
            break
        node = index.nodes[reader]
    return f"stands alone, no chain comes to a ReLU or another: {_stop(index, tensor, layout)}"


def _why_no_layer(index: Index, node: NodeProto, varying: Sequence[str]) -> str:
    operator = index.operator(node)
    if not operator:
        return IS_FUNCTION
    if node.op_type in CONVOLUTIONS:
        return "is a convolution: only Gemm and MatMul are layers of a chain"
    overridable = [name for name in varying if index.is_overridable(name)]
    if overridable:
        return _overridden(overridable[0])
    if operator in READERS and len(varying) > 1:
        return f"joins tensors that all vary ({', '.join(map(repr, varying[:SHOWN_READERS]))})"
    return "is no layer of a chain"


def _overridden(tensor: str) -> str:
    return (
        f"reads {tensor!r}, which is a graph input too, so it can be overridden: take it out of the"
        " graph's inputs (no IR version from 4 on needs it there), or lower the IR version to 3"
    )


def _why_no_entry(index: Index, node: NodeProto) -> str | None:
    """Why no chain starts at a product; None where one can."""
    if index.opset < OLDEST_OPSET:
        return f"is of operator set {index.opset}; chains are read from {OLDEST_OPSET} on"
    operands = list(node.input[:2])
    overridable = [name for name in operands if index.is_overridable(name)]
    if overridable:
        return _overridden(overridable[0])
    if is_unchecked(index, node):
        return UNCHECKED
    constants = [name for name in operands if index.is_constant(name)]
    if not constants:
        return f"multiplies two tensors that both vary ({', '.join(map(repr, operands))})"
    if len(constants) == 2:
        return "reads constants alone"
    values = index.value(constants[0])
    assert values is not None
    if values.values.dtype not in FLOATS.values():
        return f"reads {constants[0]!r} of type {values.values.dtype}, which is not read"
    if entry(index, node) is None:
        other = next(name for name in operands if name != constants[0])
        if index.shape(other) is None:
            return f"reads {other!r} of unknown rank: declare the shapes of the graph's inputs"
        return f"reads {other!r}, whose sizes do not fit {constants[0]!r}"
    start = entry(index, node)
    if start is not None and read_step(index, node, *start) is None:
        return _why_no_step(index, node, start[0])
    return None


def _stop(index: Index, tensor: str, layout: Layout) -> str:
    """Why a chain that has come to a tensor ends there."""
    readers = [index.nodes[i] for i in index.readers.get(tensor, [])]
    shown = ", ".join(described(node) for node in readers[:SHOWN_READERS])
    more = f" and {len(readers) - SHOWN_READERS} more" if len(readers) > SHOWN_READERS else ""
    if tensor in index.pinned:
        is_output = tensor in {value.name for value in index.graph.output}
        place = "is an output of the graph" if is_output else "is read in a branch"
        return f"{tensor!r} {place}" + (f", and read by {shown}{more}" if readers else "")
    if len(readers) > 1:
        return f"{tensor!r} has several readers: {shown}{more}"
    if not readers:
        return f"{tensor!r} is unread"
    step = read_step(index, readers[0], tensor, layout)
    if step is not None:
        return f"{described(readers[0])} adds no layer"
    return _why_no_step(index, readers[0], tensor)


def _why_no_step(index: Index, node: NodeProto, tensor: str) -> str:
    """Why a node is no part of a chain that comes to it."""
    operator = index.operator(node)
    others = [name for name in node.input if name and name != tensor]
    varying = [name for name in others if not index.is_constant(name)]
    overridable = [name for name in varying if index.is_overridable(name)]
    if not operator:
        return f"{described(node)} {IS_FUNCTION}"
    if operator not in READERS:
        what = _why_no_layer(index, node, [])
        return f"{described(node)} {what}"
    if overridable:
        return f"{described(node)} {_overridden(overridable[0])}"
    if is_unchecked(index, node):
        return f"{described(node)} {UNCHECKED}"
    if varying:
        return f"{described(node)} combines {tensor!r} with {varying[0]!r}, which varies as well"
    return f"{described(node)} {_why_not_by_unit(operator, others)}"


def _why_not_by_unit(operator: str, constants: Sequence[str]) -> str:
    """Why an operator with constants is no map from units to units."""
    if operator in PIECES:
        return "is linear in pieces, of which its input may be in several on this domain"
    if operator in SPECIAL:
        return SPECIAL[operator]
    if constants:
        return f"has the constant {constants[0]!r}, which is not one number (or matrix) for all"
    return "does more than acting on each unit"


SPECIAL = {
    **dict.fromkeys(
        ("Flatten", "Reshape", "Squeeze", "Unsqueeze"),
        "mixes the units with other axes, or gives a shape that is not known",
    ),
    "Cast": "changes the type",
    "Dropout": "may drop units: it trains, or its mask is read",
    "BatchNormalization": "is not in inference form, with exact constants a channel",
    "com.microsoft.FusedGemm": "has another activation than Relu, or no constant for each unit",
}
