"""The pass for Olive in workflows of Olive: `python -m benchmarks.olive`.

Olive comes with gigabytes of other packages, so that the tests go without it where it is missing;
this job needs it (`pip install '.[olive]' onnxoptimizer`). Each row is one workflow on an MNIST
network of `models/`; what came out goes to `benchmarks/results/olive.json`, and to `olive.md`.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.deciding.tables import where
from benchmarks.running.processes import RESULTS, machine, now, write_text
from benchmarks.training.networks import MODELS
from onnx_exact.domains import DOMAIN_KEY
from onnx_exact.graph.metadata import metadata_of
from onnx_exact.graph.read import external_files

NETWORK = MODELS / "mnist_2x100_l1.onnx"
PAGE = Path(__file__).parents[1] / "docs" / "integrations.md"
PACKAGES = ("olive-ai", "onnx", "onnxruntime", "onnxscript", "onnxoptimizer", "numpy")
EXACT = {"type": "OnnxExactCompression", "domain": "0:1"}
PEEPHOLE = {"type": "OnnxPeepholeOptimizer"}
EXTERNAL = {"save_as_external_data": True, "size_threshold": 0}
WORKFLOWS: dict[str, dict[str, dict[str, Any]]] = {
    "alone": {"exact": EXACT},
    "behind OnnxPeepholeOptimizer": {"peephole": PEEPHOLE, "exact": EXACT},
    "in front of OnnxPeepholeOptimizer": {"exact": EXACT, "peephole": PEEPHOLE},
    "twice": {"exact": EXACT, "again": {"type": "OnnxExactCompression"}},
    "in front of OnnxFloatToFloat16": {"exact": EXACT, "half": {"type": "OnnxFloatToFloat16"}},
    "in front of OnnxDynamicQuantization": {
        "exact": EXACT,
        "int8": {"type": "OnnxDynamicQuantization"},
    },
    "weights in external files": {"exact": EXACT | EXTERNAL},
    "external files in and out": {
        "peephole": PEEPHOLE | EXTERNAL,
        "exact": EXACT | EXTERNAL,
    },
}
UNFIT = {"exact": EXACT | {"domain": "nothing=0:1"}}
UNFIT_SAID = "Olive puts the error of the pass into its log"

Entry = dict[str, Any]


def run_workflow(passes: dict[str, dict[str, Any]], folder: Path) -> Path | None:
    """The model that a workflow on the network gives, None if it gives none."""
    from olive.workflows import run

    from onnx_exact.integrations.olive import package_config

    done = run(
        {
            "input_model": {"type": "ONNXModel", "model_path": str(NETWORK)},
            "passes": passes,
            "output_dir": str(folder / "out"),
            "cache_dir": str(folder / "cache"),
            "log_severity_level": 3,
        },
        package_config=package_config(),
    )
    models = done.get_output_models()
    if not models:
        return None
    path = Path(models[0].model_path)
    return path if path.is_file() else next(path.glob("*.onnx"))


def measure(passes: dict[str, dict[str, Any]], folder: Path) -> Entry:
    """What a workflow makes of the network."""
    path = run_workflow(passes, folder)
    if path is None:
        return {"model": False}
    model = onnx.load(path)
    return {
        "model": True,
        "parameters": parameters(model),
        "domain": DOMAIN_KEY in metadata_of(model),
        "difference": difference(path),
        "external": bool(external_files(onnx.load(path, load_external_data=False))),
    }


def parameters(model: onnx.ModelProto) -> int:
    """Entries of all initializers."""
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)


def difference(path: Path, points: int = 200) -> float:
    """The largest difference from the network's own outputs at random points, in onnxruntime."""
    import onnxruntime

    rng = np.random.default_rng(0)
    sessions = [onnxruntime.InferenceSession(file) for file in (NETWORK, path)]
    (spec,) = sessions[0].get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in spec.shape]
    worst = 0.0
    for _ in range(points):
        x = rng.random(shape).astype(np.float32)
        feeds = [{s.get_inputs()[0].name: x.astype(_dtype(s))} for s in sessions]
        old, new = (s.run(None, f)[0] for s, f in zip(sessions, feeds, strict=True))
        worst = max(worst, float(np.abs(old.astype(np.float64) - new).max()))
    return worst


def _dtype(session: Any) -> type[np.floating[Any]]:
    return np.float16 if "float16" in session.get_inputs()[0].type else np.float32


def page_runs(folder: Path) -> bool:
    """Whether the page's own code gives a model."""
    (code,) = re.findall(
        r"^<!-- python olive -->\n```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S
    )
    (folder / "in.onnx").write_bytes(NETWORK.read_bytes())
    before = Path.cwd()
    os.chdir(folder)
    try:
        exec(compile(code, str(PAGE), "exec"), {})
    finally:
        os.chdir(before)
    return any((folder / "out").rglob("*.onnx"))


def markdown(results: Entry) -> str:
    """The record as a table."""
    lines = [
        "# The pass for Olive in Olive's workflows",
        "",
        "Written by `python -m benchmarks.olive`.",
        where(results["machine"]),
        "",
        f"On `{NETWORK.name}`, which has {results['parameters']:,} parameters. Difference: the",
        "largest of any output at 200 random points, in onnxruntime.",
        "",
        "| workflow | parameters | carries its domain | in external files | difference |",
        "| --- | ---: | --- | --- | ---: |",
    ]
    for name, row in results["rows"].items():
        if row["model"]:
            cells = [name, f"{row['parameters']:,}"]
            cells += ["yes" if row[key] else "no" for key in ("domain", "external")]
            lines.append(f"| {' | '.join(cells)} | {row['difference']:.2g} |")
        else:
            lines.append(f"| {name} | no model | | | |")
    unfit = "no model came out" if not results["unfit"]["model"] else "a model came out"
    lines += [
        "",
        f"With a domain that does not fit: {unfit}: {results['unfit']['said']}",
        "",
        f"The code of docs/integrations.md: {'runs' if results['page'] else 'FAILS'}.",
        "",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs all workflows and writes the record."""
    del argv
    os.environ.setdefault("OLIVE_DISABLE_TELEMETRY", "1")
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number, (title, passes) in enumerate(WORKFLOWS.items()):
            folder = root / str(number)
            folder.mkdir()
            rows[title] = measure(passes, folder)
            print(title, rows[title], file=sys.stderr)
        folder = root / "unfit"
        folder.mkdir()
        try:
            unfit = measure(UNFIT, folder) | {
                "said": "Olive puts the error of the pass into its log"
            }
        except Exception as error:  # whatever Olive makes of the pass's error
            unfit = {"model": False, "said": " ".join(str(error).split())[:300]}
        folder = root / "page"
        folder.mkdir()
        results = {
            "machine": machine(PACKAGES),
            "date": now(),
            "parameters": parameters(onnx.load(NETWORK)),
            "rows": rows,
            "unfit": unfit,
            "page": page_runs(folder),
        }
    write_text(RESULTS / "olive.json", json.dumps(results, indent=1) + "\n")
    write_text(RESULTS / "olive.md", markdown(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
