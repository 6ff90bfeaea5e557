"""Whether the numbers of a chain's layers are those that a runtime computes with."""

from __future__ import annotations

from onnx import ModelProto, NodeProto, helper

from onnx_exact.graph.locate import LocatedChain, Site

_SHAPES = {"Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


def is_plain(model: ModelProto, located: LocatedChain) -> bool:
    """Whether every layer is one Gemm, or one MatMul and at most one Add behind it, as stored.

    Where more has been folded into a layer, such as a batch normalisation, a runtime rounds on the
    way to its numbers; so it does to a constant that is computed.
    """
    exact = all(layer.affine.error is None for layer in located.chain.layers)
    return exact and all(_is_plain(model, site) for site in located.sites)


def _is_plain(model: ModelProto, site: Site) -> bool:
    computing = [i for i in site.nodes if i != site.relu or i in site.dense]
    nodes = [model.graph.node[position] for position in computing]
    kinds = [node.op_type for node in nodes if node.op_type not in _SHAPES]
    if kinds in (["Gemm"], ["FusedGemm"]):
        return all(_scales_nothing(node) for node in nodes)
    return kinds in (["MatMul"], ["MatMul", "Add"])


def _scales_nothing(node: NodeProto) -> bool:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return all(values.get(name, 1.0) == 1.0 for name in ("alpha", "beta"))
