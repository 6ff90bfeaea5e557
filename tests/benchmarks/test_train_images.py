"""The convolutional networks of models/: what they say of themselves, and what becomes of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_exact
from benchmarks.train_images import RECIPES, main
from benchmarks.training.export import DOMAIN_KEY, read_metadata
from benchmarks.training.networks import MODELS

FOLDER = MODELS / "convolutional"
every_recipe = pytest.mark.parametrize("name", RECIPES)


def test_every_recipe_has_its_network_and_no_other_is_there() -> None:
    assert {path.stem for path in FOLDER.glob("*.onnx")} == RECIPES.keys()


@every_recipe
def test_a_network_says_how_it_was_trained(name: str) -> None:
    path = FOLDER / f"{name}.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    said = read_metadata(path)
    assert json.loads(said[DOMAIN_KEY]) == {"input": {"lower": 0.0, "upper": 1.0}}
    assert said["training.command"] == (
        f"python -m benchmarks.train_images {name} --out {path.name}"
    )
    assert said["training.dataset"] == RECIPES[name].data
    readme = (MODELS / "README.md").read_text("utf-8")
    accuracy = f"{100 * float(said['training.test_accuracy']):.2f} %"
    row = next(line for line in readme.splitlines() if f"convolutional/{path.name}` |" in line)
    assert accuracy in row
    assert f"{path.stat().st_size:,}" in row
    assert f"`{said['training.command']}`" in readme


@every_recipe
def test_a_network_loses_channels_and_its_certificate_is_accepted(
    name: str, tmp_path: Path
) -> None:
    files = FOLDER / f"{name}.onnx", tmp_path / "out.onnx", tmp_path / "proof.npz"
    report = onnx_exact.optimize_file(files[0], files[1], certificate=files[2])
    assert report.channels
    assert report.channels_deviation == 0.0
    assert report.totals.bytes_after is not None
    assert report.totals.bytes_after < 0.85 * report.totals.bytes_before
    assert onnx_exact.verify(*files).verified


@every_recipe
def test_the_command_trains_a_network_of_the_same_shape(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from dataclasses import replace

    from benchmarks import train_images
    from benchmarks.training import data

    rng = np.random.default_rng(0)
    recipe = RECIPES[name]
    inputs = rng.random((300, int(np.prod(recipe.image)))).astype(np.float32)
    labels = rng.integers(0, 10, 300).astype(np.int64)
    small = data.Dataset(recipe.data, inputs, labels, inputs.copy(), labels.copy())
    monkeypatch.setattr(data, "load", lambda _: small)
    monkeypatch.setitem(train_images.RECIPES, name, replace(recipe, epochs=1))
    assert main([name, "--out", str(tmp_path / "made.onnx")]) == 0
    made, kept = onnx.load(tmp_path / "made.onnx"), onnx.load(FOLDER / f"{name}.onnx")
    assert [n.op_type for n in made.graph.node] == [n.op_type for n in kept.graph.node]
    assert [list(t.dims) for t in made.graph.initializer] == [
        list(t.dims) for t in kept.graph.initializer
    ]
