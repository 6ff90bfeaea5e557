"""Puts new layers in the place of old ones; everything else of the model stays as it was.

A layer that equals the old one keeps its nodes. Every run of other layers between two tensors that
stay is replaced where its last node was. What only the replaced nodes read goes with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from onnx import ModelProto, NodeProto, TensorProto, helper

from onnx_exact.graph.emit import Emitted, LayerNames, Run, emit
from onnx_exact.graph.index import Index, names_in, subgraphs
from onnx_exact.graph.kept import correct_types, keep_annotations, keep_words
from onnx_exact.graph.layout import Layout
from onnx_exact.graph.locate import LocatedChain, Site
from onnx_exact.graph.names import Names
from onnx_exact.network import Chain, Layer, SplitChain
from onnx_exact.network.affine import Array

# Up to this IR version the checker wants every initializer among the graph's inputs.
INITIALIZERS_ARE_INPUTS_UNTIL_IR = 3


@dataclass(frozen=True, eq=False)
class _Exchange:
    """Old layers [old.start, old.stop) of a chain against new ones."""

    located: LocatedChain
    sites: tuple[Site, ...]
    layers: tuple[Layer, ...]
    bypasses: tuple[Array | None, ...]

    def __post_init__(self) -> None:
        if self.bypasses[0] is not None:
            raise ValueError("a bypass reads the input of a layer that stays as it is")


@dataclass
class _Edit:
    """What changes in the graph, collected over all exchanges."""

    dropped: set[int] = field(default_factory=set)
    inserted: dict[int, list[NodeProto]] = field(default_factory=dict)
    initializers: list[TensorProto] = field(default_factory=list)
    layouts: dict[str, Layout] = field(default_factory=dict)


def splice(
    model: ModelProto, replacements: Sequence[tuple[LocatedChain, Chain | SplitChain]]
) -> ModelProto:
    """A copy of `model` with each located chain replaced by the one beside it.

    Args:
        model: the model the chains were located in.
        replacements: chains, each with a new chain of the same number of inputs and outputs. A
            layer with the old numbers keeps its nodes; where these hold a product with more entries
            than it has, only if it is the same object. One layer with zero weight is written as a
            constant of the output's shape.

    Raises:
        ValueError: a new chain does not fit.
    """
    exchanges = [e for old, new in replacements for e in _exchanges(old, new)]
    if not exchanges:
        return _copy(model)
    index = Index(model)
    edit, orphans = _edited(index, exchanges)
    result = _copy(model)
    _rewrite(result, index, edit, orphans)
    del edit
    # The memory of what was deleted in a message comes free with the message alone.
    return _copy(result)


def _copy(model: ModelProto) -> ModelProto:
    result = ModelProto()
    result.CopyFrom(model)
    return result


def _exchanges(located: LocatedChain, new: Chain | SplitChain) -> list[_Exchange]:
    """The runs of layers that differ."""
    old = located.chain
    if (new.n_in, new.n_out) != (old.n_in, old.n_out):
        raise ValueError(f"{new.n_in} -> {new.n_out} in place of {old.n_in} -> {old.n_out}")
    return [
        _Exchange(located, located.sites[was], new.layers[now], _bypasses(new)[now])
        for was, now in _runs(
            list(zip(old.layers, located.folded, strict=True)),
            list(zip(new.layers, _bypasses(new), strict=True)),
        )
    ]


def _bypasses(chain: Chain | SplitChain) -> tuple[Array | None, ...]:
    return chain.bypasses if isinstance(chain, SplitChain) else (None,) * len(chain.layers)


# A layer and whether it is a product with fewer entries than its factors in the file.
_Old = tuple[Layer, bool]
# A layer and what it reads around the layer before it: that one has changed as well.
_New = tuple[Layer, Array | None]


def _runs(old: Sequence[_Old], new: Sequence[_New]) -> list[tuple[slice, slice]]:
    """The runs of layers that differ, among the old ones and among the new ones."""
    if len(new) != len(old):
        front = _equal_prefix(old, new)
        room = min(len(old), len(new)) - front
        back = min(_equal_prefix(old[::-1], new[::-1]), room)
        back = min(back, len(new) - front - 1, len(old) - front - 1)
        return [(slice(front, len(old) - back), slice(front, len(new) - back))]
    runs: list[tuple[slice, slice]] = []
    start = None
    for i in range(len(new) + 1):
        same = i == len(new) or _same(old[i], new[i])
        if not same and start is None:
            start = i
        elif same and start is not None:
            runs.append((slice(start, i), slice(start, i)))
            start = None
    return runs


def _same(old: _Old, new: _New) -> bool:
    (before, folded), (after, bypass) = old, new
    if bypass is not None or folded:
        # The product takes the place of its factors unless it is the very layer that was read.
        return bypass is None and before is after
    return before.relu == after.relu and before.affine.equals(after.affine)


def _equal_prefix(old: Sequence[_Old], new: Sequence[_New]) -> int:
    count = 0
    for a, b in zip(old, new, strict=False):
        if not _same(a, b):
            break
        count += 1
    return count


# -- the graph --


def _edited(index: Index, exchanges: Sequence[_Exchange]) -> tuple[_Edit, set[str]]:
    """What is to be done to the graph, and the constants that nobody reads any more then."""
    edit = _Edit()
    for exchange in exchanges:
        edit.dropped |= {node for site in exchange.sites for node in site.nodes}
    orphans = _orphans(index, edit.dropped)
    edit.dropped |= {index.producer[name] for name in orphans if name in index.producer}
    kept = {tensor for e in exchanges for tensor in (e.sites[0].input, e.sites[-1].output)}
    tensors = Names(_surviving_tensors(index, edit.dropped, orphans) | kept)
    nodes = Names(n.name for i, n in enumerate(index.nodes) if i not in edit.dropped and n.name)
    # Tensors in between keep their names, so nobody else may take one of these before.
    wishes = {
        site.output
        for e in exchanges
        for site in e.sites[max(0, len(e.sites) - len(e.layers)) :]
        if site.output not in kept
    }
    for name in wishes:
        tensors.claim(name)
    for exchange in exchanges:
        run = _run(index, exchange, tensors)
        emitted = emit(run, tensors.claim, nodes.claim)
        _inherit(index, exchange, emitted.nodes)
        edit.inserted[exchange.sites[-1].nodes[-1]] = emitted.nodes
        edit.initializers += emitted.initializers
        edit.layouts |= _inner(emitted, run)
    if len(exchanges) > 1:
        _share(edit, {tensor.name for tensor in index.graph.initializer})
    return edit, orphans


def _share(edit: _Edit, before: set[str]) -> None:
    """Has new constants of the same numbers read under one name: what shared weights does so still.

    Those that have the name of one `before` keep it.
    """
    names: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alike: dict[str, str] = {}
    for tensor in sorted(edit.initializers, key=lambda t: t.name not in before):
        # What is not stored as bytes is like nothing else.
        stored = tensor.raw_data or tensor.name.encode()
        numbers = tensor.data_type, tuple(tensor.dims), sha256(stored).digest()
        same = names.setdefault(numbers, tensor.name)
        alike[tensor.name] = tensor.name if tensor.name in before else same
    edit.initializers = [t for t in edit.initializers if alike[t.name] == t.name]
    for node in (node for nodes in edit.inserted.values() for node in nodes):
        for slot, name in enumerate(node.input):
            node.input[slot] = alike.get(name, name)


def _inner(emitted: Emitted, run: Run) -> dict[str, Layout]:
    return {name: at for name, at in emitted.layouts.items() if name != run.outputs[-1]}


def _orphans(index: Index, dropped: set[int]) -> set[str]:
    """Constants that only dropped nodes read, and those that only these were made of."""
    named = {
        entry.value
        for annotation in index.graph.quantization_annotation
        for entry in annotation.quant_parameter_tensor_names
    }
    gone, orphans = set(dropped), set[str]()

    def is_left(name: str) -> bool:
        """Whether anybody reads a tensor."""
        return name in index.pinned | named or not gone.issuperset(index.readers.get(name, ()))

    open_ends = [name for node in dropped for name in index.nodes[node].input]
    while open_ends:
        name = open_ends.pop()
        if not name or not index.is_constant(name) or is_left(name):
            continue
        made = index.producer.get(name)
        if made is None:
            orphans.add(name)
        elif made not in gone and not any(map(is_left, index.nodes[made].output)):
            gone.add(made)
            orphans.update(filter(None, index.nodes[made].output))
            open_ends += index.nodes[made].input
    return orphans


def _surviving_tensors(index: Index, dropped: set[int], orphans: set[str]) -> set[str]:
    graph = index.graph
    names = {value.name for value in (*graph.input, *graph.output)}
    names |= {tensor.name for tensor in graph.initializer}
    names |= {tensor.values.name for tensor in graph.sparse_initializer}
    names -= orphans
    made: set[str] = set()
    for i, node in enumerate(index.nodes):
        (made if i in dropped else names).update(node.output)
        if i not in dropped:
            names.update(node.input)
            for inner in subgraphs(node):
                names.update(names_in(inner))
    # A type that is declared for a tensor nobody makes must not become that of a new one.
    names |= {value.name for value in graph.value_info} - made - orphans
    return names


def _run(index: Index, exchange: _Exchange, tensors: Names) -> Run:
    sites, layers = exchange.sites, exchange.layers
    # Layers vanish into later ones, so the last new layer stands where the last old one stood.
    offset = len(sites) - len(layers)
    names, outputs = [], []
    for i in range(len(layers)):
        site = sites[offset + i] if offset + i >= 0 else None
        names.append(_names(index, site) if site else LayerNames(gemm=_is_gemm(index, sites[-1])))
        fallback = tensors.claim(f"{sites[-1].output}_layer") if site is None else ""
        outputs.append(site.output if site else fallback)
    return Run(
        layers=layers,
        bypasses=exchange.bypasses,
        names=names,
        outputs=outputs,
        input=sites[0].input,
        layout_in=sites[0].layout_in,
        layout_out=sites[-1].layout_out,
        dtype=exchange.located.dtype,
        opset=index.opset,
    )


def _names(index: Index, site: Site) -> LayerNames:
    """The names of the old layer's parts."""
    dense = index.nodes[site.dense[-1]]
    adds = [i for i in site.nodes if i > site.dense[-1] and index.nodes[i].op_type == "Add"]
    add = index.nodes[adds[0]] if adds else None
    # A FusedGemm is both.
    apart = site.relu is not None and site.relu not in site.dense
    relu = index.nodes[site.relu] if site.relu is not None and apart else None
    weight = next(name for name in dense.input[:2] if index.is_constant(name))
    is_gemm = _is_gemm(index, site)
    bias = dense.input[2] if is_gemm and len(dense.input) > 2 else ""
    if add is not None:
        bias = next((name for name in add.input if index.is_constant(name)), bias)
    value = index.value(bias) if bias else None
    return LayerNames(
        dense=dense.name,
        add=add.name if add is not None else "",
        relu=relu.name if relu is not None else "",
        product="" if is_gemm else dense.output[0],
        sum="" if relu is None else next(n for n in relu.input if not index.is_constant(n)),
        weight=weight,
        bias=bias,
        bias_rank=0 if value is None else value.values.ndim,
        gemm=is_gemm,
        has_bias=is_gemm or add is not None,
    )


