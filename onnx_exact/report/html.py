"""The report as one HTML page that needs nothing else: a picture of every chain, layer by layer.

Names come from the model's file, so that every text is escaped where it is put in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from onnx_exact.report.html_style import STYLE
from onnx_exact.report.report import ANALYZE, ChainReport, LayerReport, Report
from onnx_exact.report.text import lines, proved
from onnx_exact.report.words import FATES, VERDICTS, at_least, at_most, fates, sizes, verdicts

# Sides of a domain's array that are shown.
SHOWN = 4


def to_html(report: Report, latency: tuple[float, float] | None = None) -> str:
    """The report as the text of an HTML file.

    Args:
        report: what to show.
        latency: seconds that both models take for a row, where they were measured.
    """
    name = report.source or "model"
    body = [
        f"<header><h1>{_text(name)}</h1><p class=lead>{_text(proved(report))}</p></header>",
        _tiles(report, latency),
        _section("Chains", _chains(report)),
        _section("Channels", _table(("convolution", "before", "after"), _channels(report))),
        _section("Deviation and guarantee", _table(("what", "value"), _deviation(report))),
        _section("Domain", _table(("input", "lower", "upper"), _domain(report.domain))),
        _section("Time", _times(report.seconds)),
        _section("Not done, and why", _table(("where", "what", "why"), _refused(report))),
        _section("In words", "".join(f"<p>{_text(line)}</p>" for line in lines(report))),
        _footer(report),
    ]
    title = f"<title>onnx-exact: {_text(name)}</title>"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">{title}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _text(value: object) -> str:
    """Text for an element or an attribute, whatever a file has put into it."""
    return escape(str(value).encode("utf-8", errors="replace").decode("utf-8"))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    if not body:
        return ""
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _tiles(report: Report, latency: tuple[float, float] | None) -> str:
    """The sizes before and after, and how long a run takes."""
    tiles = []
    for name, before, after in sizes(report):
        number, note = f"{before:,}", ""
        if after is not None:
            number = f"{before:,} <span class=to>&rarr;</span> {after:,}"
            note = f"{(after - before) / before:+.1%}" if before else ""
        tiles.append(
            f"<div class=tile><b>{number}</b><span>{name}</span>"
            f"<span class=note>{note}</span></div>"
        )
    if latency is not None:
        first, then = (f"{1e3 * seconds:.3g}" for seconds in latency)
        tiles.append(
            f"<div class=tile><b>{first} <span class=to>&rarr;</span> {then}</b>"
            "<span>milliseconds a row (onnxruntime)</span>"
            f"<span class=note>{latency[1] / latency[0] - 1.0:+.0%}</span></div>"
        )
    return f"<div class=tiles>{''.join(tiles)}</div>"


def _chains(report: Report) -> str:
    if not report.chains:
        return "<p>No chain of affine maps and ReLUs was found.</p>"
    changed = report.command != ANALYZE
    parts = [_legend(VERDICTS)]
    if changed:
        parts.append(_legend(FATES))
    return "".join(parts) + "".join(_chain(chain, changed) for chain in report.chains)


def _legend(names: Mapping[str, str]) -> str:
    entries = "".join(f"<li><i class={name}></i>{words}</li>" for name, words in names.items())
    return f"<ul class=legend>{entries}</ul>"


def _chain(chain: ChainReport, changed: bool) -> str:
    """A chain as two bars a layer: what its units are, and what became of them."""
    widest = max(layer.units for layer in chain.layers)
    rows = []
    for number, layer in enumerate(chain.layers, start=1):
        bars = []
        if layer.relu:
            bars.append(_bar(verdicts(layer), VERDICTS, widest))
        if changed:
            bars.append(_bar(fates(layer), FATES, widest))
        kind = "ReLU" if layer.relu else "linear"
        after = "" if layer.units_after is None else f" &rarr; {layer.units_after:,}"
        rows.append(
            f"<div class=layer><div class=name>layer {number}<br><small>{kind},"
            f" {layer.units:,}{after}{_range(layer)}</small></div>"
            f"<div class=bars>{''.join(bars)}</div></div>"
        )
    return (
        f"<h3>{_text(chain.name)}</h3><p class=note>{chain.inputs:,} inputs,"
        f" {len(chain.unread_inputs):,} of them unread; {_text(chain.dtype)}. Below"
        " each layer its units before and after, and worst-case bounds on what its ReLU reads.</p>"
        + "".join(rows)
    )


def _range(layer: LayerReport) -> str:
    """Between which bounds all values of a layer lie, before its ReLU."""
    if layer.lower is None or layer.upper is None or not len(layer.lower):
        return ""
    return f"<br>from {at_least(min(layer.lower))} to {at_most(max(layer.upper))}"


def _bar(counts: Mapping[str, int], names: Mapping[str, str], widest: int) -> str:
    """A bar whose length is the number of units, as a share of the widest layer."""
    parts = []
    for name, count in counts.items():
        if count:
            label = f"{count:,} {names[name]}"
            parts.append(
                f'<span class="part {name}" style="flex-grow:{count}" title="{label}"'
                f' role=img aria-label="{label}">{count:,}</span>'
            )
    width = 100.0 * sum(counts.values()) / max(widest, 1)
    return f'<div class=bar style="width:{width:.2f}%">{"".join(parts)}</div>'


def _channels(report: Report) -> list[tuple[str, str, str]]:
    return [(found.node, f"{found.before:,}", f"{found.after:,}") for found in report.channels]


def _deviation(report: Report) -> list[tuple[str, str]]:
    rows = []
    if report.deviation is not None:
        found = report.deviation
        rows.append(
            ("largest difference seen in onnxruntime", f"{found.observed_max_abs:.3g}"),
        )
        rows.append(("at so many points", f"{found.points:,}"))
    certified = report.certified
    if certified is not None:
        most = certified.max_abs
        known = "none is known" if most is None else at_most(most)
        rows.append((f"worst-case bound, over the reals, on tensor {certified.of!r}", known))
        for when in ("before", "after"):
            value = getattr(certified, f"rounding_{when}")
            if value is not None:
                what = f"worst-case bound on a runtime's own rounding, {when}"
                rows.append((what, at_most(value)))
    return rows


def _domain(domain: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    return [(name, _side(box["lower"]), _side(box["upper"])) for name, box in domain.items()]


def _side(value: Any) -> str:
    """A side of a box: a number, or the first and the number of many."""
    numbers = _flat(value)
    shown = ", ".join("none" if n is None else f"{n:g}" for n in numbers[:SHOWN])
    return shown if len(numbers) <= SHOWN else f"{shown}, ... ({len(numbers):,} numbers)"


def _flat(value: Any) -> list[float | None]:
    if isinstance(value, list | tuple):
        return [number for part in value for number in _flat(part)]
    return [None if value is None or not math.isfinite(value) else float(value)]


def _times(seconds: Mapping[str, float]) -> str:
    stages = {name: value for name, value in seconds.items() if name != "total"}
    longest = max(stages.values(), default=0.0) or 1.0
    rows = (
        f"<div class=layer><div class=name>{_text(name)}</div><div class=bars>"
        f'<div class="bar stage" style="width:{85.0 * value / longest:.2f}%"></div>'
        f"<span class=value>{value:.2f} s</span></div></div>"
        for name, value in stages.items()
    )
    return f"<div class=times>{''.join(rows)}</div>"


def _refused(report: Report) -> list[tuple[str, str, str]]:
    return [
        (
            refusal.chain if refusal.layer is None else f"{refusal.chain}, {refusal.layer + 1}",
            refusal.what,
            refusal.reason,
        )
        for refusal in report.refused
    ]


def _footer(report: Report) -> str:
    return (
        f"<footer>onnx-exact {_text(report.version)}, {_text(report.command)}, method"
        f" {_text(report.method)}, seed {report.seed}; SHA-256 of the original"
        f" <code>{_text(report.source_sha256)}</code></footer>"
    )
