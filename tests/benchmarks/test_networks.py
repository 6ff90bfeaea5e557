"""The names, grids and record of the networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import train
from benchmarks.training import networks
from benchmarks.training.export import relu_network_model, sha256, write_model
from benchmarks.training.networks import Job, NetworkSpec
from tests.benchmarks.helpers import random_layers


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        (NetworkSpec("mnist", (400, 400), 0.0002), "mnist_2x400_l1-0.0002_s0"),
        (NetworkSpec("cifar10", (100,) * 5, 0.000025, 3), "cifar10_5x100_l1-0.000025_s3"),
        (NetworkSpec("mnist", (100, 50), 0.0, epochs=7), "mnist_100-50_l1-0_s0_e7"),
    ],
)
def test_network_name_tells_everything_that_fixes_it(spec: NetworkSpec, name: str) -> None:
    assert spec.name == name


def test_paper_grid_has_every_architecture_and_penalty_once() -> None:
    specs = [job.spec for job in networks.grid("paper")]
    assert len(specs) == len(set(specs))
    for name, most in (("mnist", 0.0004), ("cifar10", 0.0002)):
        of_data = [spec for spec in specs if spec.data == name]
        assert {spec.architecture for spec in of_data} == {
            *("2x100", "2x200", "2x400", "2x800"),
            *("3x100", "4x100", "5x100"),
        }
        penalties = sorted({spec.l1 for spec in of_data})
        np.testing.assert_allclose(penalties, np.arange(len(penalties)) * 2.5e-5, atol=1e-12)
        assert penalties[-1] == most
        assert len({spec.seed for spec in of_data}) >= 3
    assert {NetworkSpec("mnist", (800, 800), 0.0002)} < set(specs)


@pytest.mark.parametrize("name", networks.GRIDS)
def test_no_two_networks_of_a_grid_share_a_file(name: str) -> None:
    paths = [job.path for job in networks.grid(name)]
    assert len(paths) == len(set(paths))


def place_network(path: Path, accuracy: str) -> None:
    write_model(
        relu_network_model(random_layers([3, 2]), {"training.test_accuracy": accuracy}), path
    )


def test_grid_trains_nothing_that_is_there_and_records_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def must_not_run(job: Job) -> str:
        raise AssertionError(job.spec.name)

    monkeypatch.setattr(train, "run_job", must_not_run)
    monkeypatch.setattr(networks, "RECORD", tmp_path / "networks.json")
    job = Job(NetworkSpec("digits", (2,), 0.5), tmp_path / "network.onnx")
    place_network(job.path, "0.1234")
    train.run_grid([job], workers=1)
    entry = networks.read_record()[job.spec.name]
    assert entry["test_accuracy"] == 0.1234
    assert entry["sha256"] == sha256(job.path)
