"""Sizes of a graph's inputs that the file leaves open and the first weight tells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TensorShapeProto,
    ValueInfoProto,
)
from onnx import helper as onnx_helper

# Operators behind which a tensor has the sizes it had, whatever they are.
_SAME_SIZES = {
    *("Abs", "Cast", "Ceil", "Clip", "Dropout", "Elu", "Erf", "Exp", "Floor", "HardSigmoid"),
    *("Identity", "LeakyRelu", "Log", "Neg", "Relu", "Round", "Selu", "Sigmoid", "Softplus"),
    *("Sqrt", "Tanh"),
}
# Operators that broadcast: with one number as the other operand the sizes stay.
_WITH_A_NUMBER = {"Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"}
# A first axis that is longer is taken for a batch of unknown size: nobody runs as many rows.
MOST_ROWS = 2**20
# Deeper than this an input's own sizes are hardly ever told.
_MOST_STEPS = 16
# A chain without branches may be this long.
_MOST_NODES = 1000


@dataclass(frozen=True)
class _Told:
    """What a weight says of a tensor: its size along an axis, and its rank where that is fixed.

    `flat` is said of all axes behind the first: the size is their product.
    """

    axis: int
    size: int
    rank: int | None = None
    flat: bool = False


def declared_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The graph's inputs with every size that is told, and no others than the file has.

    A size below 0 is one that is not known, as runtimes take it; so is a batch beyond `MOST_ROWS`.
    """
    readers = _readers(model.graph)
    weights = _weights(model.graph)
    inputs = []
    for given in model.graph.input:
        value = ValueInfoProto()
        value.CopyFrom(given)
        forget_negative(value)
        _forget_rows(value)
        if value.name not in weights and _is_open(value):
            _fill_rank(value, _rank(value.name, model.graph, readers, weights))
            for told in _told(value.name, readers, weights):
                _fill(value, told)
        inputs.append(value)
    return inputs


def contradiction(model: ModelProto) -> str | None:
    """Which size of an input is another than a weight says, in words; None: none.

    No runtime runs such a model, whatever it is given.
    """
    readers = _readers(model.graph)
    weights = _weights(model.graph)
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name in weights or len(dims) < 2:
            continue
        for told in _told(value.name, readers, weights):
            if told.flat:
                continue
            fits = -len(dims) <= told.axis < len(dims)
            declared = dims[told.axis].dim_value if fits else 0
            if declared > 0 and declared != told.size:
                return (
                    f"the input {value.name!r} has the size {declared} where a weight says"
                    f" {told.size}"
                )
    return None


def forget_negative(value: ValueInfoProto) -> None:
    """Makes sizes below 0 unknown."""
    if value.type.HasField("tensor_type"):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value < 0:
                dim.Clear()


def without_odd_sizes(model: ModelProto) -> ModelProto | None:
    """A copy in which no declared size is 0 or below; None where none is.

    Shape inference, and the checker with it, ends the process at some of them (std::clamp with its
    ends the wrong way round, in Slice).
    """
    if not any(_is_odd(value) for graph in _graphs(model.graph) for value in _declared(graph)):
        return None
    copy = ModelProto()
    copy.CopyFrom(model)
    for graph in _graphs(copy.graph):
        for value in _declared(graph):
            forget_odd(value)
    return copy


def forget_odd(value: ValueInfoProto) -> None:
    """Makes sizes of 0 and below unknown."""
    if _is_odd(value):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()


