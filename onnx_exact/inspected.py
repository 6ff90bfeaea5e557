"""What there is in a model and what could be done with it, before anything is decided."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import fill

import numpy as np
from onnx import ModelProto

from onnx_exact.domains import Domain, DomainLike, domain_of_run
from onnx_exact.graph import Ranges, inputs_of, metadata_of, read_model
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.labels.classes import ChannelClass, classes
from onnx_exact.network import Box
from onnx_exact.stages.narrowed import inside_chains

WIDTH = 100
# Of a class of channels.
SHOWN_NODES = 3


@dataclass(frozen=True)
class ChainFound:
    """A chain and what is known of its domain.

    Attributes:
        name: for people, unique in the model.
        nodes: names of its nodes, in order.
        reads, makes: the tensors at its ends.
        widths: of its input and all its layers.
        units: how many have a ReLU.
        box: of its input, shape (n_in,), infinite where nothing is known.
        source: where that comes from, in words.
        unbounded: what leaves the domain open, None where it is finite.
        end: why the chain goes no further.
    """

    name: str
    nodes: tuple[str, ...]
    reads: str
    makes: str
    widths: tuple[int, ...]
    units: int
    box: Box
    source: str
    unbounded: str | None
    end: str


@dataclass(frozen=True)
class Inspection:
    """What was found in a model.

    Attributes:
        nodes: how many it has.
        inputs: name and shape of each input, in words.
        chains: in the order of the graph.
        left_out: the ReLUs and products that are in no chain, each with the reason, a line each.
        warnings: what is odd about the model, a line each.
        channels: classes of channels that stay or go together, in the order of the graph.
    """

    nodes: int
    inputs: tuple[str, ...]
    chains: tuple[ChainFound, ...]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    channels: tuple[ChannelClass, ...] = ()

    def to_text(self) -> str:
        """For a terminal, wrapped."""
        return "".join(f"{_filled(line)}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{self.nodes:,} nodes; inputs: {', '.join(self.inputs) or 'none'}."
        yield from (f"Warning: {warning}." for warning in self.warnings)
        for chain in self.chains:
            yield from _chain_lines(chain)
        if not self.chains:
            yield "No chain of affine maps and ReLUs was found."
        yield from map(_class_line, self.channels)
        for line in self.left_out:
            yield f"In no chain: {line}."


def inspect(
    model: ModelProto | str | os.PathLike[str],
    domain: DomainLike | None = None,
    *,
    rebase: bool = False,
) -> Inspection:
    """Reads a model, and says where its chains are, what bounds them, and what stops them.

    Args:
        model: a file name or a model.
        domain: as for `optimize`; what the graph implies needs none.
        rebase: as for `optimize`.

    Raises:
        OnnxExactError: one line that names what is wrong and the way out.
    """
    source = read_model(model)
    inputs = inputs_of(source.model)
    declared = domain_of_run(domain, inputs, metadata_of(source.model), rebase=rebase)
    ranges = Ranges(source.model, declared.boxes)
    return Inspection(
        nodes=len(source.model.graph.node),
        inputs=tuple(_input(spec.name, spec.shape) for spec in inputs),
        chains=tuple(_found(ranges, chain, declared) for chain in ranges.chains),
        left_out=ranges.left_out(),
        warnings=source.warnings,
        channels=classes(source.model, ranges.of, inside_chains(source.model, ranges)),
    )


def _found(ranges: Ranges, chain: LocatedChain, declared: Domain) -> ChainFound:
    where = ranges.chain_domain(chain)
    if where.origin is not None and declared.declared:
        source = f"{declared.source}, by the input {where.origin.input!r}"
    elif where.box.finite:
        source = "by the domain of the inputs" if declared.declared else "implied by the graph"
    else:
        source = "not known on every side"
    return ChainFound(
        name=chain.name,
        nodes=chain.nodes,
        reads=chain.input,
        makes=chain.output,
        widths=(chain.chain.n_in, *(layer.width for layer in chain.chain.layers)),
        units=chain.chain.relu_units,
        box=where.box,
        source=source,
        unbounded=None if where.box.finite else ranges.unbounded(chain.input),
        end=ranges.end_of(chain),
    )


def _input(name: str, shape: tuple[int | None, ...] | None) -> str:
    sizes = "of unknown rank" if shape is None else f"[{', '.join(map(_size, shape))}]"
    return f"{name} {sizes}"


def _size(size: int | None) -> str:
    return "?" if size is None else str(size)


def _chain_lines(chain: ChainFound) -> Iterator[str]:
    widths = "-".join(map(str, chain.widths))
    yield (
        f"Chain {chain.name}: {widths}, {chain.units:,} ReLU units, {len(chain.nodes)} nodes, from"
        f" {chain.reads!r} to {chain.makes!r}."
    )
    low, high = chain.box.lower, chain.box.upper
    if chain.unbounded is None:
        constant = int((low == high).sum())
        entries = f"{constant:,} of its {low.size:,} entries" if low.size > 1 else "its only entry"
        fixed = f"; {entries} constant" if constant else ""
        yield f"  Domain: from {np.min(low):g} to {np.max(high):g} ({chain.source}){fixed}."
    else:
        yield f"  Domain: {chain.source}: {chain.unbounded}."
    yield f"  Ends there: {chain.end}."


def _class_line(found: ChannelClass) -> str:
    """What becomes of a class of channels."""
    shown = ", ".join(map(repr, found.nodes[:SHOWN_NODES]))
    more = len(found.nodes) - SHOWN_NODES
    names = f"{shown} and {more:,} more" if more > 0 else shown
    gone = found.size - found.stay
    if not gone:
        why = found.why or "they are read, and nothing shows that they are constant"
        return f"All {found.size:,} channels of {names} stay: {why}."
    line = (
        f"{gone:,} of the {found.size:,} channels of {names} are constant or not read: they can go"
    )
    return f"{line} (--align 1 for all)."


def _filled(line: str) -> str:
    return fill(line, WIDTH, subsequent_indent="    ", break_long_words=False)
