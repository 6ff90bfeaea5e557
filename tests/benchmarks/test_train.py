"""Training networks, and the command line that does it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks import train
from benchmarks.training import data
from benchmarks.training.data import BenchmarkError, Dataset
from benchmarks.training.export import read_metadata
from benchmarks.training.networks import NetworkSpec
from tests.benchmarks.helpers import run_onnx

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="training needs PyTorch"
)


def two_blobs() -> Dataset:
    """Points of [0, 1]^4 whose class is whether the first coordinate is beyond one half."""
    inputs = np.random.default_rng(0).random((600, 4), dtype=np.float32)
    labels = (inputs[:, 0] > 0.5).astype(np.int64)
    return Dataset("blobs", inputs[:500], labels[:500], inputs[500:], labels[500:])


@needs_torch
def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    blobs = two_blobs()
    runs = [train.train(NetworkSpec("blobs", (6,), 0.001, s, 3), blobs) for s in (0, 0, 1)]
    for (weight, bias), (again_weight, again_bias) in zip(
        runs[0].layers, runs[1].layers, strict=True
    ):
        np.testing.assert_array_equal(weight, again_weight)
        np.testing.assert_array_equal(bias, again_bias)
    assert not np.array_equal(runs[0].layers[0][0], runs[2].layers[0][0])


@needs_torch
def test_subnormal_numbers_are_numbers_again_after_training() -> None:
    train.train(NetworkSpec("blobs", (4,), 0.0, epochs=1), two_blobs())
    assert (np.array([2.0**-1022]) * 0.5)[0] > 0.0


@needs_torch
def test_penalty_shrinks_every_weight_matrix() -> None:
    blobs = two_blobs()
    free, penalised = (
        train.train(NetworkSpec("blobs", (8, 8), l1, epochs=40), blobs) for l1 in (0.0, 0.05)
    )
    for (weight, _), (small, _) in zip(free.layers, penalised.layers, strict=True):
        assert np.abs(small).sum() < 0.8 * np.abs(weight).sum()


@needs_torch
def test_diverging_training_is_reported() -> None:
    with pytest.raises(BenchmarkError, match="diverged in epoch"):
        train.train(NetworkSpec("blobs", (4,), 1e38, epochs=20), two_blobs())


@needs_torch
def test_command_trains_a_network_of_the_accuracy_it_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    path = tmp_path / "digits.onnx"
    assert train.main(f"--data digits --hidden 32 --epochs 60 --out {path}".split()) == 0
    stated = float(read_metadata(path)["training.test_accuracy"])
    assert stated > 0.9
    assert f"test accuracy {stated:.4f}" in capsys.readouterr().out
    digits = data.load("digits")
    correct = run_onnx(path, digits.test_inputs).argmax(axis=1) == digits.test_labels
    assert round(float(np.mean(correct)), 4) == stated


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        ("", "--data, --hidden, --out missing"),
        ("--data mnist --hidden 5", "--out missing"),
        ("--data mnist --hidden 5 --out no/such/folder/x.onnx", "does not exist"),
        ("--data mnist --hidden 5 --out .", "is a folder"),
        ("--grid quick --out x.onnx", "leave them out with --grid"),
        ("--grid quick --data digits", "no network of grid quick"),
    ],
)
def test_wrong_flags_end_in_one_line(
    flags: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main(flags.split()) == 2
    message = capsys.readouterr().err
    assert cause in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    "flags", ["--hidden 0", "--hidden x", "--l1 -1", "--l1 nan", "--epochs 0", "--data imagenet"]
)
def test_values_out_of_range_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        train.main(flags.split())
    assert stopped.value.code == 2
    assert flags.split()[0] in capsys.readouterr().err