def _is_gemm(index: Index, site: Site) -> bool:
    op_type: str = index.nodes[site.dense[-1]].op_type
    return op_type in ("Gemm", "FusedGemm")


def _inherit(index: Index, exchange: _Exchange, nodes: list[NodeProto]) -> None:
    """Doc strings and metadata of nodes of the same name or, without one, the same output."""
    old = [index.nodes[i] for site in exchange.sites for i in site.nodes]
    by_name = {(node.op_type, node.name): node for node in old if node.name}
    by_output = {(node.op_type, node.output[0]): node for node in old if not node.name}
    last = index.nodes[exchange.sites[-1].nodes[-1]]
    domain = last.domain if index.is_standard(last) else ""
    for node in nodes:
        node.domain = domain
        before = by_name.get((node.op_type, node.name))
        if before is None and not node.name:
            before = by_output.get((node.op_type, node.output[0]))
        node.ClearField("doc_string")
        if before is not None:
            keep_words(before, node)


def _rewrite(result: ModelProto, index: Index, edit: _Edit, orphans: set[str]) -> None:
    graph = result.graph
    nodes: list[NodeProto] = []
    for i, node in enumerate(index.nodes):
        if i not in edit.dropped:
            nodes.append(node)
        nodes += edit.inserted.get(i, [])
    del graph.node[:]
    graph.node.extend(nodes)
    _inherit_from_constants(index, orphans, edit.initializers)
    _replace_initializers(result, edit.initializers, orphans)
    gone = {name for i in edit.dropped for name in index.nodes[i].output}
    gone |= {t.name for t in index.graph.initializer}
    gone -= {name for node in graph.node for name in node.output}
    gone -= {t.name for t in graph.initializer}
    correct_types(graph, gone, edit.layouts, edit.initializers)
    keep_annotations(graph, index.graph, edit.layouts)
    result.ClearField("training_info")


