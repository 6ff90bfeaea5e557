"""Labels of all tensors of a graph, and who reads them; the rules are in the room's own text."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from onnx_exact.graph.constants import Value
from onnx_exact.graph.index import Index
from onnx_exact.graph.reasons import described
from onnx_exact.labels.constants import takes_constants
from onnx_exact.labels.labelling import Flags, Labelling, Read
from onnx_exact.labels.move import MOVES, Labels, compressed, picks_first_size, run_on
from onnx_exact.labels.params import can_cut
from onnx_exact.labels.steady import always_zero, pass_steady, steady_labels
from onnx_exact.network import Box

# Entries of a label array that is written out for data movement.
MOST_ENTRIES = 2**24
# They act on every entry by itself; constants may stand beside the tensor.
ENTRYWISE = {
    *("Abs", "Add", "Cast", "Ceil", "Clip", "Cos", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul"),
    *("Neg", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin"),
    *("Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu"),
    *("QuantizeLinear", "DequantizeLinear", "Gelu", "Celu"),
}
CONVOLUTIONS = ("Conv", "ConvTranspose")
# The rank of a tensor of images, of which alone onnxruntime lays channels out in blocks.
IMAGES = 4
# Dense networks whose tensors are quantised on the way have no chains.
NEEDED = (*CONVOLUTIONS, "QuantizeLinear")
MAKERS = (*CONVOLUTIONS, "Gemm", "MatMul")
POOLS = {"AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "MaxPool"}
MEANS = {"ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceL1", "ReduceL2"}


def label(
    index: Index,
    bounds: Callable[[str], Box],
    staying: Collection[str] = (),
    constants: bool = True,
    exact: Callable[[str], Box] | None = None,
) -> Labelling:
    """Labels all tensors of a graph.

    Args:
        index: of the graph.
        bounds: on each tensor, over the domain.
        staying: tensors that keep all that they have.
        constants: whether channels that are constant and not 0 may go.
        exact: bounds in real arithmetic; None for no others.
    """
    found = Labelling(index, bounds, exact or bounds, constants)
    for node in index.nodes:
        outputs = [name for name in node.output if name]
        if all(index.is_constant(name) for name in outputs):
            continue
        labelled = _labelled(found, node)
        if labelled is None:
            for name in node.input:
                if name and not index.is_constant(name):
                    found.pin(_labels(found, name), f"{described(node)} reads them as a whole")
            labelled = {}
        for name in outputs:
            rank = found.rank(name) or 0
            found.of[name] = labelled.get(name, np.zeros((1,) * rank, np.int64))
        pass_steady(found, node, labelled)
    given = {value.name for value in index.graph.output}
    for name in (*sorted(index.pinned), *sorted(staying)):
        if name in found.of:
            where = "are in the output" if name in given else "are read in a branch, in"
            where = where if name in index.pinned else "are inside of a chain, in"
            found.pin(found.of[name], f"they {where} {name!r}")
    return found


def has_channels(index: Index) -> bool:
    """Whether there is anything that has: a dense network is left to its chains."""
    return any(index.is_standard(n) and n.op_type in NEEDED for n in index.nodes)


def _labels(found: Labelling, tensor: str) -> Labels:
    if tensor not in found.of:
        found.of[tensor] = np.zeros((1,) * (found.rank(tensor) or 0), np.int64)
    return found.of[tensor]


def _labelled(found: Labelling, node: NodeProto) -> dict[str, Labels] | None:
    """The labels of what a node puts out; None where it pins all that it touches."""
    index = found.index
    if not index.is_standard(node) or any(a.ref_attr_name for a in node.attribute):
        return None
    read = [name for name in node.input if name and not index.is_constant(name)]
    if not read or any(found.rank(n) is None for n in (*read, *filter(None, node.output))):
        return None
    op = node.op_type
    if op == "Shape" and picks_first_size(index, node):
        return {}
    if op in ENTRYWISE:
        return _entrywise(found, node, read)
    if op in ("Conv", "ConvTranspose"):
        return _convolved(found, node)
    if op in ("Gemm", "MatMul"):
        return _multiplied(found, node)
    if op in MOVES:
        return _moved(found, node, read)
    alone = read == [node.input[0]] and sum(map(bool, node.output)) == 1
    if alone and op in ("BatchNormalization", *POOLS, "Pad", "Resize", "Upsample"):
        return _by_channel(found, node)
    return _averaged(found, node) if alone and op in MEANS else None


def _entrywise(found: Labelling, node: NodeProto, read: list[str]) -> dict[str, Labels] | None:
    """One label for what meets; constants may be no larger than what varies."""
    index, output = found.index, node.output[0]
    if any(index.unread(name) is False for name in node.output[1:] if name):
        return None
    rank = found.rank(output)
    assert rank is not None
    shape = index.shape(output)
    if not any(index.shape(name) == shape for name in read):
        return None
    if node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]:
        return None
    if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
        scales = [index.value(name) for name in node.input[1:] if name]
        if read != [node.input[0]] or any(v is None or v.values.size != 1 for v in scales):
            return None
    for name in node.input:
        if name and name not in read and not can_cut(index, name):
            return None
    arrays = [_labels(found, name) for name in read]
    arrays = [a.reshape((1,) * (rank - a.ndim) + a.shape) for a in arrays]
    whole = np.broadcast_arrays(*arrays)
    for other in whole[1:]:
        found.join(whole[0], other)
    return {output: compressed(np.array(whole[0]))}


def channels_of(labels: Labels) -> Labels | None:
    """The labels along the second axis, if they are the same along all others."""
    if labels.ndim < 2 or labels.size != labels.shape[1]:
        return None
    return labels.reshape(-1)


def _spread(found: Labelling, tensor: str) -> Labels | None:
    """The label of each channel of a tensor; None where there are none for whole channels."""
    labels, dims = channels_of(_labels(found, tensor)), found.index.shape(tensor)
    if labels is None or dims is None or len(dims) < 2 or not dims[1].static:
        return None
    return np.broadcast_to(labels, (dims[1].size,)) if labels.size == 1 else labels


def _convolved(found: Labelling, node: NodeProto) -> dict[str, Labels] | None:
    index, source, output = found.index, node.input[0], node.output[0]
    cut = [name for name in node.input[1:3] if name]
    labels = _spread(found, source)
    value = index.value(node.input[1])
    weight = None if value is None else _weights(value)
    if labels is None or weight is None or not all(can_cut(index, name) for name in cut):
        return None
    if not np.isfinite(weight.astype(np.float64)).all():
        return None
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    rank = found.rank(output)
    assert rank is not None
    sides = (1,) * (rank - 2)
    transposed = node.op_type == "ConvTranspose"
    if group > 1:
        if transposed or labels.size % group or weight.shape[0] % group:
            return None
        # A group goes as a whole.
        parts = labels.reshape(group, -1)
        first = np.broadcast_to(parts[:, :1], parts.shape)
        found.join(first, parts)
        made = np.repeat(parts[:, 0], weight.shape[0] // group)
        if rank == IMAGES:
            found.blocks += [(labels, True), (made, True)]
        return {output: made.reshape(1, -1, *sides)}
    through = (weight != 0.0).any(axis=tuple(range(2, weight.ndim)))
    through = through.T if transposed else through
    if through.shape[1] != labels.size:
        return None
    if rank == IMAGES and not transposed:
        found.blocks.append((labels, False))
    made = _reads(found, node, labels.reshape(1, -1, *sides), through)
    return {output: made.reshape(1, -1, *sides)}


def _weights(value: Value) -> NDArray[Any]:
    """Numbers that are 0 only where what they stand for is."""
    if value.error is None:
        return value.values
    return np.where((value.values == 0) & (value.error > 0.0), 1, value.values)


def _multiplied(found: Labelling, node: NodeProto) -> dict[str, Labels] | None:
    """A product with a constant matrix on the right."""
    index, source = found.index, node.input[0]
    options = {a.name: a.i for a in node.attribute}
    value = index.value(node.input[1])
    if index.is_constant(source) or value is None or value.values.ndim != 2:
        return None
    if not can_cut(index, node.input[1]) or options.get("transA", 0):
        return None
    if len(node.input) > 2 and node.input[2] and not can_cut(index, node.input[2]):
        return None
    matrix = _weights(value)
    matrix = matrix if options.get("transB", 0) else matrix.T
    labels = _labels(found, source)
    if labels.ndim < 2 or labels.size != labels.shape[-1]:
        return None
    labels_of = np.broadcast_to(labels.reshape(-1), (matrix.shape[1],))
    if labels.size not in (1, matrix.shape[1]) or not np.isfinite(matrix.astype(float)).all():
        return None
    labels = labels_of.reshape(*(1,) * (labels.ndim - 1), -1)
    made = _reads(found, node, labels, matrix != 0)
    return {node.output[0]: made.reshape(*(1,) * (labels.ndim - 1), -1)}


def _reads(found: Labelling, node: NodeProto, labels: Labels, through: Flags) -> Labels:
    """Fresh labels for what a node with weights makes, in line."""
    source, sides = node.input[0], labels.ndim - 2
    zero = always_zero(found, source, labels).reshape(-1)
    steady = steady_labels(found, source, labels).reshape(-1)
    made = found.fresh(through.shape[0])
    taken = found.constants and takes_constants(found.index, node)
    nothing = zero | steady if taken else zero
    convolves = node.op_type in ("Conv", "ConvTranspose")
    found.reads.append(Read(made, labels.reshape(-1), through & ~nothing, convolves))
    shape = (1, -1, *(1,) * sides) if convolves else (*(1,) * (labels.ndim - 1), -1)
    found.steady[node.output[0]] = np.asarray(~(through & ~steady).any(axis=1)).reshape(shape)
    return made


def _by_channel(found: Labelling, node: NodeProto) -> dict[str, Labels] | None:
    """Acts on each channel by itself: the channels of the output are those of the input."""
    index, source, output = found.index, node.input[0], node.output[0]
    before, after = index.shape(source), index.shape(output)
    labels = channels_of(_labels(found, source))
    if before is None or after is None or labels is None or len(before) != len(after):
        return None
    if len(before) < 2 or before[1] != after[1]:
        return None
    if node.op_type == "BatchNormalization":
        options = {a.name: a.i for a in node.attribute}
        plain = not options.get("training_mode", 0) and options.get("spatial", 1) == 1
        if not plain or not all(can_cut(index, name) for name in node.input[1:]):
            return None
    if node.op_type == "Pad" and not _pads_space(index, node, len(before)):
        return None
    if node.op_type in ("Resize", "Upsample") and any(
        not index.is_constant(name) for name in node.input[1:] if name
    ):
        return None
    return {output: labels.reshape(1, -1, *(1,) * (len(after) - 2))}


def _pads_space(index: Index, node: NodeProto, rank: int) -> bool:
    """Whether a Pad leaves the first two axes as they are."""
    pads = next((list(a.ints) for a in node.attribute if a.name == "pads"), None)
    if pads is None and len(node.input) > 1:
        pads = index.integers(node.input[1])
    axes = len(node.input) > 3 and node.input[3] != ""
    if pads is None or axes or len(pads) != 2 * rank:
        return False
    return not any((pads[0], pads[1], pads[rank], pads[rank + 1]))


def _averaged(found: Labelling, node: NodeProto) -> dict[str, Labels] | None:
    """A reduction along axes of which all entries have the same labels."""
    index, labels = found.index, _labels(found, node.input[0])
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axes = options.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = index.integers(node.input[1])
    if not axes:
        return None
    axes = [axis % labels.ndim for axis in axes]
    if any(labels.shape[axis] != 1 for axis in axes) or 0 in axes:
        return None
    kept = (
        labels
        if options.get("keepdims", 1)
        else labels.reshape([n for axis, n in enumerate(labels.shape) if axis not in axes])
    )
    return {node.output[0]: kept}


def _moved(found: Labelling, node: NodeProto, read: list[str]) -> dict[str, Labels] | None:
    """Data movement, executed on the labels."""
    index = found.index
    moved = range(len(node.input)) if node.op_type == "Concat" else (0,)
    if any(node.input[i] not in read for i in moved):
        return None
    computed = node.op_type == "Reshape"
    fixed = (n for i, n in enumerate(node.input) if n and i not in moved)
    if not all(index.is_constant(name) or computed for name in fixed):
        return None
    arrays = []
    for i in moved:
        shape = found.shape(node.input[i])
        if shape is None or math.prod(shape) > MOST_ENTRIES or 0 in shape:
            return None
        arrays.append(np.broadcast_to(_labels(found, node.input[i]), shape))
    outputs = run_on(index, node, arrays)
    if outputs is None:
        return None
    for name, array in outputs.items():
        if found.rank(name) != array.ndim or array.size == 0:
            return None
    return {name: compressed(array) for name, array in outputs.items()}
