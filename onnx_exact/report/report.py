"""The facts of one run, as frozen values; their names are those of the JSON report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnx_exact.certify.summary import Certified
from onnx_exact.network.affine import Array
from onnx_exact.validate import Deviation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OPTIMIZE = "optimize"
ANALYZE = "analyze"


@dataclass(frozen=True)
class LayerReport:
    """The units of one layer, the counts all over the first reading of the chain.

    Attributes:
        units: width of the layer.
        stably_inactive, stably_active, unstable, undecided: units by verdict; they sum to `units`
            where `relu`, and are 0 for a layer without ReLU, which has no verdicts.
        by_solver: stable units whose verdict rests on a solver that the user trusts.
        proved: all other decided units: their verdicts hold in real arithmetic.
        removed, negligible, merged, folded: units taken away, by how. Those that linear units took
            the place of count as merged, as far as there are fewer; negligible ones cost every
            reader less than half a unit in the last place of its largest term, all together.
        units_after: width of what is left; 0 where the layer is gone. None if only analyzed.
        relu: whether a ReLU follows.
        status: for each unit "undecided", "inactive", "active" or "unstable"; empty where not
            `relu`.
        evidence: for each unit what that rests on: "none", "witness", "interval", "linear" or
            "solver".
        lower, upper: shape (units,), bounds on what `tensor` holds over the domain in real
            arithmetic, for the weights as stored, rounded outward; None where there is no ReLU, but
            for the last layer.
        tensor: the name of the tensor with the pre-activations, or of a last layer's outputs.
    """

    units: int
    stably_inactive: int = 0
    stably_active: int = 0
    unstable: int = 0
    undecided: int = 0
    by_solver: int = 0
    proved: int = 0
    removed: int = 0
    negligible: int = 0
    merged: int = 0
    folded: int = 0
    units_after: int | None = None
    relu: bool = True
    status: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    lower: Array | None = field(default=None, compare=False)
    upper: Array | None = field(default=None, compare=False)
    tensor: str = ""


@dataclass(frozen=True)
class FormReport:
    """The form of one layer, where the split form would save connections.

    Attributes:
        layer: index in the chain.
        form: "chain" or "split".
        reason: in words.
        numbers: connections of the linear part in both forms, and bounds on what may be rounded
            off in both.
    """

    layer: int
    form: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


@dataclass(frozen=True)
class SliceReport:
    """What a Slice in front of a chain, of the inputs from the first to the last read, would save.

    Attributes:
        start, stop: the inputs to keep, `stop` not among them.
        inputs: how many would not have to be given.
        connections: entries of weight matrices for these, all of them 0.
        bytes: size of those as they are stored.
    """

    start: int
    stop: int
    inputs: int
    connections: int
    bytes: int


@dataclass(frozen=True)
class ChainReport:
    """One chain of the graph.

    Attributes:
        name: unique in the report.
        nodes: names of the graph's nodes it was read from.
        dtype: of its weights, as numpy names it.
        layers: in order.
        unread_inputs: indices of the chain's inputs that no unit reads, after what was changed.
        inputs: how many inputs there are.
        rounded: whether weights were computed and rounded, not only removed.
        slice: what a Slice of the inputs would save, None where it would save nothing.
        forms: which layers have which form and why; empty unless a form other than the chain was
            asked for.
    """

    name: str
    layers: tuple[LayerReport, ...]
    nodes: tuple[str, ...] = ()
    dtype: str = "float32"
    unread_inputs: tuple[int, ...] = ()
    inputs: int = 0
    rounded: bool = False
    slice: SliceReport | None = None
    forms: tuple[FormReport, ...] = ()


@dataclass(frozen=True)
class ChannelReport:
    """The channels of one convolution before and after those that can go went."""

    node: str
    before: int
    after: int


@dataclass(frozen=True)
class Totals:
    """Sums over all chains; a connection is an entry of a weight matrix.

    The sizes after are None if the model was only analyzed. Units are those with a ReLU.
    """

    units_before: int
    units_after: int | None
    connections_before: int
    connections_after: int | None
    parameters_before: int
    parameters_after: int | None
    bytes_before: int
    bytes_after: int | None
    stably_inactive: int
    stably_active: int
    unstable: int
    undecided: int
    by_solver: int
    proved: int


@dataclass(frozen=True)
class Refusal:
    """Something that was not done, and why.

    Attributes:
        chain: name of the chain, empty where it concerns the whole model.
        layer: index in the chain, None where it concerns the whole chain.
        what: what was not done, such as "merge 3 units".
        reason: in words.
        numbers: the figures the reason rests on.
    """

    chain: str
    layer: int | None
    what: str
    reason: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "numbers", MappingProxyType(dict(self.numbers)))


@dataclass(frozen=True)
class TimeReport:
    """The time limit of a run.

    Attributes:
        seconds: None where there was none.
        cut_short: the stages that it ended.
    """

    seconds: float | None = None
    cut_short: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether it ended anything."""
        return bool(self.cut_short)


