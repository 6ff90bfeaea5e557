"""The table of operators, and what the type of a tensor does to the interval of any of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
from onnx import NodeProto, TensorProto

from onnx_exact.graph.bounds import (
    axes,
    dense,
    elementwise,
    functions,
    normalization,
    pools,
    quantization,
    reductions,
)
from onnx_exact.graph.bounds.context import Context, Rule
from onnx_exact.graph.bounds.interval import Interval, intersect, unknown, valid
from onnx_exact.graph.bounds.types import FLOAT_TYPES, INTEGER_TYPES
from onnx_exact.graph.index import Index


class Effect(Enum):
    """What an operator does to the numbers it gets."""

    # They are moved: to the bit the same.
    MOVES = "moves"
    # Each result is one of them, or a constant; numbers below the normal range may be flushed.
    PICKS = "picks"
    # As PICKS, or the opposite number, which integers do not always have.
    TURNS = "turns"
    # Results are rounded; integers wrap.
    COMPUTES = "computes"


@dataclass(frozen=True)
class Operator:
    """How one operator acts on intervals.

    Attributes:
        rule: the interval of the first output, or of all.
        effect: what it does to numbers.
        outputs: for how many of them, from the first on, the rule holds.
    """

    rule: Rule
    effect: Effect = Effect.COMPUTES
    outputs: int = 1


EVERY = 2**31

OPERATORS: dict[str, Operator] = {
    "ai.onnx.ml.Scaler": Operator(elementwise.scaler),
    "Abs": Operator(elementwise.absolute, Effect.TURNS),
    "ArgMax": Operator(axes.index_of, Effect.PICKS),
    "ArgMin": Operator(axes.index_of, Effect.PICKS),
    "Atan": Operator(functions.arctangent),
    "Ceil": Operator(elementwise.stepwise, Effect.PICKS),
    "Celu": Operator(functions.continuous_elu),
    "Compress": Operator(axes.pick, Effect.MOVES),
    "DepthToSpace": Operator(axes.pick, Effect.MOVES),
    "Erf": Operator(functions.error_function),
    "Floor": Operator(elementwise.stepwise, Effect.PICKS),
    "GRU": Operator(functions.recurrent, outputs=2),
    "GatherElements": Operator(axes.pick, Effect.MOVES),
    "GatherND": Operator(axes.pick, Effect.MOVES),
    "Gelu": Operator(functions.gated),
    "HardSwish": Operator(elementwise.hard_swish),
    "InstanceNormalization": Operator(normalization.instance_normalization),
    "LSTM": Operator(functions.recurrent, outputs=2),
    "LayerNormalization": Operator(normalization.layer_normalization),
    "Log": Operator(functions.log),
    "LogSoftmax": Operator(functions.log_softmax),
    "Mean": Operator(elementwise.mean),
    "Mish": Operator(functions.gated),
    "PRelu": Operator(elementwise.parametric_relu),
    "Pow": Operator(functions.power),
    "RNN": Operator(functions.recurrent, outputs=2),
    "Reciprocal": Operator(elementwise.reciprocal),
    "ReduceL1": Operator(reductions.magnitudes),
    "ReduceL2": Operator(reductions.squares),
    "ReduceSumSquare": Operator(reductions.squares),
    "Resize": Operator(axes.resize),
    "Round": Operator(elementwise.stepwise, Effect.PICKS),
    "ScatterElements": Operator(axes.pick_or_update, Effect.PICKS),
    "ScatterND": Operator(axes.pick_or_update, Effect.PICKS),
    "Selu": Operator(functions.scaled_elu),
    "Sign": Operator(elementwise.stepwise, Effect.PICKS),
    "Softplus": Operator(functions.softplus),
    "Softsign": Operator(functions.softsign),
    "SpaceToDepth": Operator(axes.pick, Effect.MOVES),
    "ThresholdedRelu": Operator(elementwise.thresholded_relu, Effect.PICKS),
    "TopK": Operator(axes.pick, Effect.MOVES),
    "Trilu": Operator(axes.pick_or_zero, Effect.PICKS),
    "Upsample": Operator(axes.resize),
    "Add": Operator(elementwise.add),
    "AveragePool": Operator(pools.average_pool),
    "BatchNormalization": Operator(normalization.batch_normalization),
    "Cast": Operator(elementwise.cast, Effect.PICKS),
    "Clip": Operator(elementwise.clip, Effect.PICKS),
    "Concat": Operator(axes.concat, Effect.MOVES),
    "Conv": Operator(dense.conv),
    "ConvTranspose": Operator(dense.conv_transpose),
    "Cos": Operator(functions.wave),
    "DequantizeLinear": Operator(quantization.dequantize),
    "Div": Operator(elementwise.div),
    "Dropout": Operator(elementwise.dropout, Effect.MOVES),
    "Elu": Operator(functions.elu),
    "Exp": Operator(functions.exp),
    "Expand": Operator(axes.pick, Effect.MOVES),
    "Flatten": Operator(axes.reshape, Effect.MOVES),
    "Gather": Operator(axes.pick, Effect.MOVES),
    "Gemm": Operator(dense.gemm),
    "GlobalAveragePool": Operator(pools.global_average_pool),
    "GlobalMaxPool": Operator(pools.global_max_pool, Effect.PICKS),
    "HardSigmoid": Operator(elementwise.hard_sigmoid),
    "Identity": Operator(elementwise.identity, Effect.MOVES),
    "LeakyRelu": Operator(elementwise.leaky_relu),
    "MatMul": Operator(dense.matmul),
    "Max": Operator(elementwise.largest, Effect.PICKS),
    "MaxPool": Operator(pools.max_pool, Effect.PICKS),
    "Min": Operator(elementwise.smallest, Effect.PICKS),
    "Mul": Operator(elementwise.mul),
    "Neg": Operator(elementwise.neg, Effect.TURNS),
    "OneHot": Operator(axes.one_hot, Effect.MOVES),
    "Pad": Operator(axes.pad, Effect.PICKS),
    "QuantizeLinear": Operator(quantization.quantize, Effect.PICKS),
    "ReduceMax": Operator(reductions.extreme, Effect.PICKS),
    "ReduceMean": Operator(reductions.average),
    "ReduceMin": Operator(reductions.extreme, Effect.PICKS),
    "ReduceSum": Operator(reductions.total),
    "Relu": Operator(elementwise.relu, Effect.PICKS),
    "Reshape": Operator(axes.reshape, Effect.MOVES),
    "Sigmoid": Operator(functions.sigmoid),
    "Sin": Operator(functions.wave),
    "Slice": Operator(axes.pick, Effect.MOVES),
    "Softmax": Operator(functions.softmax),
    "Split": Operator(axes.pick, Effect.MOVES, outputs=EVERY),
    "Sqrt": Operator(elementwise.sqrt),
    "Squeeze": Operator(axes.reshape, Effect.MOVES),
    "Sub": Operator(elementwise.sub),
    "Sum": Operator(elementwise.total),
    "Tanh": Operator(functions.tanh),
    "Tile": Operator(axes.pick, Effect.MOVES),
    "Transpose": Operator(axes.transpose, Effect.MOVES),
    "Unsqueeze": Operator(axes.reshape, Effect.MOVES),
    "Where": Operator(elementwise.where, Effect.PICKS),
}

# They are in no file: what is looked into is written out with these.
INNER = {"onnx_exact.Join": Operator(elementwise.joined, Effect.MOVES)}
# Their outputs are not of the type of the first input.
CONVERTS = {
    *("ArgMax", "ArgMin", "Cast", "DequantizeLinear", "OneHot", "QuantizeLinear", "Scaler", "Where")
}
# These join their inputs, so that one without entries leaves the others as they are.
JOINS = {"Concat", "Resize", "Upsample"}


def unknown_of(elem_type: int, rank: int | None) -> Interval:
    """All that is known of a tensor of this type; integers have the range of their type."""
    found = unknown(rank)
    if elem_type not in INTEGER_TYPES:
        return found
    least, greatest = INTEGER_TYPES[elem_type]
    return Interval(np.full_like(found.lower, least), np.full_like(found.upper, greatest))


def apply(
    index: Index, node: NodeProto, inputs: tuple[Interval | None, ...], position: int
) -> Interval | None:
    """The interval of an output of a node, in the type of the tensor.

    Args:
        index: of the graph.
        node: any.
        inputs: the intervals of its inputs.
        position: of the output.

    Returns:
        None where nothing is known: no rule, or none for this output, attribute or type.
    """
    name = index.operator(node)
    operator = OPERATORS.get(name) or INNER.get(name)
    if operator is None or not inputs or position >= operator.outputs:
        return None
    known = [x for x in inputs if x is not None]
    if inputs[0] is None or (node.op_type not in JOINS and any(x.lower.size == 0 for x in known)):
        return None
    elem_type = _computed_in(index, node, node.output[position])
    c = Context(index, node, inputs, position=position)
    # Overflow and inf - inf are part of the arithmetic.
    with np.errstate(all="ignore"):
        if elem_type in INTEGER_TYPES:
            return _of_integers(c, operator, elem_type)
        return _of_floats(c, operator, elem_type)


def _of_floats(c: Context, operator: Operator, elem_type: int) -> Interval | None:
    node, inputs = c.node, c.inputs
    known = [x for x in inputs if x is not None]
    if operator.effect is Effect.MOVES:
        found = operator.rule(c)
        return None if found is None else replace(found, overflows=_may_overflow(known))
    kind = FLOAT_TYPES.get(elem_type)
    if elem_type == TensorProto.UNDEFINED and operator.effect is Effect.PICKS:
        # Nothing but flushing depends on the type, and no other type flushes as much.
        kind = FLOAT_TYPES[TensorProto.FLOAT16]
    if kind is None:
        return None
    if node.op_type not in CONVERTS:
        inputs = tuple(None if x is None else kind.flushed(x) for x in inputs)
    found = operator.rule(replace(c, inputs=inputs, kind=kind))
    if found is None:
        return None
    inside = found.overflows
    found = valid(found.lower, found.upper)
    if operator.effect is Effect.COMPUTES:
        found = kind.limited(found)
    new = operator.effect is Effect.COMPUTES or node.op_type == "Cast"
    overflows = inside or _may_overflow(known) or (new and not found.finite)
    return replace(kind.flushed(found), overflows=overflows)


def _of_integers(c: Context, operator: Operator, elem_type: int) -> Interval | None:
    if operator.effect not in (Effect.MOVES, Effect.PICKS):
        return None
    found = operator.rule(c)
    whole = unknown_of(elem_type, 0)
    return None if found is None else replace(intersect(found, whole), overflows=False)


def _may_overflow(inputs: list[Interval]) -> bool:
    return any(x.overflows for x in inputs)


def _computed_in(index: Index, node: NodeProto, output: str) -> int:
    """The element type of an output; that of the first input where inference does not tell."""
    found = index.elem_type(output)
    if found or node.op_type in CONVERTS:
        return found
    return index.elem_type(node.input[0])
