"""The report as text: a table a chain, the totals, and one sentence on what was proved."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

from onnx_exact.report.report import ANALYZE, ChainReport, FormReport, Report
from onnx_exact.report.words import at_most, sizes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from onnx_exact.certify.summary import Certified
    from onnx_exact.validate import ChainDeviation

WIDTH = 100
WIDEST_TABLE = 1000

# A run on a large network can refuse hundreds of merges; the JSON report holds them all.
SHOWN_REFUSALS = 5


def to_text(report: Report, *, width: int = WIDTH, unicode: bool = True) -> str:
    """The report for a terminal or a pipe: no colours, sentences wrapped at `width`.

    Args:
        report: what to show.
        width: columns to use.
        unicode: False for plain ASCII frames and text.
    """
    out = io.StringIO()
    # A figure cut short would be another figure: tables take the width they need.
    tables = _console(out, WIDEST_TABLE)
    for chain in report.chains:
        tables.print(_chain_table(chain, unicode))
    tables.print(_totals_table(report, unicode))
    prose = _console(out, width)
    for line in lines(report):
        prose.print(line)
    text = "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"
    return text if unicode else text.encode("ascii", errors="replace").decode("ascii")


def _console(out: TextIO, width: int) -> Console:
    from rich.console import Console

    return Console(
        file=out, width=width, color_system=None, markup=False, highlight=False, emoji=False
    )


def _table(title: str, columns: Sequence[str], unicode: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    frame = box.SIMPLE_HEAD if unicode else box.ASCII2
    table = Table(title=Text(title), title_justify="left", box=frame, padding=0)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    return table


def _chain_table(chain: ChainReport, unicode: bool) -> Table:
    table = _table(
        f"Chain {chain.name}",
        [
            *("layer", "units", "stably\ninactive", "stably\nactive", "un-\nstable", "undecided"),
            *("re-\nmoved", "negli-\ngible", "mer-\nged", "fold-\ned", "units\nafter"),
        ],
        unicode,
    )
    for number, layer in enumerate(chain.layers, start=1):
        ways = (layer.removed, layer.negligible, layer.merged, layer.folded)
        verdicts = (layer.stably_inactive, layer.stably_active, layer.unstable, layer.undecided)
        table.add_row(
            f"{number}" if layer.relu else f"{number} linear",
            _count(layer.units),
            *(_count(units) if layer.relu else "" for units in verdicts),
            *(_count(units) for units in ways),
            _count(layer.units_after),
        )
    return table


def _totals_table(report: Report, unicode: bool) -> Table:
    table = _table("Totals", ["", "before", "after", "change"], unicode)
    for name, before, after in sizes(report):
        table.add_row(name, _count(before), _count(after), _change(before, after))
    return table


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _change(before: int, after: int | None) -> str:
    return "" if after is None or not before else f"{(after - before) / before:+.1%}"


def _form(form: FormReport) -> str:
    """The reason for a form, with the bounds on rounding where both are known."""
    chain, split = (form.numbers.get(f"rounding_{name}") for name in ("chain", "split"))
    if chain is None or split is None:
        return form.reason
    return (
        f"{form.reason} (evaluating it rounds off at most {split:.2g} in the split form,"
        f" {chain:.2g} in the chain form)"
    )


def _unexpected(chain: ChainDeviation) -> str:
    return (
        f"Warning: tensor {chain.of!r} differs by {chain.observed:.3g} from the original's in"
        f" onnxruntime. Rounding may do that to the two, but was not seen to do as much to the"
        f" original alone ({chain.rounding:.3g}). In float64 they differ by {chain.float64:.3g}."
    )


def _left_out(report: Report) -> Iterable[str]:
    """What is in no chain, in short."""
    if not report.chains:
        reason = report.left_out[0] if report.left_out else "there is no layer"
        yield f"No chain of affine maps and ReLUs was found in this model: {reason}."
    elif report.left_out:
        yield f"In no chain: {report.left_out[0]}."
    hidden = len(report.left_out) - 1
    if hidden > 0:
        yield f"{hidden:,} more are in no chain; the command inspect gives every reason."


def _channels(report: Report) -> Iterable[str]:
    """Which convolutions have fewer channels."""
    if report.parameters is not None:
        before, after = report.parameters
        fewer = ", ".join(f"{c.node} {c.before:,} to {c.after:,}" for c in report.channels)
        yield (
            f"Channels that are constant or not read are gone ({fewer or 'of inputs alone'}):"
            f" {before:,} parameters of the graph became {after:,}, without what its chains lost."
        )
    if report.channels_in_blocks:
        yield (
            f"{report.channels_in_blocks:,} more could go and fill blocks of channels, which"
            " onnxruntime is fast with: --align 1 takes them out."
        )


def lines(report: Report) -> Iterable[str]:
    """What is said beside the tables, a sentence or two each."""
    totals = report.totals
    for warning in report.warnings:
        yield f"Warning: {warning}."
    yield from _channels(report)
    yield from _left_out(report)
    if report.chains:
        yield (
            f"Verdicts: {totals.stably_inactive:,} stably inactive, {totals.stably_active:,} stably"
            f" active, {totals.unstable:,} unstable, {totals.undecided:,} undecided;"
            f" {totals.proved:,} fully proved."
        )
    if report.interrupted:
        yield "Interrupted: units that were undecided by then are not touched."
    if report.time_limit.reached:
        yield (
            f"Time limit of {report.time_limit.seconds:g} s reached"
            f" ({', '.join(report.time_limit.cut_short)} cut short):"
            f" {totals.undecided:,} undecided; a longer --time-limit may decide them."
        )
    if totals.by_solver:
        yield (
            f"Of these {totals.by_solver:,} rest on claims of SCIP (--trust-solver), and so does"
            " everything below; the others rest on points or bounds that hold in real arithmetic."
        )
    for chain in report.chains:
        if chain.unread_inputs:
            yield (
                f"Unread inputs (chain {chain.name}): {len(chain.unread_inputs):,} of"
                f" {chain.inputs:,} have no weight but 0, and stay."
            )
        if chain.slice is not None:
            yield (
                f"A Slice of the inputs {chain.slice.start:,} to {chain.slice.stop - 1:,} in front"
                f" of it would save {_inputs(chain.slice.inputs)} and {chain.slice.connections:,}"
                f" connections that are 0 ({chain.slice.bytes:,} bytes)."
            )
        for form in chain.forms:
            yield f"Form (chain {chain.name}, layer {form.layer + 1}): {form.form}: {_form(form)}."
    if report.deviation is not None:
        yield (
            f"Largest deviation observed: {report.deviation.observed_max_abs:.3g} in output"
            f" {report.deviation.worst_output!r}, at {report.deviation.points:,} points."
        )
        yield from (_unexpected(found) for found in report.deviation.chains if found.unexpected)
    stages = ", ".join(
        f"{name} {seconds:.2f}" for name, seconds in report.seconds.items() if name != "total"
    )
    yield f"Seconds: {report.total_seconds:.2f} in total{f' ({stages})' if stages else ''}."
    for refusal in report.refused[:SHOWN_REFUSALS]:
        place = refusal.chain if refusal.layer is None else f"{refusal.chain}, {refusal.layer + 1}"
        yield f"Refused ({place}): {refusal.what}: {refusal.reason}."
    hidden = len(report.refused) - SHOWN_REFUSALS
    if hidden > 0:
        yield f"Refused: {hidden:,} more; --report lists them all."
    if not report.domain_declared:
        yield (
            "No domain was given: everything holds for every finite input. A smaller domain lets"
            " more be removed; give one with --domain LO:HI."
        )
    yield proved(report)


def _inputs(count: int) -> str:
    return f"{count:,} input{'s' if count != 1 else ''}"


def proved(report: Report) -> str:
    """One sentence on what was proved, and over which domain."""
    domain = report.domain_source
    where = f"over {domain}" if not report.domain_declared else f"over the domain ({domain})"
    totals = report.totals
    how = "True if SCIP is right" if totals.by_solver else "Proved"
    if report.command == ANALYZE:
        if not report.chains:
            return f"Nothing was analyzed, so that nothing is proved {where}; nothing was changed."
        return (
            f"{how} {where}: {totals.stably_inactive:,} units are never positive and"
            f" {totals.stably_active:,} more never negative; nothing was changed."
        )
    if not report.changed:
        carried = " that carries the domain" if report.domain_declared else ""
        return f"Nothing could be removed {where}: the output is a copy of the input{carried}."
    dtype = "/".join(sorted({chain.dtype for chain in report.chains}))
    same = "the new network is the same function over the reals"
    apart = "apart from"
    if report.channels_deviation:
        same += (
            f" {apart} rounding what was made of constant channels, which moves the outputs by at"
            f" most {at_most(report.channels_deviation)} (worst-case bound)"
        )
        apart = "and from"
    moves = report.certified is None or report.certified.max_abs != 0.0
    if moves and any(chain.rounded for chain in report.chains):
        dropped = sum(layer.negligible for chain in report.chains for layer in chain.layers)
        same += f" {apart} {dropped:,} negligible units and" if dropped else f" {apart}"
        same += f" rounding its merged and folded weights to {dtype}"
    return f"{how} {where}: {same}{_certified(report.certified, dtype)}."


def _certified(certified: Certified | None, dtype: str) -> str:
    """What is certain of the deviation, as the end of a sentence."""
    if certified is None:
        return ""
    what = "the outputs" if certified.is_output else f"tensor {certified.of!r}"
    if certified.max_abs is None:
        text = f"; no bound on the deviation of {what} is known"
    elif certified.max_abs == 0.0:
        text = f": not a value of {what} changes"
    else:
        text = f", which moves {what} by at most {at_most(certified.max_abs)} (worst-case bound)"
    before, after = certified.rounding_before, certified.rounding_after
    if before is not None and after is not None:
        text += (
            f"; worst-case bounds on what rounding in {dtype} adds: {at_most(before, 2)} to the old"
            f" network, {at_most(after, 2)} to the new"
        )
    return text if certified.is_output else f"{text}; what comes after that tensor is not covered"
