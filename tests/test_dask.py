"""Jobs on a Dask cluster: the same bytes as in one process."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_exact import optimize_file
from onnx_exact.budgets import BUDGETS
from onnx_exact.decide import branching
from onnx_exact.decide.options import Options
from onnx_exact.report import to_json
from onnx_exact.runtime.jobs import in_order
from onnx_exact.stages import deciding
from tests.verifier.build import gemm_model

distributed = pytest.importorskip("distributed", reason="distributed is not installed")
pytestmark = [
    pytest.mark.slow,
    # Of libraries that it brings.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def worker_of(number: int) -> tuple[int, str]:
    return number, str(distributed.get_worker().address)


def test_tasks_run_on_the_workers_and_come_back_in_order(client: Any) -> None:
    from joblib import parallel_config

    with parallel_config(backend="dask"):
        found = list(in_order(2, ((worker_of, (number,)) for number in range(7))))
    assert [number for number, _ in found] == list(range(7))
    known = set(client.scheduler_info()["workers"])
    assert {address for _, address in found} <= known


def test_a_cluster_gives_the_bytes_of_one_process(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from joblib import parallel_config

    sent = []

    def counted(jobs: int, tasks: Iterable[Any]) -> Iterator[Any]:
        for answer in in_order(jobs, tasks):
            sent.append(answer)
            yield answer

    # Jobs from the first tree on.
    eager = partial(Options, budgets=replace(BUDGETS, relu_alone=0))
    monkeypatch.setattr(deciding, "Options", eager)
    monkeypatch.setattr(branching, "in_order", counted)
    rng = np.random.default_rng(5)
    layers = [
        (rng.normal(0, a**-0.5, (b, a)).tolist(), rng.normal(-0.2, 0.3, b).tolist(), b != 2)
        for a, b in ((12, 24), (24, 24), (24, 12), (12, 2))
    ]
    source = tmp_path / "in.onnx"
    onnx.save(gemm_model(layers), source)

    def run(name: str, jobs: int) -> tuple[bytes, dict[str, Any]]:
        target = tmp_path / name
        report = optimize_file(source, target, domain="-0.3:0.3", jobs=jobs)
        known = json.loads(to_json(report))
        del known["seconds"]
        return target.read_bytes(), known

    alone = run("alone.onnx", 1)
    assert not sent
    with parallel_config(backend="dask"):
        together = run("together.onnx", 2)
    assert len(sent) > 1
    assert together == alone
