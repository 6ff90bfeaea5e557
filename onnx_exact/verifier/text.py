"""What was checked, as text for people."""

from __future__ import annotations

from decimal import ROUND_CEILING, Context
from textwrap import fill

from onnx_exact.verifier.balls import Balls
from onnx_exact.verifier.batches import Batches
from onnx_exact.verifier.certificate import (
    ACTIVE,
    BOUNDS,
    INACTIVE,
    SLOPES,
    SOLVER,
    TREE,
    UNDECIDED,
    UNSHOWN,
    UNSTABLE,
    WITNESS,
)
from onnx_exact.verifier.check import ChainCheck, Verification

WIDTH = 100
PROOFS = (
    (BOUNDS, "intervals and linear bounds"),
    (SLOPES, "linear bounds with slopes"),
    (TREE, "branching"),
    (SOLVER, "a solver (not checked)"),
    (WITNESS, "witnesses"),
    (UNSHOWN, "nothing (claimed only)"),
)
VERDICTS = ((INACTIVE, "inactive"), (ACTIVE, "active"), (UNSTABLE, "unstable"))


def to_text(found: Verification) -> str:
    """The report of `verify`."""
    lines = [line for chain in found.chains for line in _chain(chain)]
    if found.method == "certificate":
        lines += _certified(found)
    else:
        lines += _tested(found)
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
    whole = found.count(BOUNDS, SLOPES)
    where = "outputs" if found.output_deviation else "outputs of the chains"
    lines = [
        f"Checked in {Balls.name}: {whole} verdicts by bounds, {points} witnesses, the map to the"
        " new units.",
    ]
    if trees:
        lines.append(f"Trees checked in {Batches.name}: {trees}, with {leaves} leaves.")
    lines += [
        f"Compared bit by bit: signature, and {found.compared} nodes and constants outside of the"
        " chains.",
        f"Verdicts that rest on a solver: {found.solver_claims}.",
        f"Certified over the domain ({found.domain}): in real arithmetic, with the weights as"
        f" stored, no value of the {where} differs by more than {_above(found.deviation)}.",
    ]
    if found.solver_claims:
        lines[-1] += " This is so if the solver's verdicts are right."
    return lines


def _above(value: float) -> str:
    """A number in three digits, rounded upward."""
    return f"{float(Context(prec=3, rounding=ROUND_CEILING).create_decimal(value)):.3g}"


def _tested(found: Verification) -> list[str]:
    tested = (
        f"Ran both models at {found.points} points of the domain ({found.domain}), found by chance"
        f" and by gradients: the largest difference is {found.deviation:.3g}, within the rounding"
        f" allowed ({found.tolerance:.3g})."
    )
    if found.method == "program":
        return [
            tested,
            f"Proved by mixed-integer programs, within the tolerance of SCIP: no output differs by"
            f" more than {found.tolerance:.3g} anywhere in the domain.",
        ]
    return [tested, "Not a proof: no difference was found. A certificate would be one."]
