"""Data movement with what is cut: run on numbered entries, whole and cut.

The numbers that tell it where to go are taken from the result, and proved here. Sizes that a
Reshape goes to may be computed from others: they are, as shapes are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, OperatorSetIdProto

from onnx_exact.errors import UncheckedError
from onnx_exact.verifier.cutting import Cut, Cutting
from onnx_exact.verifier.model import names_read
from onnx_exact.verifier.operators import attributes
from onnx_exact.verifier.refusals import require, require_known
from onnx_exact.verifier.shapes import COMPUTED, Shape, run_alone

# Of which inputs entries are moved; all others are constants.
MOVES = {
    "Concat": slice(None),
    **dict.fromkeys(
        (
            "Flatten",
            "Gather",
            "Reshape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ),
        slice(1),
    ),
}
# Entries of a tensor that is numbered.
MOST_NUMBERED = 2**24

# What sizes that are not known are tried at.
SIZES = (0, 1, 2, 3)
# From sizes of tensors to where a Reshape goes, in nodes; each may read two.
MOST_STEPS = 12

# A node, and its constant inputs by name.
Fed = tuple[NodeProto, Mapping[str, NDArray[Any]]]


def moves_alike(
    whole: Fed,
    cut: Fed,
    shapes: Mapping[str, Shape],
    cuts: Mapping[str, Cut],
    opsets: Iterable[OperatorSetIdProto],
) -> bool:
    """Whether a node makes of cut tensors what another one makes of whole ones, cut.

    Args:
        whole, cut: the nodes.
        shapes: of the tensors whose entries they move.
        cuts: of all tensors that are cut.
        opsets: of the model.
    """
    numbered: dict[str, NDArray[Any]] = {}
    start = 0
    for name, shape in shapes.items():
        count = math.prod(shape)
        require_known(count <= MOST_NUMBERED, f"{name!r} is too large")
        numbered[name] = np.arange(start, start + count).reshape(shape)
        start += count
    left = {name: cuts[name].of(v) if name in cuts else v for name, v in numbered.items()}
    sets = list(opsets)
    try:
        first = run_alone(whole[0], numbered | dict(whole[1]), sets)
    except Exception:  # of any kind, where sizes do not fit: the original does not run either
        return not start
    try:
        then = run_alone(cut[0], left | dict(cut[1]), sets)
    except Exception:  # of any kind, where sizes do not fit
        return False
    pairs = zip(filter(None, whole[0].output), first, then, strict=True)
    return all(np.array_equal(cuts[n].of(a) if n in cuts else a, b) for n, a, b in pairs)


def moved(cutting: Cutting, node: NodeProto, made: NodeProto) -> None:
    """Data movement, run on numbered entries, whole and cut."""
    twin = cutting.twin(node)
    if twin is None:
        raise UncheckedError(f"cannot check: where {node.op_type} goes in the result")
    moves = MOVES[node.op_type]
    data = node.input[moves]
    fits = data == twin.input[moves] and list(node.output) == list(twin.output)
    require(fits, f"{node.output[0]!r} is made of other tensors in the result")
    constant = [cutting.old.constant(name) is not None for name in data]
    require_known(not any(constant), f"{node.op_type} of constants")
    del made.input[len(data) :]
    parameters, computed = {}, set[str]()
    for slot in range(len(data), len(twin.input)):
        made.input.append(twin.input[slot])
        name = "".join(node.input[slot : slot + 1])
        if node.op_type == "Reshape" and name and cutting.old.constant(name) is None:
            require_known(twin.input[slot] == name, "where Reshape goes")
            computed.add(name)
        elif twin.input[slot]:
            own = twin.input[slot] not in node.input
            value = (cutting.new if own else cutting.old).constant(twin.input[slot])
            require_known(value is not None, f"where {node.op_type} goes")
            parameters[slot] = np.asarray(value)
            old = cutting.old.constant("".join(node.input[slot : slot + 1]))
            rank = 1 if old is None else old.ndim
            require_known(parameters[slot].ndim == rank, f"where {node.op_type} goes")
            if own:
                cutting.put(node, made, slot, np.asarray(value))
    del made.attribute[:]
    made.attribute.extend(twin.attribute)
    _only_along_the_cut(cutting, node, twin, parameters)
    first = {
        name: cutting.constant(node, slot)
        for slot, name in enumerate(node.input)
        if name and slot >= len(data) and name not in computed
    }
    then = {made.input[slot]: value for slot, value in parameters.items()}
    for size in SIZES:
        shapes = {name: _at_size(cutting, name, size) for name in data}
        to = {name: _integers(cutting, name, size) for name in computed}
        fed = (node, first | to), (made, then | to)
        same = moves_alike(*fed, shapes, cutting.cuts, cutting.old.proto.opset_import)
        require_known(same, f"{node.op_type} to {node.output[0]!r} moves other entries")


def sized(cutting: Cutting, node: NodeProto, made: NodeProto) -> None:
    """Sizes of what is cut, of which nobody reads the one that is another now."""
    cut, name = cutting.cuts.get(node.input[0]), node.output[0]
    plain = not node.attribute and name not in {v.name for v in cutting.old.graph.output}
    require_known(cut is not None and plain, "sizes of what is cut")
    assert cut is not None
    sizes: NDArray[Any] = np.arange(len(cutting.shape(node.input[0])))
    for reader in (n for n in cutting.old.nodes if name in names_read(n)):
        fixed = {n: cutting.old.constant(n) for n in reader.input if n and n != name}
        picks = reader.op_type in ("Gather", "Slice") and cutting.old.is_standard(reader)
        picks &= not any(a.ref_attr_name for a in reader.attribute)
        read = {name: sizes} | {n: v for n, v in fixed.items() if v is not None}
        alone = reader.input[0] == name and len(read) == len(fixed) + 1
        require_known(picks and alone, "who reads sizes of what is cut")
        picked = run_alone(reader, read, cutting.old.proto.opset_import)[0]
        require_known(not (picked == cut.axis).any(), "a size of what is cut")


def _integers(cutting: Cutting, tensor: str, size: int, depth: int = 0) -> NDArray[Any]:
    """Integers that are computed from sizes, with one in place of those not known."""
    value, position = cutting.old.constant(tensor), cutting.old.producer.get(tensor)
    if value is not None:
        return np.asarray(value)
    require_known(position is not None and depth < MOST_STEPS, "where Reshape goes")
    node = cutting.old.nodes[position or 0]
    require_known(cutting.old.is_standard(node), "where Reshape goes")
    if node.op_type == "Shape" and not node.attribute:
        return np.array(_at_size(cutting, node.input[0], size), np.int64)
    # As for shapes: where entries are picked may not depend on sizes.
    fixed = all(cutting.old.constant(name) is not None for name in node.input[1:] if name)
    picks = node.op_type in COMPUTED and (node.op_type == "Concat" or fixed)
    require_known(picks, "where Reshape goes")
    read = {name: _integers(cutting, name, size, depth + 1) for name in node.input if name}
    return np.asarray(run_alone(node, read, cutting.old.proto.opset_import)[0])


def _at_size(cutting: Cutting, tensor: str, size: int) -> Shape:
    """The shape of a tensor with a size in place of those that are not known."""
    trials = zip(*cutting.old.shapes(tensor), strict=True)
    return tuple(n[0] if len(set(n)) == 1 else size for n in trials)


def _only_along_the_cut(
    cutting: Cutting, node: NodeProto, twin: NodeProto, new: Mapping[int, NDArray[Any]]
) -> None:
    """Where it goes along other axes, whose sizes may not be known, is what it was."""
    options, cut = attributes(node), cutting.cuts.get(node.input[0])
    rank = len(cutting.shape(node.input[0]))
    if node.op_type in ("Gather", "Split"):
        along = options.get("axis", 0) % rank
        changes = 1 not in new or (cut is not None and cut.axis == along)
        changes |= node.op_type == "Split" and any(o in cutting.cuts for o in node.output)
        same = changes or np.array_equal(new[1], cutting.constant(node, 1))
        require_known(same, f"where {node.op_type} goes")
    if node.op_type == "Slice" and not any(node.input[1:]):
        require_known(not new and attributes(node) == attributes(twin), "where Slice goes")
    elif node.op_type == "Slice":
        given = {slot for slot, name in enumerate(node.input) if slot and name}
        require_known(given == new.keys(), "where Slice goes")
        old = {slot: cutting.constant(node, slot).reshape(-1) for slot in new}
        axes = old.get(3, np.arange(len(old[1]))) % rank
        other = axes != (rank if cut is None else cut.axis)
        ends = all(np.array_equal(new[k].reshape(-1)[other], old[k][other]) for k in (1, 2))
        rest = all(np.array_equal(new[k], old[k]) for k in (3, 4) if k in old)
        require_known(ends and rest, "where Slice goes")
