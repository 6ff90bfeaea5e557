"""What `verify` will find of each chain, asked of the checker's own code while a result is made.

With a certificate a chain is decided and proved over a box that holds what the checker finds, and
where the checker finds nothing it stays as it is. So what is written can be checked: by
construction, not because two sets of rules happen to agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto

from onnx_exact.bab.trees import Tree as Grown
from onnx_exact.certify.certificate import arrays_of_tree
from onnx_exact.certify.proof import ChainProof
from onnx_exact.certify.rounding import runtime_rounding
from onnx_exact.domains import Domain, resolve_domain
from onnx_exact.errors import OnnxExactError
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.graph.ranges import ChainDomain
from onnx_exact.graph.read import Source
from onnx_exact.labels.narrow import Narrowed
from onnx_exact.network import Box
from onnx_exact.network import Chain as Network
from onnx_exact.stages.run import Allowance
from onnx_exact.verifier.chain import Chain, read_chain
from onnx_exact.verifier.channels import without_channels
from onnx_exact.verifier.check import CLAIM_ROUNDING, read_pair
from onnx_exact.verifier.claims import check_claims
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.coverage import (
    compare_outside,
    require_one_version,
    require_steady_sizes,
)
from onnx_exact.verifier.cutting import Cut
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Model, names_read
from onnx_exact.verifier.products import Products
from onnx_exact.verifier.refusals import require_known
from onnx_exact.verifier.schema import Claims, Tree

# How far a chain that another one comes behind may move: as many times what a runtime may round off
# at its outputs, in the model's type and, for what the bound itself loses, in float64.
ROUNDINGS, OF_BOUND = 4.0, 64.0
# By how much a box is wider than what is found where bounds of another chain are in it: rounding
# may make bounds that are found from tighter ones larger in the last place.
WIDER = 1e-12


@dataclass(frozen=True, eq=False)
class _Found:
    """A chain as the checker reads it, and whether its input takes every value in its box."""

    chain: Chain
    whole: bool


class Checkable:
    """The chains of a model as the checker will see them, in the order of the graph.

    Args:
        source: the model.
        domain: over which it is certified.
        located: all of its chains.
        most: how far rewrites may move anything, in units of the model's own rounding.
    """

    def __init__(
        self, source: Source, domain: Domain, located: Sequence[LocatedChain], most: float
    ) -> None:
        self._located, self._roundings = located, ROUNDINGS * max(1.0, most)
        self._found: dict[str, _Found] = {}
        self._reason, self._wider = "", 0.0
        try:
            self._model = Model(source.file or source.model, "the model")
            require_one_version(self._model)
            require_steady_sizes(self._model)
            self._front = _front(self._model, domain)
        except OnnxExactError as error:
            self._reason = str(error).removeprefix("cannot check: ")

    def around(self, chain: LocatedChain, where: ChainDomain) -> tuple[ChainDomain, Allowance]:
        """The domain of a chain with all in it that the checker finds, and what it allows."""
        if self._reason:
            return where, Allowance(self._reason)
        try:
            read = read_chain(self._model, chain.input, chain.output)
            widths = [layer.width for layer in chain.chain.layers]
            relu = [layer.relu for layer in chain.chain.layers]
            require_known(read.form == (widths, relu), "it reads other layers")
            low, high = self._front.features(chain.input, read.before)
        except OnnxExactError as error:
            return where, Allowance(str(error).removeprefix("cannot check: "))
        whole = self._front.takes_all(chain.input)
        self._found[chain.output] = _Found(read, whole)
        if whole:
            return replace(where, box=Box(low, high, source=where.box.source)), Allowance()
        slack = self._wider * np.maximum(np.abs(low), np.abs(high))
        low, high = (
            np.minimum(where.box.lower, low - slack),
            np.maximum(where.box.upper, high + slack),
        )
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            return where, Allowance(f"nothing bounds {chain.input!r}")
        box = Box(low, high, source=where.box.source)
        return replace(where, box=box), Allowance(box=box)

    def learn(
        self, chain: LocatedChain, where: ChainDomain, proof: ChainProof, allowed: Allowance
    ) -> Allowance:
        """Takes in what the checker will know of the outputs of a chain; what it allows then.

        Nothing where no other chain comes behind.
        """
        if not self._is_read(chain.output):
            return allowed
        box, found = where.box, self._found[chain.output]
        try:
            checked = check_claims(
                *(_claims(proof), (box.lower, box.upper), found.whole),
                *(Products(found.chain.layers), Clock()),
            )
        except OnnxExactError as error:
            return Allowance(str(error))
        own, least = (
            float(runtime_rounding(proof.bounds, box, np.dtype(kind)).max(initial=0.0))
            for kind in (chain.dtype, np.float64)
        )
        room = self._roundings * own + OF_BOUND * least
        outputs = checked.ranges.outputs(len(found.chain.layers) - 1)
        # `verify` may find more than what is claimed by so much.
        more = 2.0 * CLAIM_ROUNDING * float(np.abs(outputs).max(initial=0.0))
        apart = np.full(outputs[0].shape, room + more)
        self._front.learn(chain.output, found.chain.after, outputs, apart)
        self._wider = WIDER
        return replace(allowed, deviation=room)

    def _is_read(self, tensor: str) -> bool:
        """Whether a chain comes behind a tensor."""
        behind = {tensor}
        for node in self._model.nodes:
            if behind.intersection(names_read(node)):
                behind.update(node.output)
        return any(chain.input in behind for chain in self._located)


def against_channels(source: Source, found: Narrowed, domain: Domain) -> str:
    """Why a certificate cannot speak of the channels that went; nothing if it can."""
    if any(len(cuts) > 1 for cuts in found.cuts.values()):
        return "a tensor would be cut along two axes"
    cuts = {t: Cut(axis, kept) for t, c in found.cuts.items() for axis, kept in c.items()}
    try:
        old, new = Model(source.file or source.model, "the model"), Model(found.model, "the result")
        compare_outside(without_channels(old, new, cuts, _front(old, domain)), new, [])
    except OnnxExactError as error:
        return str(error).removeprefix("cannot check: ")
    return ""


def _front(model: Model, domain: Domain) -> Front:
    """What the checker finds of the model's tensors."""
    sides = {name: (b["lower"], b["upper"]) for name, b in domain.to_json().items()}
    boxes = resolve_domain(sides, model.inputs, {}).boxes
    return Front(model, {k: (b.lower, b.upper) for k, b in boxes.items()})


