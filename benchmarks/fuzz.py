"""An attack on the whole tool with random graphs and with files that were tampered with.

`python -m benchmarks.fuzz` goes on where it stopped, until it has run as many graphs and files as
are asked for, and prints what it found. Every graph and file follows from its number alone, so that
`--only N` repeats one. The record, one line a hundred, is `benchmarks/results/fuzz.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

import onnx_exact
from benchmarks.fuzzing.channels import random_channels
from benchmarks.fuzzing.compare import Inputs, first_difference, first_loss, session
from benchmarks.fuzzing.files import attack_file
from benchmarks.fuzzing.graphs import random_graph
from benchmarks.fuzzing.operators import OPERATORS
from benchmarks.fuzzing.spellings import respelled
from benchmarks.fuzzing.tensors import Array, Graph, Tensor
from onnx_exact.errors import OnnxExactError
from onnx_exact.pipeline import optimize, optimize_file

RECORD = Path(__file__).parent / "results" / "fuzz.jsonl"
# Graphs, or files, that one line of the record is about.
BLOCK = 100
# Graphs that are made until onnxruntime runs one.
TRIES = 20
# Every so many graphs go through a certificate and `verify` as well.
VERIFIED = 4
SECONDS = 20.0


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: the number that repeats it, the kind, and what was seen."""

    number: int
    kind: str
    what: str


@dataclass
class Block:
    """What one block of numbers came to."""

    kind: str
    start: int
    done: int = 0
    changed: int = 0
    verified: int = 0
    unchecked: int = 0
    refused: int = 0
    operators: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def main(argv: list[str] | None = None) -> int:
    """Runs the attack; 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__)
    parser.add_argument("--graphs", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--files", type=int, default=2_000, help="default: %(default)s")
    parser.add_argument(
        "--spellings", type=int, default=5_000, help="graphs in other spellings (default: 5000)"
    )
    parser.add_argument(
        "--channels", type=int, default=5_000, help="convolutional graphs (default: 5000)"
    )
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--only", type=int, help="repeat the graph of this number and show it")
    parser.add_argument("--only-file", type=int, help="repeat the file of this number")
    parser.add_argument("--only-spelling", type=int, help="repeat the spelling of this number")
    parser.add_argument("--only-channels", type=int, help="repeat the graph of this number")
    arguments = parser.parse_args(argv)
    repeated = {
        "graphs": arguments.only,
        "files": arguments.only_file,
        "spellings": arguments.only_spelling,
        "channels": arguments.only_channels,
    }
    for kind, number in repeated.items():
        if number is not None:
            return _repeat(kind, number)
    done = {(b["kind"], b["start"]) for b in read_record(arguments.record)}
    asked = {
        "graphs": arguments.graphs,
        "files": arguments.files,
        "spellings": arguments.spellings,
        "channels": arguments.channels,
    }
    for kind, wanted in asked.items():
        for start in range(0, wanted, BLOCK):
            if (kind, start) not in done:
                began = time.process_time()
                block = run_block(kind, start, min(BLOCK, wanted - start))
                seconds = time.process_time() - began
                if block.done == BLOCK:
                    with arguments.record.open("a") as file:
                        file.write(json.dumps(asdict(block)) + "\n")
                print(_line(block, seconds), file=sys.stderr, flush=True)
    print(summary(read_record(arguments.record)))
    return int(any(b["findings"] for b in read_record(arguments.record)))


def read_record(path: Path) -> list[dict[str, Any]]:
    """The blocks of a record that is there, none of one that is not."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def summary(blocks: list[dict[str, Any]]) -> str:
    """The record in a few lines, its findings one by one."""
    lines = []
    for kind in ("graphs", "files", "spellings", "channels"):
        of = [b for b in blocks if b["kind"] == kind]
        total = Counter[str]()
        for b in of:
            for name in ("done", "changed", "verified", "unchecked", "refused"):
                total[name] += b[name]
        operators = {name for b in of for name in b["operators"]}
        text = f"{kind}: {total['done']:,} tried, {total['changed']:,} made smaller"
        text += f", {total['refused']:,} refused in one line"
        if kind != "files":
            text += f", {total['verified']:,} verified by certificate"
            text += f" ({total['unchecked']:,} more have no certificate)"
            text += f", {len(operators)} operators"
        lines.append(text)
    found = [f for b in blocks for f in b["findings"]]
    lines.append(f"findings: {len(found)}")
    lines += [f"  {f['number']}: {f['kind']}: {f['what']}" for f in found]
    return "\n".join(lines)


def run_block(kind: str, start: int, count: int) -> Block:
    """The graphs or files with the numbers from `start` on."""
    block = Block(kind, start)
    operators: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        for number in range(start, start + count):
            if kind != "files":
                found = attack_graph(number, block, operators, Path(folder))
            else:
                outcome, what = attack_file(number, Path(folder))
                found = [] if outcome in ("refused", "done") else [(outcome, what)]
                block.refused += outcome == "refused"
                block.changed += outcome == "done"
            block.findings += [Finding(number, kind_, what) for kind_, what in found]
            block.done += 1
    block.operators = sorted(operators)
    return block


def graph_of(number: int, kind: str) -> tuple[ModelProto, Graph]:
    """The first runnable graph of a number: as it grew, in other spellings, or convolutional."""
    for attempt in range(TRIES):
        seed = number + attempt * 10_000_000
        try:
            if kind == "channels":
                model, graph = random_channels(seed)
            else:
                model, graph = random_graph(seed, OPERATORS)
                model = respelled(model, seed) if kind == "spellings" else model
            session(model)
            session(model, optimized=True)
        except Exception:
            # The runtime lacks a kernel for the type, or one of its own rewrites fails.
            continue
        return model, graph
    raise RuntimeError(f"no graph of number {number} runs")


