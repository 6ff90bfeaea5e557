"""How each operator acts on intervals. One family of them a file."""

from __future__ import annotations

from onnx_exact.graph.bounds import axes, dense, elementwise
from onnx_exact.graph.bounds.context import Context, Rule
from onnx_exact.graph.bounds.interval import Interval

__all__ = ["EVERY_OUTPUT", "RULES", "Context", "Interval", "Rule"]

# The rule holds for all outputs of these, for the first output alone of all others.
EVERY_OUTPUT = {"Split"}

RULES: dict[str, Rule] = {
    "Abs": elementwise.absolute,
    "Add": elementwise.add,
    "AveragePool": axes.average_pool,
    "BatchNormalization": elementwise.batch_normalization,
    "Cast": elementwise.cast,
    "Clip": elementwise.clip,
    "Concat": axes.concat,
    "Conv": dense.conv,
    "Div": elementwise.div,
    "Dropout": elementwise.dropout,
    "Flatten": axes.reshape,
    "Gather": axes.pick,
    "Gemm": dense.gemm,
    "GlobalAveragePool": axes.max_pool,
    "GlobalMaxPool": axes.max_pool,
    "Identity": elementwise.identity,
    "LeakyRelu": elementwise.leaky_relu,
    "MatMul": dense.matmul,
    "Max": elementwise.largest,
    "MaxPool": axes.max_pool,
    "Min": elementwise.smallest,
    "Mul": elementwise.mul,
    "Neg": elementwise.neg,
    "Relu": elementwise.relu,
    "Reshape": axes.reshape,
    "Sigmoid": elementwise.sigmoid,
    "Slice": axes.pick,
    "Softmax": elementwise.softmax,
    "Split": axes.pick,
    "Squeeze": axes.reshape,
    "Sub": elementwise.sub,
    "Sum": elementwise.total,
    "Tanh": elementwise.tanh,
    "Transpose": axes.transpose,
    "Unsqueeze": axes.reshape,
}
