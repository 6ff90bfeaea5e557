"""The file of bounds: sound in exact arithmetic for both networks, by their tensors' names."""

from __future__ import annotations

import hashlib
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnx_exact
from onnx_exact.cli import main
from onnx_exact.errors import OutputError, UsageError
from tests.lines import complaints
from tests.small_network import network


def exact_tensors(path: Path, x: list[Fraction]) -> dict[str, list[Fraction]]:
    """Every tensor of a network of Gemm and Relu at one point, in rational arithmetic."""
    model = onnx.load(path)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    values = {model.graph.input[0].name: x}
    for node in model.graph.node:
        h = values[node.input[0]]
        if node.op_type == "Relu":
            values[node.output[0]] = [max(v, Fraction(0)) for v in h]
            continue
        assert node.op_type == "Gemm"
        weight, bias = (stored[name] for name in node.input[1:3])
        if not any(a.name == "transB" and a.i for a in node.attribute):
            weight = weight.T
        values[node.output[0]] = [
            sum((Fraction(float(w)) * v for w, v in zip(row, h, strict=True)), Fraction(float(b)))
            for row, b in zip(weight, np.ravel(bias), strict=True)
        ]
    return values


def read(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """The bounds of both networks, whatever the format of the file."""
    if path.suffix == ".json":
        data = json.loads(path.read_text())
        return {name: data[name] for name in ("original", "new") if name in data}
    found: dict[str, dict[str, dict[str, Any]]] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            if key != "about":
                which, rest = key.split("/", 1)
                tensor, name = rest.rsplit("/", 1)
                found.setdefault(which, {}).setdefault(tensor, {})[name] = arrays[key].tolist()
    return found


@pytest.mark.parametrize("removable", [True, False])
@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_bounds_hold_in_exact_arithmetic_for_both_networks(
    tmp_path: Path, removable: bool, suffix: str
) -> None:
    old, new = network(tmp_path / "in.onnx", removable=removable), tmp_path / "out.onnx"
    bounds = tmp_path / f"bounds{suffix}"
    report = onnx_exact.optimize_file(old, new, domain="0:1", bounds=bounds)
    assert report.changed == removable
    found = read(bounds)
    rng = np.random.default_rng(0)
    points = [[Fraction(v) for v in rng.random(4)] for _ in range(20)]
    points += [[Fraction(int(v)) for v in rng.integers(0, 2, 4)] for _ in range(16)]
    for name, path in (("original", old), ("new", new)):
        assert len(found[name]) == 2
        for x in points:
            values = exact_tensors(path, x)
            for tensor, entries in found[name].items():
                for low, value, high in zip(
                    entries["lower"], values[tensor], entries["upper"], strict=True
                ):
                    assert Fraction(low) <= value <= Fraction(high)


def test_both_formats_hold_the_same_and_say_what_they_cover(tmp_path: Path) -> None:
    old = network(tmp_path / "in.onnx")
    for suffix in (".npz", ".json"):
        new, bounds = tmp_path / f"out{suffix}.onnx", tmp_path / f"b{suffix}"
        onnx_exact.optimize_file(old, new, domain="0:1", bounds=bounds)
    assert read(tmp_path / "b.npz") == read(tmp_path / "b.json")
    about = json.loads(str(np.load(tmp_path / "b.npz")["about"]))
    data = json.loads((tmp_path / "b.json").read_text())
    for name, value in about.items():
        assert data[name] == value
    assert about["format"] == "onnx-exact bounds"
    assert "rounded outward" in about["covers"]
    assert "runtime" in about["covers"]
    assert about["domain"] == {"x": {"lower": 0.0, "upper": 1.0}}
    for name, path in (("original", old), ("new", new)):
        assert about["sha256"][name] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_same_run_writes_the_same_bytes(tmp_path: Path) -> None:
    old = network(tmp_path / "in.onnx")
    written = []
    for number in range(2):
        bounds = tmp_path / f"{number}.npz"
        onnx_exact.optimize_file(old, tmp_path / "out.onnx", domain="0:1", bounds=bounds)
        written.append(bounds.read_bytes())
    assert written[0] == written[1]


def test_status_and_bounds_agree_and_units_that_nobody_decided_are_named(tmp_path: Path) -> None:
    path, bounds = network(tmp_path / "in.onnx"), tmp_path / "b.json"
    onnx_exact.analyze(path, domain="0:1", bounds=bounds)
    found = read(bounds)
    assert set(found) == {"original"}
    (hidden,) = [entries for entries in found["original"].values() if "status" in entries]
    for status, low, high in zip(hidden["status"], hidden["lower"], hidden["upper"], strict=True):
        assert {"inactive": high <= 0, "active": low >= 0, "unstable": low < 0 < high}[status]


def test_infinite_bounds_are_null_in_json(tmp_path: Path) -> None:
    bounds = tmp_path / "b.json"
    onnx_exact.analyze(network(tmp_path / "in.onnx"), bounds=bounds)
    tensors = read(bounds)["original"].values()
    assert any(side is None for entries in tensors for side in entries["upper"])


def test_places_for_bounds_that_cannot_be_are_refused(tmp_path: Path) -> None:
    path, out = network(tmp_path / "in.onnx"), tmp_path / "out.onnx"
    for bounds in (tmp_path / "b.txt", path, out):
        with pytest.raises((UsageError, OutputError)):
            onnx_exact.optimize_file(path, out, domain="0:1", bounds=bounds)
        with pytest.raises((UsageError, OutputError)):
            onnx_exact.analyze(path, domain="0:1", bounds=tmp_path / "none" / "b.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.onnx"]


@pytest.mark.parametrize("flags", [[], ["--time-limit", "60"]])
def test_command_writes_bounds(
    tmp_path: Path, flags: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    path, out, bounds = network(tmp_path / "in.onnx"), tmp_path / "o.onnx", tmp_path / "b.npz"
    common = ["--domain", "0:1", "--bounds", str(bounds), *flags]
    assert main(["optimize", str(path), str(out), *common]) == 0
    assert set(read(bounds)) == {"original", "new"}
    assert main(["analyze", str(path), *common]) == 0
    assert set(read(bounds)) == {"original"}
    capfd.readouterr()
    assert main(["analyze", str(path), "--bounds", str(tmp_path / "b.csv")]) == 2
    assert "neither .npz nor .json" in complaints(capfd.readouterr().err)
    same = str(tmp_path / "same.json")
    assert main(["analyze", str(path), "--bounds", same, "--report", same]) == 2
