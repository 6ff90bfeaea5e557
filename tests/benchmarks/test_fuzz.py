"""A small part of the attack with random graphs and files; and the attack finds what is wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from benchmarks import fuzz
from benchmarks.fuzzing import files as fuzz_files
from benchmarks.fuzzing.files import tampered
from benchmarks.fuzzing.graphs import random_graph
from benchmarks.fuzzing.operators import OPERATORS
from onnx_exact.pipeline import optimize

GRAPHS, FILES = 60, 120


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, GRAPHS, 20))
def test_nothing_is_wrong_with_random_graphs(start: int) -> None:
    block = fuzz.run_block("graphs", start, 20)
    assert block.findings == []
    assert block.changed > 0


@pytest.mark.slow
def test_nothing_is_wrong_with_graphs_in_other_spellings() -> None:
    block = fuzz.run_block("spellings", 300, 20)
    assert block.findings == []
    assert block.changed > 0
    assert {"DequantizeLinear", "FusedGemm", "PRelu", "Cast"} <= set(block.operators)


@pytest.mark.slow
def test_nothing_is_wrong_with_convolutional_graphs() -> None:
    block = fuzz.run_block("channels", 200, 60)
    assert block.findings == []
    assert block.changed > 20
    assert {"ConvTranspose", "BatchNormalization", "Split", "Concat"} <= set(block.operators)


@pytest.mark.slow
def test_nothing_is_wrong_with_files_that_were_tampered_with() -> None:
    block = fuzz.run_block("files", 100, FILES)
    assert block.findings == []
    assert block.refused > 0
    assert block.changed > 0


def test_graphs_hold_at_least_sixty_operators() -> None:
    operators = {name for seed in range(200) for name in random_graph(seed, OPERATORS)[1].operators}
    assert len(operators) >= 60
    assert {"If", "Cast", "Gemm", "MatMul", "Conv", "Split", "Where", "ArgMax"} <= operators


def test_graphs_are_of_all_types_and_oddities() -> None:
    models = [random_graph(seed, OPERATORS)[0] for seed in range(120)]
    kinds = {v.type.tensor_type.elem_type for m in models for v in m.graph.input}
    assert kinds == {1, 10, 11}
    sizes = {
        d.dim_value for m in models for v in m.graph.input for d in v.type.tensor_type.shape.dim
    }
    assert {-1, 0, 1, 2, 3} <= sizes
    assert any(m.graph.quantization_annotation for m in models)
    shared = (
        any(
            sum(node.input[1:2] == [name] for node in m.graph.node) > 1
            for name in (t.name for t in m.graph.initializer if len(t.dims) == 2)
        )
        for m in models
    )
    assert any(shared)


def test_number_says_what_is_run() -> None:
    for number in range(3):
        first, second = (
            fuzz.graph_of(number, "graphs")[0].SerializeToString(deterministic=True)
            for _ in range(2)
        )
        assert first == second
        files = [tampered(np.random.default_rng([number, 2])) for _ in range(2)]
        assert files[0] == files[1]


# -- what is wrong is found --


def lying(change: Callable[[ModelProto], None]) -> Callable[..., Any]:
    """`optimize`, with a result that is changed once more."""

    def run(model: ModelProto, **options: Any) -> Any:
        new, report = optimize(model, **options)
        if report.changed:
            change(new)
        return new, report

    return run


def scale_a_weight(model: ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == 1 and len(tensor.dims) == 2:
            array = numpy_helper.to_array(tensor) * np.float32(1.01) + np.float32(0.01)
            tensor.raw_data = array.tobytes()


def drop_words(model: ModelProto) -> None:
    for item in (*model.graph.initializer, *model.graph.node):
        item.ClearField("doc_string")


def drop_metadata(model: ModelProto) -> None:
    model.ClearField("metadata_props")


def rename_output(model: ModelProto) -> None:
    model.graph.output[0].name = "other"


def raise_version(model: ModelProto) -> None:
    model.ir_version += 1


def fail(model: ModelProto) -> None:
    raise ValueError("a defect")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (scale_a_weight, "wrong"),
        (drop_words, "lost"),
        (drop_metadata, "lost"),
        (rename_output, "lost"),
        (raise_version, "lost"),
        (fail, "traceback"),
    ],
)
def test_lie_is_found(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[ModelProto], None], kind: str
) -> None:
    monkeypatch.setattr(fuzz, "optimize", lying(change))
    monkeypatch.setattr(fuzz, "VERIFIED", 10**9)
    block = fuzz.run_block("graphs", 0, 10)
    assert kind in {finding.kind for finding in block.findings}


def test_traceback_and_what_is_left_behind_are_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def careless(source: Path, target: Path, **_: Any) -> None:
        target.with_name("rest.tmp").touch()

    def broken(source: Path, target: Path, **_: Any) -> None:
        raise KeyError("a defect")

    for wrong, kind in ((careless, "left behind"), (broken, "traceback")):
        monkeypatch.setattr(fuzz_files, "optimize_file", wrong)
        assert fuzz_files.attack_file(0, tmp_path)[0] == kind
        assert list(tmp_path.iterdir()) == []


# -- the record --


def test_attack_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.jsonl"
    run: list[tuple[str, int]] = []

    def block(kind: str, start: int, count: int) -> fuzz.Block:
        run.append((kind, start))
        wrong = [fuzz.Finding(start, "wrong", "y")] if start == 200 else []
        return fuzz.Block(kind, start, count, operators=["Gemm"], findings=wrong)

    monkeypatch.setattr(fuzz, "run_block", block)
    arguments = ["--record", str(record), "--files", "100", "--spellings", "0"]
    arguments += ["--channels", "0", "--graphs"]
    assert fuzz.main([*arguments, "200"]) == 0
    assert run == [("graphs", 0), ("graphs", 100), ("files", 0)]
    run.clear()
    assert fuzz.main([*arguments, "300"]) == 1
    assert run == [("graphs", 200)]
    text = capsys.readouterr().out
    assert "graphs: 300 tried" in text
    assert "  200: wrong: y" in text


def test_record_that_is_committed_is_whole() -> None:
    """No block twice, none missing, and nothing found."""
    blocks = fuzz.read_record(fuzz.RECORD)
    assert blocks
    starts = {
        kind: [b["start"] for b in blocks if b["kind"] == kind] for kind in ("graphs", "files")
    }
    for found in starts.values():
        assert sorted(found) == list(range(0, fuzz.BLOCK * len(found), fuzz.BLOCK))
    assert all(b["done"] == fuzz.BLOCK for b in blocks)
    assert list(itertools.chain(*(b["findings"] for b in blocks))) == []
