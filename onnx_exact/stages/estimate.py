"""How long the stages after deciding will take: products counted, and timed on this machine.

The counts are those of the whole chains: what is decided only makes them smaller. Nothing rests on
them but when to stop.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from onnx_exact.network.chain import Chain
from onnx_exact.runtime.threads import one_thread

# Multiplications of one step of timing.
PROBE = 2e8
# Passes backward through all layers: to bound both sides of everything and choose slopes, and to
# compare the new chain with the old one.
PROVING_PASSES, CERTIFYING_PASSES = 3.0, 2.0
# Factorizations of each weight matrix, about.
FACTORIZATIONS = 2.0
# Seconds that a stage spends on a layer whatever its width.
LAYER_SECONDS = 0.02
# Times of reading: the checker and both models in onnxruntime, at some 200 points.
READS, SESSIONS_SECONDS = 2.0, 0.5


def expected_seconds(chains: Sequence[Chain], read: float, *, proving: bool) -> dict[str, float]:
    """Seconds for each of the stages that have to come after deciding.

    Args:
        chains: as read.
        read: the seconds that reading the model took.
        proving: whether verdicts have to be proved once more.
    """
    backward = sum(_backward(chain) for chain in chains)
    factors = sum(_factorization(chain) for chain in chains)
    layers = LAYER_SECONDS * sum(len(chain.layers) for chain in chains)
    each = _seconds_a_product(chains)
    return {
        "prove": proving * (layers + each * PROVING_PASSES * backward),
        "reduce": layers + each * (backward + FACTORIZATIONS * factors),
        "certify": layers + each * CERTIFYING_PASSES * backward,
        "validate": SESSIONS_SECONDS + READS * read,
    }


def _widths(chain: Chain) -> list[int]:
    return [chain.n_in, *(layer.width for layer in chain.layers)]


def _backward(chain: Chain) -> float:
    """Products of going back from every unit of every layer to the inputs."""
    widths = _widths(chain)
    below, total = 0.0, 0.0
    for before, width in pairwise(widths):
        total += width * below
        below += float(before) * width
    return total


def _factorization(chain: Chain) -> float:
    """Products of one factorization of every weight matrix."""
    widths = _widths(chain)
    return sum(float(a) * b * min(a, b) for a, b in pairwise(widths))


def _seconds_a_product(chains: Sequence[Chain]) -> float:
    """Seconds for one multiplication within a product of matrices like the largest one here."""
    weights = [layer.affine.weight for chain in chains for layer in chain.layers]
    if not weights:
        return 0.0
    weight = max(weights, key=lambda w: w.size)
    rows = weight[: max(1, int(PROBE / weight.size))]
    with one_thread(), np.errstate(over="ignore", invalid="ignore"):
        rows @ weight.T
        begin = time.perf_counter()
        rows @ weight.T
        return (time.perf_counter() - begin) / (len(rows) * weight.size)
