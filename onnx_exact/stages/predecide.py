"""Decides a chain by way of what is left of it when what cancels is gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from onnx_exact.decide.run import Options
from onnx_exact.decide.verdict import Stability
from onnx_exact.methods import PUBLISHED
from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box
from onnx_exact.reduce.budget import FloatType
from onnx_exact.reduce.simplify import carried_back, simplified

Analyze = Callable[[Chain, Box, Options, Array | None], Stability]


def decide_chain(
    analyze: Analyze,
    chain: Chain,
    box: Box,
    dtype: FloatType,
    options: Options,
    points: Array | None,
) -> Stability:
    """The verdicts on a chain.

    Args:
        analyze: decides a chain.
        chain, box, options, points: as for `onnx_exact.decide.run.analyze_chain`.
        dtype: in which the model stores its weights.
    """
    simpler = None if options.method in PUBLISHED else simplified(chain, box)
    if simpler is None:
        return analyze(chain, box, options, points)
    found = analyze(simpler.chain, box, options, points)
    own = analyze(chain, box, replace(options, method="bounds"), points)
    return carried_back(own, simpler, found)
