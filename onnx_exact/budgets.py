"""Every count that limits work, each with its reason.

No seconds: the same model, options and seed take the same steps on a quiet and on a busy machine.
The only clock is the user's `--time-limit`, and a result that it cut short says so.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budgets:
    """Counts that limit searches, trees, slopes and programs.

    Of several numbers each is that of a round, the last one of all rounds from there on: what costs
    more is tried on what less has not settled. Where nothing else is said they were measured on the
    cases of `benchmarks.decide` on one core of an AMD EPYC at about 3 GHz.

    Attributes:
        search_products: multiplications of the gradient search in one layer; the first number is
            that of the first pass too. 3e10 take a second, so that this is 5, 10, 20 and 60 s. What
            is settled on any network is settled within a third of the first; mnist-net_256x4 in a
            wide ball has hundreds of open signs that no search shows.
        relaxation_iterations: of the solver on one linear relaxation, some 5 s on 4x256 units.
        relaxation_failures: relaxations of a layer that may settle nothing one after another.
        program_work: of one mixed-integer program, in iterations and nodes. 3,000 take a second on
            4x256 units: 10, 60 and 300 s. On smaller networks it is less.
        programs_from_round: the first round with mixed-integer programs; before, searches show more
            signs in less time.
        box_first_parts: of the box before the compiled kernel is worth loading.
        box_more_parts: before a population is sent out for a witness.
        box_parts: of one layer in all, with those of the rounds before. The compiled kernel takes
            some 24 microseconds for each: 4, 8 and 20 minutes. The largest tree that settles
            anything, on ACAS Xu 3_3 over its full box, has 8.1 million.
        box_patience: before which no tree of boxes is given up: the hardest parts come first.
        relu_nodes: of a tree of ReLUs for one sign; one that gets `node_steps` counts as many. They
            take 0.2 ms each on 2x256 and 4x256 units: 1.6, 8 and 32 s. The largest tree seen to
            settle a sign, on 4x256 units, has 43,000.
        relu_patience: nodes, times the units below, before which no tree of ReLUs is given up:
            3,000 on 2x100 units, 390 in the last layer of 4x256, 190 in that of mnist_relu_9_200,
            whose signs all occur. 1,000 nodes everywhere cost that network twice the time.
        relu_failures: signs of a layer that may stay open one after another; the rest is farther
            from settled.
        relu_alone: nodes after which processes are worth starting.
        narrow_steps: on slopes of each bound of a unit that stays unstable, before long trees.
        narrow_products: multiplications for all of these in one layer, some 10 s; where it is less
            than a quarter of the steps, nothing is narrowed.
        narrow_from_round: the first round that does it; trees of the round before settle most signs
            of networks of up to 5x100 units in less time.
        node_steps: on slopes and multipliers of a node without a loss to split on. As many settle
            every sign of 40 small random networks, 100 all but one.
        replay_steps: on slopes that are replayed.
        replay_least, replay_times: nodes of a tree that is replayed, so many and so many times
            those that it had: bounds are nearly what they were.
    """

    search_products: tuple[float, ...] = (1.5e11, 3e11, 6e11, 1.8e12)
    relaxation_iterations: int = 20_000
    relaxation_failures: int = 12
    program_work: tuple[int, ...] = (30_000, 180_000, 900_000)
    programs_from_round: int = 2
    box_first_parts: int = 6_000
    box_more_parts: int = 15_000
    box_parts: tuple[int, ...] = (10_000_000, 20_000_000, 50_000_000)
    box_patience: int = 500_000
    relu_nodes: tuple[int, ...] = (8_000, 40_000, 160_000)
    relu_patience: int = 300_000
    relu_failures: int = 12
    relu_alone: int = 6_000
    narrow_steps: int = 60
    narrow_products: float = 3e11
    narrow_from_round: int = 1
    node_steps: int = 300
    replay_steps: int = 40
    replay_least: int = 500
    replay_times: float = 3.0


BUDGETS = Budgets()


def of_round(counts: tuple[int, ...] | tuple[float, ...], number: int) -> float:
    """The count of a round, from 0 on."""
    return counts[min(number, len(counts) - 1)]
