"""ONNX's own test models through `optimize`: `python -m benchmarks.backend`.

Every model of onnx.backend.test (one an operator and its variants, and those that come as
files) is optimized without a declared domain; where onnxruntime runs it at the test's own inputs,
it has to run the result to the same outputs. Refusals in one line are counted, anything else is a
finding. The record is `benchmarks/results/backend.json`.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from benchmarks.running.processes import RESULTS, machine, now, write_text
from onnx_exact.errors import OnnxExactError
from onnx_exact.pipeline import optimize

PACKAGES = ("onnx", "onnxruntime", "numpy")
# Of outputs that another order of summing may have.
RTOL, ATOL = 1e-4, 1e-5
Case = tuple[str, ModelProto, list[Sequence[Any]]]


def cases() -> Iterator[Case]:
    """Name, model, and the inputs of each of its data sets."""
    from onnx.backend.test.case import node

    collected: Any = node
    for case in collected.collect_testcases():
        yield case.name, case.model, [inputs for inputs, _ in case.data_sets or []]
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted(data.glob("*/*/model.onnx")):
        if path.parent.parent.name != "node":
            sets = [_stored(folder) for folder in sorted(path.parent.glob("test_data_set_*"))]
            yield f"{path.parent.parent.name}/{path.parent.name}", onnx.load(path), sets


def _stored(folder: Path) -> Sequence[Any]:
    files = sorted(folder.glob("input_*.pb"), key=lambda path: int(path.stem.split("_")[1]))
    return [numpy_helper.to_array(onnx.TensorProto.FromString(f.read_bytes())) for f in files]


def outputs(model: ModelProto, inputs: Sequence[Any]) -> list[Any] | None:
    """What onnxruntime makes of the inputs; None where it cannot run the model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = [value for value in inputs if value is not None]
        feeds = dict(zip([v.name for v in session.get_inputs()], given, strict=True))
        return list(session.run(None, feeds))
    except Exception:  # of any kind: a type or operator that it does not have
        return None


def same(first: Any, second: Any) -> bool:
    """Whether two outputs agree: arrays, or sequences and maps of them."""
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    if not isinstance(first, np.ndarray) or first.dtype.kind not in "fc":
        return bool(np.array_equal(first, second))
    return bool(
        first.dtype == second.dtype
        and first.shape == second.shape
        and np.allclose(first, second, rtol=RTOL, atol=ATOL, equal_nan=True)
    )


def attacked(name: str, model: ModelProto, sets: Sequence[Sequence[Any]]) -> tuple[str, str]:
    """What became of one model, and a finding in words, empty for none."""
    try:
        new, report = optimize(model)
    except OnnxExactError:
        return "refused", ""
    except Exception:
        return "finding", f"{name}: {traceback.format_exc(limit=-2)}"
    ran = False
    for inputs in sets:
        before = outputs(model, inputs)
        if before is None:
            continue
        ran = True
        after = outputs(new, inputs)
        if after is None or not same(before, after):
            return "finding", f"{name}: other outputs"
    return "changed" if report.changed else "same" if ran else "not run", ""


def main(argv: Sequence[str] | None = None) -> int:
    """Tries all of them; 1 where anything is wrong."""
    del argv
    counts: Counter[str] = Counter()
    findings = []
    for name, model, sets in cases():
        outcome, what = attacked(name, model, sets)
        counts[outcome] += 1
        if what:
            findings.append(what)
            print(what, file=sys.stderr, flush=True)
    found = {"machine": machine(PACKAGES), "date": now(), **counts, "findings": findings}
    write_text(RESULTS / "backend.json", json.dumps(found, indent=1) + "\n")
    print(dict(counts))
    return int(bool(findings))


if __name__ == "__main__":
    sys.exit(main())
