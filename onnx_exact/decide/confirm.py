"""What becomes of a solver's word: confirmed by bounds, left open, or taken where the user says so.

A claim is a sign that a solver excludes. Nothing rests on it: bounds, optimised slopes and
branching try to prove it, and what they do not confirm stays UNDECIDED. Only where the user trusts
the solver do the claims count that its tolerance cannot bridge
(`onnx_exact.milp.tolerance`); they, and whatever follows from them alone, are labelled as
a solver's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from onnx_exact.bab.trees import Tree
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.decide.verdict import Evidence, LayerVerdicts, Stability, Status
from onnx_exact.errors import ContradictionError
from onnx_exact.milp.tolerance import tolerances
from onnx_exact.network.query import Query


def take_over(
    knowledge: Knowledge, believed: Knowledge, prove: Callable[[Knowledge, set[Query]], None]
) -> None:
    """Takes over what a published algorithm says, as far as bounds confirm it.

    Args:
        knowledge: with interval bounds; receives witnesses, and the signs that are confirmed.
        believed: what the algorithm ended with, built on what a solver claimed.
        prove: bounds the layers of a network of which only witnesses are known, and tries some
            signs.
    """
    knowledge.show(believed.witnesses)
    wanted = _excluded(believed) - _excluded(knowledge)
    if not wanted:
        return
    scratch = Knowledge(knowledge.chain, knowledge.box)
    scratch.show(believed.witnesses)
    prove(scratch, wanted)
    proved = wanted & _excluded(scratch)
    for query in sorted(proved):
        knowledge.conclude(query, scratch.signed_bound(query), Evidence.LINEAR)
    knowledge.trees += [tree for tree in scratch.trees if _is_used(tree, proved)]
    left = believed.claimed.keys() - proved
    knowledge.claimed |= {query: believed.claimed[query] for query in left}


def _excluded(knowledge: Knowledge) -> set[Query]:
    """The signs of ReLU units that bounds exclude."""
    found: set[Query] = set()
    for layer in knowledge.relu_layers:
        sides = (knowledge.upper[layer] <= 0.0, True), (knowledge.lower[layer] >= 0.0, False)
        for excluded, positive in sides:
            found |= {Query(layer, int(unit), positive) for unit in np.flatnonzero(excluded)}
    return found


def _is_used(tree: Tree, proved: set[Query]) -> bool:
    """Whether a tree excludes nothing but such signs; those of the box may exclude others."""
    return tree.leaves is None or proved.issuperset(tree.queries)


def trusted(knowledge: Knowledge) -> Stability:
    """The verdicts where a solver's word counts, beyond its tolerance.

    Args:
        knowledge: all that is proved, and what is claimed.

    Returns:
        The verdicts; what is not proved is labelled SOLVER, and so are the verdicts of later layers
        that nothing but a claim leads to. Bounds on the outputs are the proved ones.
    """
    proved = knowledge.freeze()
    believed = Knowledge(knowledge.chain, knowledge.box)
    believed.show(knowledge.witnesses)
    off = tolerances(knowledge.bounds)
    try:
        layers = Layers(believed)
        for index in range(len(knowledge.chain.layers)):
            layers.bound(index)
            low, high = knowledge.lower[index], knowledge.upper[index]
            believed.tighten(index, Evidence.LINEAR, low, high)
            for query, margin in knowledge.claimed.items():
                if query.layer == index and margin >= off[index][query.unit]:
                    believed.claimed[query] = margin
                    believed.believe(query)
            layers.relax(index)
    except ContradictionError:
        # A point denies what the solver says: then none of it counts.
        return proved
    found = believed.freeze()
    labelled = tuple(map(_labelled, proved.layers, found.layers))
    return replace(proved, layers=labelled, witnesses=found.witnesses)


def _labelled(proved: LayerVerdicts | None, found: LayerVerdicts | None) -> LayerVerdicts | None:
    """The verdicts with SOLVER for those that are not proved."""
    if proved is None or found is None:
        return None
    new = (found.status != proved.status) & (found.status != Status.UNDECIDED)
    evidence = np.where(new, Evidence.SOLVER, proved.evidence).astype(np.int8)
    return replace(found, evidence=evidence)
