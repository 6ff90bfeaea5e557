"""What the runs of a comparison amount to: medians, spreads, ratios of times, and who agrees."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from benchmarks.comparing.contestants import OURS
from benchmarks.deciding.verdicts import Verdicts, disagreements
from benchmarks.measure import FIRST_STAGE

Entry = dict[str, Any]
# By case and contestant, one entry for each repeat.
Runs = Mapping[str, Mapping[str, Sequence[Entry]]]


@dataclass(frozen=True)
class Typical:
    """The runs of one contestant on one case.

    Attributes:
        units: of the network.
        open: units left open, in the worst run.
        seconds, least, most: the processor's time; median and spread.
        program: the median of the same without sampling: what the program alone took.
        wall: the median by the clock on the wall.
        peak_mb: the most memory of any run.
    """

    units: int
    open: int
    seconds: float
    least: float
    most: float
    program: float
    wall: float
    peak_mb: float


def typical(entries: Sequence[Entry]) -> Typical | None:
    """The runs that came to an end, together; None where there is none."""
    done = [entry for entry in entries if measured(entry)]
    if not done:
        return None
    seconds = [entry["cpu_seconds"] for entry in done]
    return Typical(
        units=done[0]["units"],
        open=max(entry["open"] for entry in done),
        seconds=statistics.median(seconds),
        least=min(seconds),
        most=max(seconds),
        program=statistics.median(map(_program_seconds, done)),
        wall=statistics.median(entry["seconds"] for entry in done),
        peak_mb=max(entry["peak_mb"] for entry in done),
    )


def measured(entry: Entry) -> bool:
    """Whether a run came to an end, in time or not."""
    return "error" not in entry and "skipped" not in entry


def _program_seconds(entry: Entry) -> float:
    sampling = entry["stage_seconds"].get(FIRST_STAGE, 0.0) + entry["read_seconds"]
    share = max(0.0, 1.0 - sampling / entry["seconds"]) if entry["seconds"] else 0.0
    return float(entry["cpu_seconds"] * share)


@dataclass(frozen=True)
class Ratio:
    """How many times our time another contestant takes to decide every unit of a case.

    Attributes:
        at_least: it did not finish, the ratio is a lower bound.
    """

    case: str
    value: float
    at_least: bool


@dataclass(frozen=True)
class Race:
    """All cases on which a contestant can be held against ours.

    Attributes:
        ratios: where ours decided every unit, by the time of both in total.
        programs: the same, but of theirs without sampling, and only where a program was needed.
        ours_open: cases that ours left units open in; not among the ratios.
    """

    other: str
    ratios: tuple[Ratio, ...]
    programs: tuple[Ratio, ...]
    ours_open: tuple[str, ...]

    @property
    def finished(self) -> int:
        """Number of cases that the other finished."""
        return sum(not ratio.at_least for ratio in self.ratios)


def race(runs: Runs, other: str) -> Race:
    """Ours against another contestant."""
    ratios, programs, ours_open = [], [], []
    for case, methods in runs.items():
        ours, theirs = (typical(methods.get(name, ())) for name in (OURS, other))
        if ours is None or theirs is None:
            continue
        if ours.open:
            ours_open.append(case)
            continue
        unfinished = theirs.open > 0
        ratios.append(Ratio(case, theirs.seconds / ours.seconds, unfinished))
        if _needed_program(methods[other]):
            programs.append(Ratio(case, theirs.program / ours.seconds, unfinished))
    return Race(other, tuple(ratios), tuple(programs), tuple(ours_open))


def _needed_program(entries: Sequence[Entry]) -> bool:
    return any("milp" in entry["stage_seconds"] for entry in entries if measured(entry))


@dataclass(frozen=True)
class Median:
    """A median of ratios; a lower bound where one of those at or below it is."""

    value: float
    at_least: bool

    def __str__(self) -> str:
        return f"{'≥ ' if self.at_least else ''}{self.value:.3g}"


def median(ratios: Sequence[Ratio]) -> Median | None:
    """The median of ratios, None of none.

    Raising a lower bound that lies above the median does not move it.
    """
    if not ratios:
        return None
    value = statistics.median(ratio.value for ratio in ratios)
    return Median(value, any(ratio.at_least and ratio.value <= value for ratio in ratios))


def clashes(case: str, verdicts: Mapping[str, Verdicts]) -> list[Entry]:
    """Every unit that two runs on a case decided differently.

    Args:
        case: its name.
        verdicts: those of each run, by a name for the run.
    """
    found = []
    for one, other in combinations(verdicts, 2):
        for wrong in disagreements(verdicts[one], verdicts[other]):
            said = dict(zip((one, other), wrong.verdicts, strict=True))
            found.append({"case": case, "layer": wrong.layer, "unit": wrong.unit, "verdicts": said})
    return found


def by_name(runs: Runs, keep: Callable[[Entry], bool]) -> Iterable[tuple[str, str, Entry]]:
    """The entries that are wanted, with case and contestant."""
    for case, methods in runs.items():
        for name, entries in methods.items():
            for entry in entries:
                if keep(entry):
                    yield case, name, entry