def unreadable(
    source: Source, new: ModelProto, replaced: Mapping[int, tuple[LocatedChain, Network]]
) -> dict[int, str]:
    """Of the chains of a new model those that the checker does not read as they are, and why.

    Args:
        source: of the original.
        new: the model.
        replaced: by any number, the chains of the original and those in their place.
    """
    found, pairs = {}, []
    try:
        models = Model(source.file or source.model, "the model"), Model(new, "the result")
        for place, (located, chain) in replaced.items():
            form = [layer.width for layer in chain.layers], [layer.relu for layer in chain.layers]
            try:
                pairs.append(read_pair(*models, located.input, located.output, form))
            except OnnxExactError as error:
                found[place] = str(error)
        if not found:
            compare_outside(*models, pairs)
    except OnnxExactError as error:
        found |= dict.fromkeys(replaced, str(error))
    return found


def _claims(proof: ChainProof) -> Claims:
    """What a certificate will say of the units of a chain."""
    layers = {k: layer for k, layer in enumerate(proof.layers) if layer is not None}
    return Claims(
        {k: layer.status for k, layer in layers.items()},
        {k: layer.proof for k, layer in layers.items()},
        proof.witnesses,
        {
            k: (layer.slopes.unit, layer.slopes.positive, layer.slopes.values)
            for k, layer in layers.items()
            if layer.slopes is not None
        },
        tuple(_tree(tree, proof.bounds.chain) for tree in proof.trees),
        *((), (), (), {}),
    )


def _tree(tree: Grown, chain: Network) -> Tree:
    arrays = arrays_of_tree(tree, chain)
    slopes = arrays.get("slopes", np.zeros((0, 0), np.uint8))
    multipliers = arrays.get("multipliers", np.zeros(0, np.float32))
    kind = "box" if tree.leaves is None else "relu"
    named = arrays["units"], arrays["positive"], arrays["nodes"]
    return Tree(kind, tree.layer, *named, slopes, multipliers)
