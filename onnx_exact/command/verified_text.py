"""What `verify` has checked, as text for people."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context
from textwrap import fill

from onnx_exact.verified import Verification
from onnx_exact.verifier.check import ChainCheck
from onnx_exact.verifier.schema import (
    ACTIVE,
    BOUNDS,
    CLAIMED,
    INACTIVE,
    SLOPES,
    TREE,
    UNDECIDED,
    UNSHOWN,
    UNSTABLE,
    WITNESS,
)

WIDTH = 100
PROOFS = (
    (BOUNDS, "intervals and linear bounds"),
    (SLOPES, "linear bounds with slopes"),
    (TREE, "branching"),
    (CLAIMED, "a claim (not checked)"),
    (WITNESS, "witnesses"),
    (UNSHOWN, "nothing (nothing rests on it)"),
)
VERDICTS = ((INACTIVE, "inactive"), (ACTIVE, "active"), (UNSTABLE, "unstable"))


def to_text(found: Verification) -> str:
    """The report of `verify`."""
    lines = [line for chain in found.chains for line in _chain(chain)]
    lines += {"certificate": _certified, "identical": _identical, "search": _searched}[
        found.method
    ](found)
    lines += found.notes
    lines.append(f"Seconds: {found.seconds:.2f}.")
    return "".join(f"{fill(line, WIDTH)}\n" for line in lines)


def _chain(chain: ChainCheck) -> list[str]:
    rows = [("verdicts that rest on", *(name for _, name in VERDICTS))]
    for proof, name in PROOFS:
        counts = [chain.counts[status, proof] for status, _ in VERDICTS]
        if any(counts):
            rows.append((name, *(str(n) if n else "" for n in counts)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [f"Chain {chain.name}", ""]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    undecided = sum(n for (status, _), n in chain.counts.items() if status == UNDECIDED)
    if undecided:
        lines += ["", f"{undecided} undecided units, of which nothing is claimed."]
    return [*lines, ""]


def _certified(found: Verification) -> list[str]:
    points, trees, leaves = (
        sum(getattr(chain, name) for chain in found.chains)
        for name in ("witnesses", "trees", "leaves")
    )
    where = "outputs" if found.output_deviation else "outputs of the chains"
    word = "tree" if trees == 1 else "trees"
    branched = f", {trees} {word} with {leaves} leaves" if trees else ""
    cut = (
        f"Channels that went of {found.channels} tensors: shown to be 0, or not to be read."
        if found.channels
        else ""
    )
    lines = [
        *filter(None, [cut]),
        f"Checked in float64 with error bounds: {found.count(BOUNDS, SLOPES)} verdicts by bounds,"
        f" {points} witness points{branched}, the map to the new units.",
        f"Compared bit by bit: signature, and {found.compared} nodes and constants outside of the"
        " chains.",
    ]
    result = (
        f" over the domain ({found.domain}): in real arithmetic, with the weights as stored, no"
        f" value of the {where} differs by more than {_above(found.deviation)} (worst-case bound)."
    )
    if found.claims:
        lines.append(f"Not verified: it rests on {found.claims} verdicts that are only claimed.")
        return [*lines, f"If these are right: certified{result}"]
    return [*lines, f"Certified{result}"]


def _above(value: float) -> str:
    """A number in three digits, rounded upward."""
    return f"{float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(value)):.3g}"


def _identical(found: Verification) -> list[str]:
    return [
        "Verified: the two models are the same: their signatures, and all"
        f" {found.compared} nodes and constants, bit by bit."
    ]


def _searched(found: Verification) -> list[str]:
    return [
        f"Ran both models at {found.points} points of the domain ({found.domain}), found by chance"
        f" and by gradients: the largest difference is {found.deviation:.3g}, within what is"
        f" allowed ({found.tolerance:.3g}).",
        "Not verified: no larger difference was found, which is no proof. A certificate is one.",
    ]