@dataclass(frozen=True)
class Report:
    """Everything the user is told about one run.

    Attributes:
        command: OPTIMIZE or ANALYZE.
        version: of this package.
        source: file name of the original model, empty for one in memory.
        source_sha256: of the original file's bytes.
        domain: `Domain.to_json`.
        domain_source: where it came from, in words.
        domain_declared: False where it is every finite input, for want of a declaration.
        method: how units were decided.
        seed: of all random points.
        interrupted: the user ended the deciding with Ctrl-C.
        time_limit: and what it cut short.
        warnings: what is odd about the model, or could not be kept of it, a line each.
        changed: whether the new model differs from the original.
        chains: in the order of the graph.
        totals: sums over them.
        deviation: of the new model from the original in onnxruntime; None if none was run.
        certified: bounds on it over the domain; None if only analyzed, or without chains.
        seconds: time of each stage, in order; `total` is added.
        refused: what was not done.
        left_out: ReLUs and products that are in no chain, with the reason, a line each.
        channels: convolutions that lost some of their channels.
        parameters: entries of the graph's constants before and after that; None where none did.
        channels_in_blocks: channels that could go and stay, so that blocks of channels are full.
        channels_deviation: how far outputs may be off since some of these were constant and not 0,
            so that their readers got what they made of them, rounded; an upper bound.
    """

    command: str
    version: str
    source: str
    source_sha256: str
    domain: Mapping[str, Mapping[str, Any]]
    domain_source: str
    domain_declared: bool
    method: str
    seed: int
    changed: bool
    chains: tuple[ChainReport, ...]
    totals: Totals
    deviation: Deviation | None
    seconds: Mapping[str, float]
    refused: tuple[Refusal, ...] = ()
    certified: Certified | None = None
    interrupted: bool = False
    time_limit: TimeReport = TimeReport()
    warnings: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    channels: tuple[ChannelReport, ...] = ()
    parameters: tuple[int, int] | None = None
    channels_deviation: float = 0.0
    channels_in_blocks: int = 0

    def __post_init__(self) -> None:
        for name in ("domain", "seconds"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def total_seconds(self) -> float:
        """The time of all stages, or the `total` that was measured."""
        return self.seconds.get("total", sum(self.seconds.values()))

    def to_json_dict(self, *, units: bool = False) -> dict[str, Any]:
        """The report as JSON values, those of each unit if asked for; see `report.json`."""
        from onnx_exact.report.json import to_json_dict

        return to_json_dict(self, units=units)

    def plot(self) -> Figure:
        """A figure of matplotlib with a bar for each layer: `report.plot().savefig("out.png")`.

        Raises:
            UsageError: matplotlib is not installed.
        """
        from onnx_exact.report.plot import plot

        return plot(self)
