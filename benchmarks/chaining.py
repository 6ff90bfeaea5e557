"""This tool before and after others: `python -m benchmarks.chaining [NETWORK...]`.

For each network and tool both orders: is the result still the same function in onnxruntime, which
chains are found, does the model still carry its domain, and what does `verify` say. What came out
goes to `benchmarks/results/chaining.json` after each network, and into the tables of
`docs/chaining.md`. Needs what `benchmarks/tools/chained.py` names.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import onnx_exact
from benchmarks.deciding.cases import ACASXU_BOX, SHARED, Case
from benchmarks.running.processes import RESULTS, machine, now, write_text
from benchmarks.tools.chained import TOOLS, Tool, apply
from benchmarks.training.networks import MODELS
from onnx_exact.api import SettingKeywords
from onnx_exact.domains import DOMAIN_KEY, resolve_domain
from onnx_exact.errors import NotVerifiedError, OnnxExactError, UncheckedError
from onnx_exact.graph.metadata import metadata_of
from onnx_exact.graph.read import inputs_of

PAGE = Path(__file__).parents[1] / "docs" / "chaining.md"
RECORD = RESULTS / "chaining.json"
PACKAGES = (
    *("onnx", "onnxruntime", "onnxslim", "onnxsim", "onnxscript", "onnx-ir", "onnxoptimizer"),
    "numpy",
)
BEFORE, AFTER = "before", "after"
# Points at which outputs are compared: half of them random, half of them corners.
POINTS = 100
# Of the largest output: what two runtimes' rounding may differ by in float32.
ROUNDING = 1e-4
# What may be done before numbers are made coarser; None for nothing.
COARSE: dict[str, SettingKeywords | None] = {
    "nothing": None,
    "onnx-exact": {},
    "onnx-exact --goal size": {"goal": "size"},
    "onnx-exact --reductions published": {"reductions": "published"},
    "onnx-exact --max-deviation 0": {"max_deviation": 0.0},
}
COARSE_CASES = ("mnist_2x100_l1", "mnist_5x100_l1")
# What `verify` may say, and the words that it has for it.
ANSWERS = {
    "no difference found": ("no difference found", "identical"),
    "differ at an input": ("differs by",),
    "operator sets, IR version or inputs differ": (
        "sets differ",
        "versions differ",
        "inputs differ",
    ),
    "not read": ("no model that can be read",),
}

Entry = dict[str, Any]


def cases() -> tuple[Case, ...]:
    """Dense and convolutional networks in several dialects."""
    models = SHARED / "models"
    return (
        Case("mnist_2x100_l1", MODELS / "mnist_2x100_l1.onnx", "0:1"),
        Case("mnist_5x100_l1", MODELS / "mnist_5x100_l1.onnx", "0:1"),
        Case("mnist_relu_9_200", models / "mnist_relu_9_200.onnx", "0:1"),
        Case("ACAS Xu 1_1", models / "ACASXU_run2a_1_1_batch_2000.onnx", ACASXU_BOX),
        Case("mnistcnn_0.1", models / "mnistcnn_0.1.onnx", "0:1"),
        Case("conv_mnist_cnn_l1", models / "conv_mnist_cnn_l1.onnx", "0:1"),
    )


def run_case(case: Case, folder: Path) -> Entry:
    """Everything that is measured of one network."""
    alone = folder / "alone.onnx"
    report = onnx_exact.optimize_file(case.file, alone, domain=case.domain_spec, method="bounds")
    rows = {}
    for number, tool in enumerate(TOOLS):
        rows[tool.name] = {
            order: _row(case, tool, order, alone, folder / f"{number}_{order}")
            for order in (BEFORE, AFTER)
        }
    return {
        "parameters": parameters(case.file),
        "alone": parameters(alone),
        "chains": len(report.chains),
        "units": report.totals.units_before,
        "units_after": report.totals.units_after,
        "difference": compared(case, case.file, alone),
        "rows": rows,
    }


def run_coarse(case: Case, folder: Path) -> Entry:
    """How far off the tools for coarser numbers are, by what was done before."""
    found: Entry = {}
    for number, (words, settings) in enumerate(COARSE.items()):
        source = case.file
        if settings is not None:
            source = folder / f"{number}.onnx"
            given = SettingKeywords(domain=case.domain_spec, method="bounds")
            chosen: SettingKeywords = {**given, **settings}
            onnx_exact.optimize_file(case.file, source, **chosen)
        found[words] = {}
        for tool in TOOLS:
            if not tool.same:
                target = folder / f"{number}_{tool.package}_{len(found[words])}.onnx"
                failed = apply(tool, source, target)
                found[words][tool.name] = None if failed else compared(case, case.file, target)
    return found


def _row(case: Case, tool: Tool, order: str, alone: Path, folder: Path) -> Entry:
    """One tool in one order: what it was given, what came out."""
    folder.mkdir()
    between, last = folder / "between.onnx", folder / "last.onnx"
    if order == BEFORE:
        failed = apply(tool, case.file, between)
        if failed:
            return {"failed": f"{tool.name}: {failed}"}
        try:
            report = onnx_exact.optimize_file(
                between, last, domain=case.domain_spec, method="bounds"
            )
        except OnnxExactError as error:
            return {"failed": str(error)[:200]}
        step = between, last
    else:
        failed = apply(tool, alone, last)
        if failed:
            return {"failed": f"{tool.name}: {failed}"}
        try:
            report = onnx_exact.analyze(last, method="bounds")
        except OnnxExactError as error:
            return {"failed": str(error)[:200]}
        step = alone, last
    return {
        "parameters": parameters(last),
        "chains": len(report.chains),
        "units": report.totals.units_before,
        "units_after": report.totals.units_after,
        "domain": DOMAIN_KEY in metadata_of(onnx.load(last)),
        "difference": compared(case, case.file, last),
        "step_difference": compared(case, *step),
        "verify": verified(case, case.file, last),
    }


def parameters(path: Path) -> int:
    """Entries of all initializers and constants."""
    model = onnx.load(path)
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [a.t for a in node.attribute if node.op_type == "Constant" and a.HasField("t")]
    return sum(int(np.prod(tensor.dims)) for tensor in tensors)


def compared(case: Case, old: Path, new: Path) -> float | None:
    """The largest difference of outputs over the largest output; None where one does not run."""
    try:
        before, after = (outputs(case, path) for path in (old, new))
    except Exception:  # a runtime's own
        return None
    return float(np.abs(before - after).max() / max(np.abs(before).max(), 1e-30))


def outputs(case: Case, path: Path) -> NDArray[np.float64]:
    """All outputs at the points of the case, one after another."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options)
    (spec,) = session.get_inputs()
    box = resolve_domain(case.domain_spec, inputs_of(onnx.load(case.file)), {}).boxes[
        inputs_of(onnx.load(case.file))[0].name
    ]
    rng = np.random.default_rng(1)
    points = [*box.sample(rng, POINTS // 2), *box.corners(rng, POINTS // 2, 0.3)]
    found = []
    for point in points:
        feed = {spec.name: point.astype(np.float32)}
        found += [np.ravel(value).astype(np.float64) for value in session.run(None, feed)]
    return np.concatenate(found)


def verified(case: Case, old: Path, new: Path) -> str:
    """What `verify` says of the two without a certificate, in a word."""
    try:
        found = onnx_exact.verify(old, new, domain=case.domain_spec)
    except UncheckedError as error:
        return f"not checked: {_short(error)}"
    except NotVerifiedError as error:
        return f"refuted: {_short(error)}"
    except OnnxExactError as error:
        return f"refused: {_short(error)}"
    return "no difference found" if found.method == "search" else found.method


def _short(error: Exception) -> str:
    return re.sub(r"/\S*/", "", str(error))[:160]


def markdown(record: Entry) -> str:
    """The tables of the page."""
    lines = [where_measured(record), ""]
    for order, title in (
        (BEFORE, "### The tool first, then onnx-exact"),
        (AFTER, "### onnx-exact first, then the tool"),
    ):
        lines += [title, ""]
        lines += _table(record, order)
    lines += ["### What `verify` says without a certificate", "", *_verdicts(record)]
    lines += ["### Before numbers are made coarser", "", *_coarse(record)]
    return "\n".join(lines).rstrip() + "\n"


def where_measured(record: Entry) -> str:
    """Which versions, in a line."""
    packages = record["machine"]["packages"].items()
    return "Measured with " + ", ".join(f"{name} {version}" for name, version in packages) + "."


def _table(record: Entry, order: str) -> list[str]:
    names = list(record["cases"])
    lines = [
        "| | " + " | ".join(names) + " |",
        "| --- |" + " ---: |" * len(names),
        "| as it was | "
        + " | ".join(f"{record['cases'][n]['parameters']:,}" for n in names)
        + " |",
        "| onnx-exact alone | "
        + " | ".join(f"{record['cases'][n]['alone']:,}" for n in names)
        + " |",
    ]
    for tool in TOOLS:
        cells = [_cell(record["cases"][name]["rows"][tool.name][order], tool) for name in names]
        lines.append(f"| {tool.name} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _verdicts(record: Entry) -> list[str]:
    """How often each answer came, over all networks and both orders."""
    lines = ["| | " + " | ".join(ANSWERS) + " |", "| --- |" + " ---: |" * len(ANSWERS)]
    for tool in TOOLS:
        rows = [
            row
            for case in record["cases"].values()
            for row in case["rows"][tool.name].values()
            if "failed" not in row
        ]
        counts = [
            sum(any(sign in row["verify"] for sign in signs) for row in rows)
            for signs in ANSWERS.values()
        ]
        lines.append(f"| {tool.name} | " + " | ".join(str(count or "") for count in counts) + " |")
    return [*lines, ""]


def _coarse(record: Entry) -> list[str]:
    """How far off coarser numbers are, by what was done before."""
    tools = [tool.name for tool in TOOLS if not tool.same]
    lines = ["| network | first | " + " | ".join(tools) + " |"]
    lines.append("| --- | --- |" + " ---: |" * len(tools))
    for name, settings in record["coarse"].items():
        for words, differences in settings.items():
            cells = [
                "fails" if differences[tool] is None else f"{differences[tool]:.1g}"
                for tool in tools
            ]
            lines.append(f"| {name} | {words} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def _cell(row: Entry, tool: Tool) -> str:
    """Parameters, and whatever is not as one would have it."""
    if "failed" in row:
        return "fails"
    marks = []
    difference = row["difference"]
    if difference is None:
        marks.append("does not run")
    elif not tool.same:
        marks.append(f"off by {difference:.1g}")
    elif difference > ROUNDING:
        marks.append(f"**off by {difference:.1g}**")
    if not row["chains"]:
        marks.append("no chain")
    if not row["domain"]:
        marks.append("no domain")
    if "differs by" in row["verify"]:
        marks.append("refuted")
    return ", ".join([f"{row['parameters']:,}", *marks])


def write_page(record: Entry) -> None:
    """Puts the tables into the page."""
    text = PAGE.read_text(encoding="utf-8")
    begin, end = "<!-- tables -->\n", "<!-- end of tables -->"
    head, rest = text.split(begin)
    tail = rest.split(end)[1]
    write_text(PAGE, f"{head}{begin}{markdown(record)}{end}{tail}")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures the networks that are named, or all, and writes record and page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaining")
    parser.add_argument("network", nargs="*")
    chosen = parser.parse_args(argv).network
    known: Entry = (
        json.loads(RECORD.read_text()) if RECORD.exists() else {"cases": {}, "coarse": {}}
    )
    for case in cases():
        if not case.file.exists() or (chosen and case.name not in chosen):
            continue
        print(case.name, file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            known["cases"][case.name] = run_case(case, Path(folder))
        with tempfile.TemporaryDirectory() as folder:
            if case.name in COARSE_CASES:
                known["coarse"][case.name] = run_coarse(case, Path(folder))
        order = [c.name for c in cases() if c.name in known["cases"]]
        known = {
            "machine": machine(PACKAGES),
            "date": now(),
            "cases": {name: known["cases"][name] for name in order},
            "coarse": known["coarse"],
        }
        write_text(RECORD, json.dumps(known, indent=1) + "\n")
    write_page(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
