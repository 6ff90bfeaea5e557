"""Every count that limits work, each with its reason.

No seconds: the same model, options and seed take the same steps on a quiet and on a busy machine.
The only clock is the user's `--time-limit`, and a result that it cut short says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budgets:
    """Counts that limit searches, trees, slopes and programs.

    Attributes:
        box_first_parts: of the box before the compiled kernel is worth loading.
        box_more_parts: before a population is sent out for a witness.
        box_parts: of one layer in all, round by round.
        box_patience: before which no tree of boxes is given up: the hardest parts come first.
        relu_nodes: of a tree of ReLUs for one sign, round by round.
        relu_patience: before which no tree of ReLUs is given up.
        relu_failures: signs of a layer that may stay open one after another; the rest is farther
            from settled.
        relu_alone: nodes after which processes are worth starting.
        node_iterations: of the program for a node without a loss to split on.
        replay_steps: on slopes that are replayed.
        replay_least, replay_times: nodes of a tree that is replayed, so many and so many times
            those that it had: bounds are nearly what they were.
    """

    box_first_parts: int = 6_000
    box_more_parts: int = 15_000
    box_parts: tuple[int, ...] = (10_000_000, 20_000_000, 50_000_000)
    box_patience: int = 500_000
    relu_nodes: tuple[int, ...] = (8_000, 40_000, 160_000)
    relu_patience: int = 1_000
    relu_failures: int = 12
    relu_alone: int = 6_000
    node_iterations: int = 20_000
    replay_steps: int = 40
    replay_least: int = 500
    replay_times: float = 3.0


BUDGETS = Budgets()
