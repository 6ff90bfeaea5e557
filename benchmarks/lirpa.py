"""Bounds of step 1 against CROWN in auto_LiRPA: stable units by layer, and time.

`python -m benchmarks.lirpa [CASE...]` needs `pip install torch==2.13.0` and, as the published
release asks for libraries of its time, `pip install --no-deps auto-LiRPA appdirs pyyaml tqdm`. Both
sides use one thread; the least time of the processor in several runs counts.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.deciding.cases import Case, cases
from benchmarks.deciding.tables import new_table, section, where
from benchmarks.measure import load
from benchmarks.running.processes import RESULTS, machine
from benchmarks.training.data import BenchmarkError
from onnx_exact.attack.samples import first_points
from onnx_exact.decide.knowledge import Knowledge
from onnx_exact.decide.propagate import Layers
from onnx_exact.network.chain import Chain
from onnx_exact.network.domain import Box

NAMES = (
    *("mnist_2x100_l1", "mnist_2x400_l1", "mnist_5x100_l1"),
    *("cifar10_2x100_l1", "cifar10_2x400_l1", "cifar10_5x100_l1"),
    *("serra_cifar10", "serra_cifar100", "serra_mnist", "mnist-net_256x2"),
    *("mnist-net_256x4", "mnist_relu_9_200"),
)
RUNS = 20
PACKAGES = ("auto_LiRPA", "numpy", "torch")
# Inactive and active units of each layer.
Counts = list[list[int]]


def our_bounds(chain: Chain, box: Box) -> Callable[[], Counts]:
    """A function that counts the stable units by the first bounds on each layer, and no more.

    As in every run, the signs that the first points show are known beforehand: ties of units that
    show neither would be settled in rationals, which takes longer than all bounds.
    """
    knowledge = Knowledge(chain, box)
    for points in first_points(chain.layers[0].affine, box, seed=0):
        knowledge.show(points)
    layers = Layers(knowledge)

    def run() -> Counts:
        for index in range(len(chain.layers)):
            layers.bound(index)
            layers.relax(index)
        return [
            [int((knowledge.upper[i] <= 0.0).sum()), int((knowledge.lower[i] >= 0.0).sum())]
            for i in knowledge.relu_layers
        ]

    return run


def crown_bounds(chain: Chain, box: Box) -> Callable[[], list[tuple[Any, Any]]]:
    """A function that bounds every ReLU layer with CROWN in auto_LiRPA; compiled beforehand.

    Returns:
        Lower and upper bounds of each layer, in float32 and not beyond doubt, shape (units,).
    """
    import torch

    lirpa: Any = importlib.import_module("auto_LiRPA")

    torch.set_num_threads(1)
    low, high = (torch.tensor(side, dtype=torch.float32)[None] for side in (box.lower, box.upper))
    model = lirpa.BoundedModule(_module(chain), low)
    region = lirpa.PerturbationLpNorm(norm=np.inf, x_L=low, x_U=high)

    def run() -> list[tuple[Any, Any]]:
        with torch.no_grad():
            model.compute_bounds(x=(lirpa.BoundedTensor(low, region),), method="CROWN")
        found = [node.inputs[0] for node in model.modules() if type(node).__name__ == "BoundRelu"]
        return [(node.lower[0].numpy(), node.upper[0].numpy()) for node in found]

    return run


def their_bounds(chain: Chain, box: Box) -> Callable[[], Counts]:
    """A function that counts the stable units by those bounds."""
    bound = crown_bounds(chain, box)
    return lambda: [[int((up <= 0.0).sum()), int((low >= 0.0).sum())] for low, up in bound()]


def _module(chain: Chain) -> Any:
    """The chain in PyTorch, float32."""
    import torch

    parts: list[Any] = []
    for layer in chain.layers:
        linear = torch.nn.Linear(layer.affine.n_in, layer.affine.n_out)
        linear.weight.data = torch.tensor(layer.affine.weight, dtype=torch.float32)
        linear.bias.data = torch.tensor(layer.affine.bias, dtype=torch.float32)
        parts += [linear, torch.nn.ReLU()] if layer.relu else [linear]
    return torch.nn.Sequential(*parts)


def make_importable() -> None:
    """Gives the published release what newer libraries call otherwise.

    Raises:
        BenchmarkError: it still cannot be imported.
    """
    warnings.filterwarnings("ignore")
    # Moved in numpy 2.
    moved = types.ModuleType("numpy.lib.arraysetops")
    moved.isin = np.isin  # type: ignore[attr-defined]
    sys.modules.setdefault(moved.__name__, moved)
    try:
        import torch
        from torch.onnx._internal.torchscript_exporter._globals import GLOBALS

        def set_opset(version: int) -> None:
            GLOBALS.export_onnx_opset_version = version

        # Both were part of PyTorch until 2.0.
        helper: Any = importlib.import_module("torch.onnx.symbolic_helper")
        helper._set_opset_version = set_opset
        torch._C.Node.__getitem__ = lambda node, key: getattr(node, node.kindOf(key))(key)
        importlib.import_module("auto_LiRPA")
    except ImportError as error:
        raise BenchmarkError(
            f"auto_LiRPA cannot be imported ({error}): pip install torch==2.13.0, and then"
            " pip install --no-deps auto-LiRPA appdirs pyyaml tqdm"
        ) from error


def compare(case: Case) -> dict[str, Any]:
    """Stable units and best times of both sides on one case."""
    chain, box = load(case)
    their_run = their_bounds(chain, box)
    with threadpool_limits(limits=1):
        ours, our_seconds = _timed(lambda: our_bounds(chain, box))
        theirs, their_seconds = _timed(lambda: their_run)
    return {
        "network": case.file.name,
        "load": round(os.getloadavg()[0], 2),
        "ours": ours,
        "theirs": theirs,
        "as_many": bool((np.array(ours) >= np.array(theirs)).all()),
        "our_seconds": our_seconds,
        "their_seconds": their_seconds,
        "times": round(our_seconds / their_seconds, 2),
    }


def _timed(prepare: Callable[[], Callable[[], Counts]]) -> tuple[Counts, float]:
    """What the function that `prepare` returns, prepared anew each time, gives, and the best time.

    Only the function itself is timed.
    """
    seconds = []
    for _ in range(RUNS):
        run = prepare()
        begin = time.process_time()
        counts = run()
        seconds.append(time.process_time() - begin)
    return counts, round(min(seconds), 4)


def _write(rows: dict[str, Any]) -> None:
    """The results as JSON and as a table in Markdown."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(PACKAGES), "rows": rows}
    (RESULTS / "lirpa.json").write_text(json.dumps(results, indent=1) + "\n")
    table = new_table(("case",), ("ours", "theirs", "our seconds", "their seconds", "times"))
    for name, row in rows.items():
        counts = (" ".join(f"{i}/{a}" for i, a in row[side]) for side in ("ours", "theirs"))
        seconds = (f"{row[side]:.3f}" for side in ("our_seconds", "their_seconds"))
        table.add_row(name, *counts, *seconds, f"{row['times']:.1f}")
    words = (
        "Units that the first bounds hold inactive/active, layer by layer, and CROWN of auto_LiRPA"
        f" in float32; one thread, the least time of the processor in {RUNS} runs."
    )
    parts = [*section("# Bounds against auto_LiRPA", table)]
    parts[1:1] = [
        "Written by `python -m benchmarks.lirpa`; not to be edited.",
        where(results["machine"]),
        words,
    ]
    (RESULTS / "lirpa.md").write_text("\n\n".join(parts) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where auto_LiRPA holds more units stable."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lirpa", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="*", default=list(NAMES), metavar="CASE")
    names = parser.parse_args(argv).cases
    try:
        make_importable()
    except BenchmarkError as error:
        print(f"benchmarks.lirpa: {error}", file=sys.stderr)
        return 2
    rows = {}
    for case in cases():
        if case.name in names and case.present:
            rows[case.name] = compare(case)
            print(case.name, json.dumps(rows[case.name]), flush=True)
    _write(rows)
    return 0 if all(row["as_many"] for row in rows.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
