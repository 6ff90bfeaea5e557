"""Everything that is outside of the checked chains is the same in both models, bit by bit.

The theorem, with its proof, is in docs/certificate.md: every tensor that anything outside of the
chains reads, in either model, is an input, a constant or the output of a node that is compared
here, or it is the last tensor of a checked chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto

from onnx_exact.verifier.chain import Chain
from onnx_exact.verifier.model import STANDARD, Model, array_of, names_read
from onnx_exact.verifier.operators import attributes
from onnx_exact.verifier.refusals import require, require_known

# What takes out a part of a tensor, of a size that may be any function of the whole one's.
PARTS = ("Slice", "Split")
# From here on an end is behind all that there is.
MOST = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Pair:
    """A chain between two tensors as either model has it."""

    source: str
    output: str
    old: Chain
    new: Chain


def compare_signatures(old: Model, new: Model, *, meaning: bool = True) -> None:
    """Compares what a user sees of two models, and, with `meaning`, what their operators mean.

    Raises:
        NotVerifiedError: naming what differs.
    """
    for what, found in (
        ("inputs differ in name, type, shape or order", [_typed(m.fed) for m in (old, new)]),
        (
            "outputs differ in name, type, shape or order",
            [_typed(m.graph.output) for m in (old, new)],
        ),
        ("optional inputs differ", [sorted(m.optional) for m in (old, new)]),
        ("IR versions differ", [m.proto.ir_version for m in (old, new)]),
        ("operator sets differ", [_serial(m.proto.opset_import) for m in (old, new)]),
        ("functions differ", [_serial(m.proto.functions) for m in (old, new)]),
        ("sparse constants differ", [_serial(m.graph.sparse_initializer) for m in (old, new)]),
    )[: None if meaning else 3]:  # The first three are what a user sees.
        require(found[0] == found[1], f"{old.name} and {new.name}: their {what}")
    for model in (old, new):
        require_one_version(model)


def require_one_version(model: Model) -> None:
    """Refuses operator sets of which runtimes may take one version or another.

    Raises:
        UncheckedError: a set is named in two versions.
    """
    for proto in (model.proto, *model.proto.functions):
        sets = ((o.domain, o.version) for o in proto.opset_import)
        versions = {("" if domain in STANDARD else domain, version) for domain, version in sets}
        one = len({domain for domain, _ in versions}) == len(versions)
        require_known(one, "two versions of one operator set")


def compare_outside(old: Model, new: Model, chains: Sequence[Pair]) -> int:
    """Compares all nodes and constants that are not of the chains; counts them.

    Raises:
        NotVerifiedError: naming the first difference, or what is read inside of a chain.
    """
    kept_old, kept_new = (
        _outside(model, chains, own)
        for model, own in ((old, [c.old for c in chains]), (new, [c.new for c in chains]))
    )
    alone = sorted(kept_old.keys() ^ kept_new.keys())
    require(not alone, f"{''.join(alone[:1])!r} is made by a node of one of the models alone")
    for name, node in kept_old.items():
        require(
            _plain(node) == _plain(kept_new[name]),
            f"the nodes that make {name!r} differ outside of the chains",
        )
    for model, other in ((old, new), (new, old)):
        said = dict(_typed(other.graph.value_info))
        for value in model.graph.value_info:
            same = said.get(value.name) == value.type.SerializeToString(deterministic=True)
            follows = same or value.name not in model.producer or model.follows(value)
            require(follows, f"{model.name}: what it says of {value.name!r} does not follow")
    read = old.optional | {name for node in kept_old.values() for name in names_read(node)}
    read |= {value.name for value in old.graph.output} | {chain.source for chain in chains}
    constants = sorted(read & (old.initializers.keys() | new.initializers.keys()))
    for name in constants:
        before, after = (model.initializers.get(name) for model in (old, new))
        require(
            before is not None and after is not None and _equal(before, after),
            f"the constant {name!r} differs, or only one of the models has it",
        )
    return len(kept_old) + len(constants)


def require_steady_sizes(model: Model) -> None:
    """Refuses what may have other sizes between those that are tried than at all of these.

    Raises:
        UncheckedError: a Slice or Split along an axis whose size is open, or that depends on sizes.
    """
    inner = [n for node in model.nodes for n in _inside(node)]
    inner += [n for f in model.proto.functions for node in f.node for n in (node, *_inside(node))]
    require_known(not any(n.op_type in PARTS for n in inner), "a Slice or Split in a subgraph")
    for node in model.nodes:
        steady = node.op_type not in PARTS or not model.is_standard(node)
        require_known(steady or _along_known_sizes(model, node), f"an open {node.op_type}")


def _along_known_sizes(model: Model, node: NodeProto) -> bool:
    """Whether all axes along which something is taken out have sizes that are known."""
    options, trials = attributes(node), model.known_shapes(node.input[0])
    if not trials:
        # Nothing is known of the sizes behind it either.
        return True
    rank, whole = len(trials[0]), set[int]()
    axes = [int(options.get("axis", 0)) % rank]
    if node.op_type == "Slice":
        slots = dict(zip(("starts", "ends", "axes", "steps"), node.input[1:], strict=False))
        found: dict[str, Any] = options | {k: model.constant(n) for k, n in slots.items() if n}
        if any(value is None for value in found.values()):
            return False
        starts, ends = (np.ravel(found[name]) for name in ("starts", "ends"))
        axes = [int(axis) % rank for axis in np.ravel(found.get("axes", range(starts.size)))]
        steps = np.ravel(found.get("steps", np.ones(starts.size)))
        parts = zip(axes, starts, ends, steps, strict=True)
        whole = {a for a, start, end, step in parts if start == 0 and end >= MOST and step == 1}
    return all(len({shape[a] for shape in trials}) == 1 for a in axes if a not in whole)


def _inside(node: NodeProto) -> Iterator[NodeProto]:
    """The nodes of a node's subgraphs."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield inner
                yield from _inside(inner)


