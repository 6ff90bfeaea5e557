"""Decides a chain by way of what is left of it when what cancels is gone."""

from __future__ import annotations

from dataclasses import replace

from onnx_exact.decide.run import Options, analyze_chain
from onnx_exact.decide.verdict import Stability
from onnx_exact.methods import PUBLISHED
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce.budget import FloatType
from onnx_exact.reduce.simplify import carried_back, simplified


def decide(
    chain: Chain, box: Box, dtype: FloatType, options: Options, points: Array | None
) -> Stability:
    """The verdicts on a chain.

    Args:
        chain, box, options, points: as for `onnx_exact.decide.run.analyze_chain`.
        dtype: in which the model stores its weights.
    """
    simpler = None if options.method in PUBLISHED else simplified(chain, box, dtype)
    if simpler is None:
        return analyze_chain(chain, box, options, points)
    found = analyze_chain(simpler.chain, box, options, points)
    own = analyze_chain(chain, box, replace(options, method="bounds"), points)
    return carried_back(own, simpler, found)
