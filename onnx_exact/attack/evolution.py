"""A population search for witnesses, for chains with few inputs.

In a few dimensions a function with many linear pieces is climbed better by a crowd of points than
by gradients: the best points so far are scattered again at a shrinking distance, many generations.
"""

from __future__ import annotations

import numpy as np

from onnx_exact.deadline import Deadline
from onnx_exact.decide.knowledge import Knowledge

POINTS = 2000
SURVIVORS = 200
GENERATIONS = 60
RESTARTS = 3
# Distances of the first generation as a share of the box, and what each generation leaves of them.
FIRST_SPREAD = 0.3
SPREAD_DECAY = 0.83


# Where values overflow the search is blind; what it proposes is confirmed all the same.
@np.errstate(over="ignore", invalid="ignore")
def evolve_sign(
    knowledge: Knowledge,
    layer: int,
    unit: int,
    positive: bool,
    rng: np.random.Generator,
    deadline: Deadline,
) -> bool:
    """Searches a point that shows one open sign; whether one was found."""
    target = knowledge.chain.up_to(layer, unit, positive)
    low, high = knowledge.box.sides()
    for _ in range(RESTARTS):
        points = knowledge.box.sample(rng, POINTS)
        spread = FIRST_SPREAD * (high - low)
        for _ in range(GENERATIONS):
            values = target.forward(points)[:, 0]
            best = points[np.argpartition(-values, SURVIVORS)[:SURVIVORS]]
            if values.max() > 0.0 and knowledge.show(best):
                return not knowledge.open_signs(layer)[0 if positive else 1][unit]
            if deadline.passed:
                return False
            children = np.repeat(best, POINTS // SURVIVORS - 1, axis=0)
            scattered = children + rng.normal(size=children.shape) * spread
            points = np.concatenate([best, knowledge.box.clip(scattered)])
            spread = spread * SPREAD_DECAY
    return False