def _outside(model: Model, chains: Sequence[Pair], own: Sequence[Chain]) -> dict[str, NodeProto]:
    """The nodes outside of the chains, by the first tensor each makes.

    Raises:
        NotVerifiedError: they, or a chain, read a tensor inside of a chain, or chains overlap.
    """
    dropped: set[int] = set()
    for chain in own:
        require(not (dropped & chain.nodes), f"two chains of {model.name} have a node in common")
        dropped |= chain.nodes
    read = {value.name for value in model.graph.output} | {chain.source for chain in chains}
    kept = {}
    for position in range(len(model.nodes) - 1, -1, -1):
        node = model.nodes[position]
        # Constants that only chains read go with them.
        constant = all(model.constant(name) is not None for name in node.output if name)
        if position not in dropped and (read.intersection(node.output) or not constant):
            kept[next((name for name in node.output if name), f"node {position}")] = node
            read.update(names_read(node))
    both = sorted(name for chain in own for name in chain.inside & read)
    require(not both, f"{model.name}: {''.join(both[:1])!r} is read outside of its chain")
    return kept


def _typed(values: Iterable[ValueInfoProto]) -> list[tuple[str, bytes]]:
    return [(v.name, v.type.SerializeToString(deterministic=True)) for v in values]


def _serial(messages: Iterable[object]) -> list[bytes]:
    return sorted(m.SerializeToString(deterministic=True) for m in messages)  # type: ignore[attr-defined]


def _plain(node: NodeProto) -> bytes:
    """A node without what says nothing of what it computes."""
    plain = NodeProto()
    plain.CopyFrom(node)
    for field in ("name", "doc_string", "metadata_props"):
        plain.ClearField(field)
    return bytes(plain.SerializeToString(deterministic=True))


def _equal(a: TensorProto, b: TensorProto) -> bool:
    if (a.data_type, *a.dims) != (b.data_type, *b.dims):
        return False
    if a.data_type == TensorProto.STRING:
        return list(a.string_data) == list(b.string_data)
    return array_of(a).tobytes() == array_of(b).tobytes()
