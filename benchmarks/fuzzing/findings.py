"""What the committed measurements amount to: compression at no loss, growth, and where we lose."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.comparing.contestants import CONTESTANTS, OURS
from benchmarks.comparing.summary import Runs, typical
from benchmarks.comparing.tables import INCOMPLETE
from benchmarks.scaling import greatest_stage, slope

Entry = dict[str, Any]
Rows = Mapping[str, Entry]

ORIGINAL = "original"
DATA = {"mnist": "MNIST", "cifar10": "CIFAR-10"}
# A model is slower only if it takes this many times the original's time: less is noise.
SLOWER = 1.05


def removed(entry: Entry, kind: str) -> float:
    """The share of the connections that are gone."""
    kinds = entry["kinds"]
    return 1.0 - float(kinds[kind]["connections"]) / float(kinds[ORIGINAL]["connections"])


def accuracy(entry: Entry, kind: str = ORIGINAL) -> float:
    """On the test set, in onnxruntime."""
    return float(entry["kinds"][kind]["accuracy"])


@dataclass(frozen=True)
class NoLoss:
    """A network trained with l1 that, reduced, is as accurate as one trained without.

    Attributes:
        network, baseline: names.
        accuracy, needed: of the reduced network, and of the baseline.
        removed: share of the network's own connections.
    """

    network: str
    baseline: str
    accuracy: float
    needed: float
    removed: float


def architectures(rows: Rows, data: str) -> list[str]:
    """Those that networks with l1 and networks without were trained of."""
    own = [entry for entry in rows.values() if entry["data"] == data]
    with_l1 = {entry["architecture"] for entry in own if entry["l1"] > 0.0}
    return sorted(with_l1 & {entry["architecture"] for entry in own if entry["l1"] == 0.0})


def baseline(rows: Rows, data: str, architecture: str | None = None) -> str | None:
    """The most accurate network trained without l1, of one architecture or of all."""
    plain = [name for name, entry in _of(rows, data, architecture) if entry["l1"] == 0.0]
    return max(plain, key=lambda name: accuracy(rows[name]), default=None)


def no_loss(rows: Rows, data: str, kind: str, architecture: str | None = None) -> NoLoss | None:
    """The largest share of connections removed at no loss against unregularised networks.

    Args:
        rows: by network.
        data: name of the data set.
        kind: of reductions.
        architecture: of all networks considered; None for all, held against the best of all.
    """
    rival = baseline(rows, data, architecture)
    if rival is None:
        return None
    needed = accuracy(rows[rival])
    found = [
        NoLoss(name, rival, accuracy(entry, kind), needed, removed(entry, kind))
        for name, entry in _of(rows, data, architecture)
        if entry["l1"] > 0.0 and accuracy(entry, kind) >= needed
    ]
    return max(found, key=lambda one: one.removed, default=None)


def best_no_loss(rows: Rows, data: str, kind: str) -> NoLoss | None:
    """The largest such share of any architecture, each held against its own best without l1."""
    found = [no_loss(rows, data, kind, one) for one in architectures(rows, data)]
    return max((f for f in found if f is not None), key=lambda one: one.removed, default=None)


def _of(rows: Rows, data: str, architecture: str | None) -> list[tuple[str, Entry]]:
    return [
        (name, entry)
        for name, entry in rows.items()
        if entry["data"] == data and architecture in (None, entry["architecture"])
    ]


@dataclass(frozen=True)
class Grown:
    """All runs at one point of a series.

    Attributes:
        value: the quantity that varies.
        units, open: ReLU units, and those left open in the worst run.
        seconds: the processor's time, median.
        memory: greatest peak in MB beyond what the process needs before it begins.
        stage, share: which stage took most, and how much of the time.
    """

    value: float
    units: int
    open: int
    seconds: float
    memory: float
    stage: str
    share: float


def grown(series: Entry, baseline: Entry) -> list[Grown]:
    """The points of a series in order; runs that failed are left out."""
    by_value: dict[float, list[Entry]] = {}
    for run in series["runs"]:
        if "error" not in run:
            by_value.setdefault(run["value"], []).append(run)
    return [
        Grown(
            value,
            runs[0]["units"],
            max(run["open"] for run in runs),
            statistics.median(run["cpu_seconds"] for run in runs),
            max(max(run["peak_mb"] for run in runs) - baseline["peak_mb"], 0.1),
            *greatest_stage(runs[0]),
        )
        for value, runs in sorted(by_value.items())
    ]


def slopes(points: Sequence[Grown]) -> tuple[float, float] | None:
    """The powers by which time and memory grow, over the points where every unit was decided."""
    done = [point for point in points if not point.open]
    if len(done) < 2:
        return None
    xs = [point.value for point in done]
    return slope(xs, [p.seconds for p in done]), slope(xs, [p.memory for p in done])


def losses(found: Mapping[str, Entry]) -> list[str]:
    """Every respect in which another did better, or ours fell short, in a sentence each.

    Args:
        found: what `compare`, `compress`, `scaling`, `decide` and `lirpa` measured, by these
            names.
    """
    return [
        *_losses_in_time(found["compare"]["runs"]),
        *_losses_elsewhere(found["decide"]["rows"]),
        *_losses_in_scaling(found["scaling"]),
        *_losses_in_bounds(found["lirpa"]["rows"]),
        *_losses_in_size(found["compress"]["rows"]),
    ]


def _losses_elsewhere(rows: Rows) -> list[str]:
    unfinished = [
        f"{case} ({found[OURS]['open']} of {found[OURS]['units']} after {found[OURS]['limit']:g} s)"
        for case, found in rows.items()
        if found.get(OURS, {}).get("open")
    ]
    if not unfinished:
        return []
    return [
        "Units left open on networks of others and longer limits"
        f" ([`decide.md`](benchmarks/results/decide.md)): {', '.join(unfinished)}."
    ]


def _losses_in_scaling(scaling: Entry) -> list[str]:
    unfinished = [
        f"{name} {point.value:g} ({point.open} of {point.units})"
        for name, series in scaling["series"].items()
        for point in grown(series, scaling["baseline"])
        if point.open
    ]
    if not unfinished:
        return []
    return [
        f"Units left open on random networks after {scaling['limit']:g} s by the clock:"
        f" {', '.join(unfinished)}."
    ]


def _losses_in_bounds(rows: Rows) -> list[str]:
    times = sorted(row["times"] for row in rows.values())
    if not times:
        return []
    return [
        f"The first linear bounds take {times[0]:g} to {times[-1]:g} times as long as those of"
        " auto_LiRPA in float32, which does not allow for its rounding"
        " ([`lirpa.md`](benchmarks/results/lirpa.md))."
    ]


def _losses_in_time(runs: Runs) -> list[str]:
    found = []
    unfinished = [
        f"{case} ({ours.open})"
        for case, methods in sorted(runs.items())
        if (ours := typical(methods.get(OURS, ()))) is not None and ours.open
    ]
    if unfinished:
        found.append(f"Units left open within the time limit: {', '.join(unfinished)}.")
    for name in CONTESTANTS:
        if name == OURS or name in INCOMPLETE:
            continue
        quicker = _quicker(runs, name)
        if quicker:
            found.append(f"`{name}` was quicker on {len(quicker)}: {', '.join(quicker)}.")
    return found


def _quicker(runs: Runs, name: str) -> list[str]:
    """The cases that another finished in less time than ours."""
    found = []
    for case, methods in sorted(runs.items()):
        ours, theirs = (typical(methods.get(who, ())) for who in (OURS, name))
        if ours is None or theirs is None or theirs.open:
            continue
        if ours.open or theirs.seconds < ours.seconds:
            found.append(f"{case} ({theirs.seconds:.2g} s against {ours.seconds:.2g} s)")
    return found


def _losses_in_accuracy(rows: Rows) -> list[str]:
    """Where an l1 penalty costs accuracy: what is removed there is not at no loss."""
    found = []
    for data in DATA:
        costly = [
            architecture
            for architecture in (*architectures(rows, data), None)
            if baseline(rows, data, architecture) and not no_loss(rows, data, "all", architecture)
        ]
        words = ", ".join(one or "all architectures together" for one in costly)
        if words:
            found.append(
                f"On {DATA[data]} no network trained with l1 is as accurate as the best without,"
                f" of {words}: what is removed there is not at no loss."
            )
    return found


def _losses_in_size(rows: Rows) -> list[str]:
    measured = {name: entry for name, entry in rows.items() if "kinds" in entry}
    found = _losses_in_accuracy(measured)
    nothing = [name for name, entry in measured.items() if removed(entry, "all") == 0.0]
    if nothing:
        found.append(f"Nothing could be removed from {len(nothing)}: {', '.join(nothing)}.")
    no_more = [
        name
        for name, entry in measured.items()
        if name not in nothing and removed(entry, "all") <= removed(entry, "published")
    ]
    if no_more:
        found.append(
            f"No more than by the published reductions was removed from {len(no_more)}:"
            f" {', '.join(no_more)}."
        )
    for kind in ("all", "split"):
        slower = [
            f"{name} (batch {batch}, {after / before:.2f} times)"
            for name, entry in measured.items()
            for batch, after in entry["kinds"][kind]["latency_us"].items()
            if (before := entry["kinds"][ORIGINAL]["latency_us"][batch]) and after > SLOWER * before
        ]
        if slower:
            found.append(f"Slower after reducing (`{kind}`): {', '.join(slower)}.")
    return found
