"""Everything outside the chains has to be the same in both models, bit by bit."""

from __future__ import annotations

from collections.abc import Sequence

from onnx import NodeProto, TensorProto, ValueInfoProto

from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.chain import Chain
from onnx_exact.verifier.model import Model, array_of, names_read


def compare_outside(old: Model, new: Model, chains: Sequence[tuple[str, Chain, Chain]]) -> int:
    """Compares signatures, operator sets, functions, nodes and constants; counts what it compared.

    Args:
        old, new: the models.
        chains: the output of each chain, and what it is in both models.

    Raises:
        NotVerifiedError: naming the first difference.
    """
    compare_signatures(old, new)
    for what, found in (
        ("operator sets", [_serial(m.proto.opset_import) for m in (old, new)]),
        ("functions", [_serial(m.proto.functions) for m in (old, new)]),
        ("sparse constants", [_serial(m.graph.sparse_initializer) for m in (old, new)]),
    ):
        if found[0] != found[1]:
            raise NotVerifiedError(f"the {what} of the two models differ")
    sides = []
    for model, own in ((old, [c[1] for c in chains]), (new, [c[2] for c in chains])):
        inside = {name for chain in own for name in chain.inside}
        dropped = {position for chain in own for position in chain.nodes}
        kept = _kept(model, dropped)
        read = {name for node in kept for name in names_read(node)}
        read |= {value.name for value in model.graph.output}
        if inside & read:
            raise NotVerifiedError(
                f"{model.path}: {min(inside & read)!r} is read outside of its chain"
            )
        sides.append((kept, read))
    if [_plain(node) for node in sides[0][0]] != [_plain(node) for node in sides[1][0]]:
        raise NotVerifiedError("the nodes outside of the chains differ")
    compared = len(sides[0][0])
    for name in sorted(sides[0][1] | sides[1][1]):
        before, after = (model.initializers.get(name) for model in (old, new))
        if (before is None) != (after is None):
            raise NotVerifiedError(f"the constant {name!r} is in one of the models only")
        if before is not None and after is not None:
            if not _equal(before, after):
                raise NotVerifiedError(f"the constant {name!r} differs")
            compared += 1
    return compared


def compare_signatures(old: Model, new: Model) -> None:
    """Raises NotVerifiedError unless inputs and outputs have the same names, types and shapes."""
    fed = [{i.name for i in model.inputs} for model in (old, new)]
    inputs = [
        [_typed(v) for v in model.graph.input if v.name in names]
        for model, names in zip((old, new), fed, strict=True)
    ]
    outputs = [[_typed(v) for v in model.graph.output] for model in (old, new)]
    if inputs[0] != inputs[1] or outputs[0] != outputs[1]:
        raise NotVerifiedError("the inputs or outputs of the two models differ in name or type")


def _typed(value: ValueInfoProto) -> tuple[str, bytes]:
    return value.name, value.type.SerializeToString(deterministic=True)


def _kept(model: Model, dropped: set[int]) -> list[NodeProto]:
    """The nodes outside of the chains that make something which is read outside, or given out."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for position in range(len(model.nodes) - 1, -1, -1):
        node = model.nodes[position]
        # Constants that only chains read go with them.
        constant = all(model.constant(name) is not None for name in node.output)
        if position not in dropped and (wanted.intersection(node.output) or not constant):
            kept.append(node)
            wanted.update(names_read(node))
    return kept[::-1]


def _serial(messages: Sequence[object]) -> list[bytes]:
    found = (m.SerializeToString(deterministic=True) for m in messages)  # type: ignore[attr-defined]
    return sorted(found)


def _plain(node: NodeProto) -> bytes:
    """A node without what says nothing of what it computes."""
    plain = NodeProto()
    plain.CopyFrom(node)
    plain.ClearField("doc_string")
    plain.ClearField("metadata_props")
    return bytes(plain.SerializeToString(deterministic=True))


def _equal(a: TensorProto, b: TensorProto) -> bool:
    if (a.data_type, list(a.dims)) != (b.data_type, list(b.dims)):
        return False
    return array_of(a).tobytes() == array_of(b).tobytes()