def _inherit_from_constants(index: Index, orphans: set[str], new: list[TensorProto]) -> None:
    """Lets what is said of a Constant node be said of the initializer in its place."""
    for tensor in new:
        if tensor.name in orphans and tensor.name in index.producer:
            keep_words(index.nodes[index.producer[tensor.name]], tensor)


def _replace_initializers(result: ModelProto, new: list[TensorProto], orphans: set[str]) -> None:
    """New initializers at the place of the old ones whose name they take, the others at the end."""
    graph = result.graph
    fresh = {tensor.name: tensor for tensor in new}
    old = [tensor.name for tensor in graph.initializer]
    for position in range(len(old) - 1, -1, -1):
        name = old[position]
        if name in fresh:
            keep_words(graph.initializer[position], fresh[name])
            graph.initializer[position].CopyFrom(fresh[name])
        elif name in orphans:
            del graph.initializer[position]
    graph.initializer.extend(t for t in new if t.name not in set(old))
    align_inputs(result, set(old), fresh, orphans & set(old))


def align_inputs(
    result: ModelProto, before: set[str], fresh: dict[str, TensorProto], orphans: set[str]
) -> None:
    """Graph inputs that stand for initializers follow these.

    Args:
        result: with its new initializers.
        before: the names of all initializers that there were.
        fresh: those that are new, or of another shape.
        orphans: those that are gone.
    """
    graph = result.graph
    # Until that version files list initializers among the inputs, but for those of some tools.
    all_listed = before <= {value.name for value in graph.input}
    listed = set()
    for position in range(len(graph.input) - 1, -1, -1):
        value = graph.input[position]
        listed.add(value.name)
        if value.name in fresh:
            tensor = fresh[value.name]
            kind = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            value.type.CopyFrom(kind)
        elif value.name in orphans:
            del graph.input[position]
    if result.ir_version <= INITIALIZERS_ARE_INPUTS_UNTIL_IR and all_listed:
        graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, list(t.dims))
            for t in fresh.values()
            if t.name not in listed
        )
