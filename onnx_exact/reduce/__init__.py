"""Exact reductions: a network with verdicts in, a smaller one that computes the same out."""

from onnx_exact.reduce.budget import Refusal
from onnx_exact.reduce.run import LayerReduction, ReduceOptions, Reduction, reduce_chain
from onnx_exact.reduce.split import FormChoice
from onnx_exact.reduce.units import UnitMap

__all__ = [
    "FormChoice",
    "LayerReduction",
    "ReduceOptions",
    "Reduction",
    "Refusal",
    "UnitMap",
    "reduce_chain",
]