def _is_odd(value: ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return False
    dims = value.type.tensor_type.shape.dim
    return any(dim.HasField("dim_value") and dim.dim_value <= 0 for dim in dims)


def _declared(graph: GraphProto) -> Iterator[ValueInfoProto]:
    yield from graph.input
    yield from graph.output
    yield from graph.value_info


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those in its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if _holds_graphs(attribute) else ():
                yield from _graphs(inner)


def _holds_graphs(attribute: AttributeProto) -> bool:
    return attribute.HasField("g") or len(attribute.graphs) > 0


def _forget_rows(value: ValueInfoProto) -> None:
    """Makes a first axis that is too long to be run unknown."""
    if value.type.HasField("tensor_type"):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value > MOST_ROWS:
            dims[0].Clear()


def _weights(graph: GraphProto) -> dict[str, TensorProto]:
    """Initializers, and what Constant nodes hold."""
    found = {
        name: attribute.t
        for node in graph.node
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        for attribute in node.attribute
        if attribute.name == "value"
        for name in node.output
    }
    return found | {tensor.name: tensor for tensor in graph.initializer}


def _readers(graph: GraphProto) -> dict[str, list[NodeProto]]:
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    return readers


def _is_open(value: ValueInfoProto) -> bool:
    if not value.type.HasField("tensor_type"):
        return False
    tensor = value.type.tensor_type
    return not tensor.HasField("shape") or any(
        not d.HasField("dim_value") for d in tensor.shape.dim
    )


def _told(
    tensor: str, readers: dict[str, list[NodeProto]], weights: dict[str, TensorProto]
) -> list[_Told]:
    """What those say who read the tensor, or what has its sizes."""
    found: list[_Told] = []
    names = [tensor]
    for name in names:
        for node in readers.get(name, ()):
            if node.domain not in ("", "ai.onnx") or not node.output:
                continue
            slot = list(node.input).index(name)
            others = [weights.get(other) for other in node.input]
            if (node.op_type in _SAME_SIZES and slot == 0) or (
                node.op_type in _WITH_A_NUMBER and len(others) == 2 and _is_number(others[1 - slot])
            ):
                names.append(node.output[0])
            elif node.op_type == "Flatten" and all(
                a.name != "axis" or a.i == 1 for a in node.attribute
            ):
                behind = _told(node.output[0], readers, weights)
                found += [_Told(1, t.size, flat=True) for t in behind if t.axis in (1, -1)]
            else:
                found += _by_weight(node, slot, others)
        if len(names) > _MOST_STEPS:
            break
    return found


def _rank(
    tensor: str,
    graph: GraphProto,
    readers: dict[str, list[NodeProto]],
    weights: dict[str, TensorProto],
) -> int | None:
    """The rank of a tensor, by those of the graph's outputs that have as many axes as it."""
    declared = {value.name: value.type.tensor_type for value in graph.output}
    names = [tensor]
    for name in names:
        if name in declared and declared[name].HasField("shape"):
            return len(declared[name].shape.dim) or None
        for node in readers.get(name, ()):
            if node.domain not in ("", "ai.onnx") or not node.output:
                continue
            slot = list(node.input).index(name)
            others = [weights.get(other) for i, other in enumerate(node.input) if i != slot]
            other = others[0] if len(others) == 1 else None
            alone = node.op_type in _SAME_SIZES and slot == 0
            beside = node.op_type in _WITH_A_NUMBER and other is not None and len(other.dims) <= 1
            product = node.op_type == "MatMul" and slot == 0 and other is not None
            if alone or beside or (product and other is not None and len(other.dims) == 2):
                names.append(node.output[0])
        if len(names) > _MOST_NODES:
            break
    return None


def _fill_rank(value: ValueInfoProto, rank: int | None) -> None:
    tensor = value.type.tensor_type
    if rank is not None and value.type.HasField("tensor_type") and not tensor.HasField("shape"):
        kind = onnx_helper.make_tensor_type_proto(tensor.elem_type, [None] * rank)
        tensor.shape.CopyFrom(kind.tensor_type.shape)


def _is_number(tensor: TensorProto | None) -> bool:
    return tensor is not None and len(tensor.dims) <= 1 and all(size == 1 for size in tensor.dims)


def _by_weight(node: NodeProto, slot: int, operands: Sequence[TensorProto | None]) -> list[_Told]:
    attributes = {a.name: a for a in node.attribute}
    if node.op_type in ("Gemm", "MatMul") and slot < 2 and len(operands) > 1:
        weight = operands[1 - slot]
        if weight is None or not weight.dims:
            return []
        if node.op_type == "MatMul":
            return _by_matrix(slot, list(weight.dims))
        flags = ("transA", "transB")
        mine, other = (
            bool(attributes[flags[s]].i) if flags[s] in attributes else False
            for s in (slot, 1 - slot)
        )
        if len(weight.dims) != 2:
            return []
        return [_Told((1 - slot) ^ mine, weight.dims[slot ^ other], 2)]
    weight = operands[1] if slot == 0 and len(operands) > 1 else None
    if weight is None or not weight.dims:
        return []
    if node.op_type == "Conv":
        groups = attributes["group"].i if "group" in attributes else 1
        return [_Told(1, weight.dims[1] * groups, len(weight.dims))] if len(weight.dims) > 2 else []
    if node.op_type in ("ConvTranspose", "BatchNormalization", "InstanceNormalization"):
        rank = len(weight.dims) if node.op_type == "ConvTranspose" else None
        return [_Told(1, weight.dims[0], rank)]
    return []


def _by_matrix(slot: int, dims: list[int]) -> list[_Told]:
    if slot == 0:
        return [_Told(-1, dims[-2] if len(dims) > 1 else dims[0])]
    return [_Told(-2, dims[-1])] if len(dims) > 1 else []


def _fill(value: ValueInfoProto, told: _Told) -> None:
    tensor = value.type.tensor_type
    if told.size <= 0:
        return
    if not tensor.HasField("shape"):
        if told.rank is None:
            return
        kind = onnx_helper.make_tensor_type_proto(tensor.elem_type, [None] * told.rank)
        tensor.shape.CopyFrom(kind.tensor_type.shape)
    dims: Sequence[TensorShapeProto.Dimension] = tensor.shape.dim
    if told.flat:
        _fill_flat(dims, told.size)
    elif -len(dims) <= told.axis < len(dims) and len(dims) > 1:
        dim = dims[told.axis]
        if not dim.HasField("dim_value"):
            dim.Clear()
            dim.dim_value = told.size


def _fill_flat(dims: Sequence[TensorShapeProto.Dimension], size: int) -> None:
    """Fills the only size behind the first that is open, of which the product is known."""
    known = [dim.dim_value for dim in dims[1:] if dim.HasField("dim_value")]
    others = prod(known)
    if len(known) == len(dims) - 2 and others > 0 and size % others == 0:
        dim = next(dim for dim in dims[1:] if not dim.HasField("dim_value"))
        dim.Clear()
        dim.dim_value = size // others
