"""The networks of models/ are what their metadata, their README and their record state."""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import train
from benchmarks.training import data, networks
from benchmarks.training.data import Dataset
from benchmarks.training.export import DOMAIN_KEY, read_metadata, sha256
from benchmarks.training.networks import NetworkSpec
from tests.benchmarks.helpers import run_onnx

COMMITTED_LIMIT_BYTES = 8 * 10**6
COMMITTED = sorted(networks.MODELS.glob("*.onnx"))
by_file = pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)


def readme_rows() -> dict[str, list[str]]:
    """The cells of each row of the table in models/README.md, by the file's name."""
    text = (networks.MODELS / "README.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if ".onnx` |" in line]
    rows = [line.strip("| ").split(" | ") for line in lines if "convolutional/" not in line]
    return {row[0].strip("`"): [cell.strip() for cell in row] for row in rows}


def test_models_holds_the_whole_grid_within_its_size_limit() -> None:
    assert {job.path for job in networks.grid("models")} == set(COMMITTED)
    assert sum(path.stat().st_size for path in COMMITTED) <= COMMITTED_LIMIT_BYTES


@by_file
def test_committed_model_passes_the_checker_and_is_trained_by_its_command(path: Path) -> None:
    onnx.checker.check_model(str(path), full_check=True)
    found = read_metadata(path)
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    assert json.loads(found[DOMAIN_KEY]) == {"input": {"lower": 0.0, "upper": 1.0}}
    assert found["training.command"] == spec.command(path.name)
    assert found["training.dataset"] == spec.data
    assert float(found["training.l1"]) == spec.l1
    assert int(found["training.seed"]) == spec.seed
    assert int(found["training.epochs"]) == spec.epochs
    weights = [t.dims[0] for t in onnx.load(path).graph.initializer if len(t.dims) == 2]
    assert tuple(weights[:-1]) == spec.hidden


@by_file
def test_training_command_is_read_back_to_the_same_network(path: Path) -> None:
    command = read_metadata(path)["training.command"]
    prefix = "python -m benchmarks.train "
    assert command.startswith(prefix)
    args = train._parser().parse_args(command.removeprefix(prefix).split())
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    assert NetworkSpec(args.data, tuple(args.hidden), args.l1, args.seed, args.epochs) == spec


@by_file
def test_readme_states_what_the_model_says(path: Path) -> None:
    found = read_metadata(path)
    row = readme_rows()[path.name]
    assert row[2] == found["training.dataset"]
    assert row[3] == found["training.l1"]
    assert row[4] == f"{100 * float(found['training.test_accuracy']):.2f} %"
    assert row[5] == f"{path.stat().st_size:,}"
    assert f"`{found['training.command']}`" in (networks.MODELS / "README.md").read_text("utf-8")


def test_readme_lists_no_model_that_is_not_there() -> None:
    assert set(readme_rows()) == {path.name for path in COMMITTED}


@by_file
def test_record_has_the_hash_and_accuracy_of_the_committed_model(path: Path) -> None:
    spec = {job.path: job.spec for job in networks.grid("models")}[path]
    entry = networks.read_record()[spec.name]
    assert entry["sha256"] == sha256(path)
    assert entry["file"] == f"models/{path.name}"
    assert entry["test_accuracy"] == float(read_metadata(path)["training.test_accuracy"])


def test_every_record_is_named_after_its_network() -> None:
    for name, entry in networks.read_record().items():
        hidden = entry["hidden"]
        assert isinstance(hidden, list)
        spec = NetworkSpec(
            data=str(entry["data"]),
            hidden=tuple(hidden),
            l1=float(str(entry["l1"])),
            seed=int(str(entry["seed"])),
            epochs=int(str(entry["epochs"])),
        )
        assert spec.name == name
        assert re.fullmatch("[0-9a-f]{64}", str(entry["sha256"]))


@functools.lru_cache(maxsize=1)
def load_once(name: str) -> Dataset:
    return data.load(name)


def available(name: str) -> Dataset:
    """The data set ``name`` if it can be read here without fetching anything."""
    if name == "digits":
        pytest.importorskip("sklearn")
    elif not list(data.CACHE.glob(f"*{name}*.tgz")):
        pytest.skip(f"{name} is not in {data.CACHE.name}: python -m benchmarks.train fetches it")
    if name == "cifar10":
        pytest.importorskip("PIL")
    return load_once(name)


@by_file
def test_committed_model_has_its_stated_accuracy_on_the_test_set(path: Path) -> None:
    found = read_metadata(path)
    dataset = available(found["training.dataset"])
    correct = run_onnx(path, dataset.test_inputs).argmax(axis=1) == dataset.test_labels
    # One sample of the test set either way: scores that tie in float32 may be cut differently.
    one_sample = 1 / len(correct)
    stated = float(found["training.test_accuracy"])
    assert abs(np.mean(correct) - stated) <= one_sample + 0.5e-4
