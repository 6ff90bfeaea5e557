"""A population search for witnesses, for chains with few inputs.

In a few dimensions a function with many linear pieces is climbed better by a crowd of points than
by gradients: the best points so far are scattered again at a shrinking distance, many generations.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnx_exact.network.affine import Array
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box

POINTS = 2000
SURVIVORS = 200
GENERATIONS = 60
RESTARTS = 3
# Distances of the first generation as a share of the box, and what each generation leaves of them.
FIRST_SPREAD = 0.3
SPREAD_DECAY = 0.83


def evolve(target: Chain, box: Box, rng: np.random.Generator) -> Iterator[Array]:
    """Searches points where a functional of few inputs is positive.

    Args:
        target: a chain with one output, the functional.
        box: the domain.
        rng: of every random choice.

    Yields:
        The best points of each generation, shape (points, inputs); none where not even they seem
        to be positive.
    """
    low, high = box.sides()
    for _ in range(RESTARTS):
        points = box.sample(rng, POINTS)
        spread = FIRST_SPREAD * (high - low)
        for _ in range(GENERATIONS):
            # Where values overflow the search is blind; what it proposes is confirmed all the same.
            with np.errstate(over="ignore", invalid="ignore"):
                values = target.forward(points)[:, 0]
            best = points[np.argpartition(-values, SURVIVORS)[:SURVIVORS]]
            yield best if values.max() > 0.0 else best[:0]
            children = np.repeat(best, POINTS // SURVIVORS - 1, axis=0)
            with np.errstate(over="ignore", invalid="ignore"):
                scattered = children + rng.normal(size=children.shape) * spread
            points = np.concatenate([best, box.clip(scattered)])
            spread = spread * SPREAD_DECAY