def domain_of(
    model: ModelProto, tensors: Sequence[Tensor], rng: np.random.Generator
) -> dict[str, tuple[Array, Array]]:
    """A random box for every input."""
    boxes = {}
    declared = {v.name: v.type.tensor_type.shape.dim for v in model.graph.input}
    for tensor in tensors:
        sizes = [size or 1 for size in tensor.shape]
        kind = rng.random()
        if kind < 0.4:
            low, high = np.zeros(sizes), np.ones(sizes)
        elif kind < 0.6:
            low, high = -np.ones(sizes), np.ones(sizes)
        else:
            low = rng.uniform(-1, 1, sizes)
            high = low + rng.uniform(0, 1, sizes) * (rng.random(sizes) < 0.8)
        # What rounds to a number of the input's type on both sides.
        low, high = (np.asarray(side, np.float16).astype(np.float64) for side in (low, high))
        if any(not dim.dim_value for dim in declared[tensor.name][1:]):
            # Where the file does not say how many entries there are, all have the same bounds.
            low, high = np.array(low.min()), np.array(high.max())
        boxes[tensor.name] = (low, high)
    return boxes


def options_of(rng: np.random.Generator) -> dict[str, Any]:
    """Random settings, mostly the default ones."""
    options: dict[str, Any] = {"time_limit": SECONDS, "seed": int(rng.integers(10))}
    if rng.random() < 0.2:
        options["max_deviation"] = 0.0
    if rng.random() < 0.2:
        options["reductions"] = "published"
    elif rng.random() < 0.15:
        options["goal"] = "size"
    if rng.random() < 0.3:
        options["method"] = "bounds"
    return options


def attack_graph(
    number: int, block: Block, operators: set[str], folder: Path
) -> list[tuple[str, str]]:
    """What is wrong with the result for one graph."""
    rng = np.random.default_rng([number, 1])
    old, graph = graph_of(number, block.kind)
    operators |= {node.op_type for node in old.graph.node}
    inputs = graph.live[: len(graph.inputs)]
    boxes = domain_of(old, inputs, rng)
    options = options_of(rng)
    kept = old.SerializeToString(deterministic=True)
    try:
        new, report = optimize(old, domain=boxes, **options)
    except OnnxExactError as error:
        return [("refused", f"{type(error).__name__}: {error}")]
    except Exception:
        return [("traceback", traceback.format_exc(limit=-3))]
    if old.SerializeToString(deterministic=True) != kept:
        return [("touched", "the model that was given is another one now")]
    block.changed += report.changed
    found = list(_judged(old, new, report, Inputs(inputs, boxes, rng), rng))
    if number % VERIFIED == 0 and "goal" not in options:
        found += _verified(old, boxes, options, block, folder)
    return found


def _judged(
    old: ModelProto,
    new: ModelProto,
    report: onnx_exact.Report,
    inputs: Inputs,
    rng: np.random.Generator,
) -> Iterator[tuple[str, str]]:
    nodes = {name for chain in report.chains for name in chain.nodes}
    if report.parameters is not None:
        # Constants of any node may have been cut.
        nodes |= {name for node in old.graph.node for name in (node.name, *node.output)}
    loss = first_loss(old, new, nodes if report.changed else set())
    if loss is not None:
        yield "lost", loss
    totals = report.totals
    if (totals.units_after or 0) > totals.units_before:
        yield "larger", f"{totals.units_before} to {totals.units_after} units"
    if report.changed:
        try:
            gap = first_difference(old, new, inputs, rng)
        except Exception as error:
            yield "fails", " ".join(str(error).split())[:200]
            return
        if gap is not None:
            yield "wrong", f"{gap.output!r} differs by {gap.found:.3g} units, not {gap.allowed:.3g}"


def _verified(
    old: ModelProto,
    boxes: dict[str, tuple[Array, Array]],
    options: dict[str, Any],
    block: Block,
    folder: Path,
) -> list[tuple[str, str]]:
    """The same by way of files, with a certificate that has to pass the checker."""
    files = [folder / name for name in ("old.onnx", "new.onnx", "proof.npz")]
    files[0].write_bytes(old.SerializeToString())
    written = False
    try:
        optimize_file(*files[:2], domain=boxes, certificate=files[2], **options)
        written = True
        onnx_exact.verify(files[0], files[1], files[2])
    except OnnxExactError as error:
        if written:
            return [("not verified", str(error))]
        # There is no certificate without a bound on the deviation.
        block.unchecked += 1
        return []
    except Exception:
        return [("traceback", traceback.format_exc(limit=-3))]
    finally:
        for file in folder.iterdir():
            file.unlink()
    block.verified += 1
    return []


def _repeat(kind: str, number: int) -> int:
    """One graph or file again, with all that was found."""
    block = run_block(kind, number, 1)
    print(json.dumps(asdict(block), indent=1))
    return int(bool(block.findings))


def _line(block: Block, seconds: float) -> str:
    return (
        f"{block.kind} {block.start}: {block.done / max(seconds, 1e-9):.1f} a second,"
        f" {len(block.findings)} findings"
    )


if __name__ == "__main__":
    sys.exit(main())
