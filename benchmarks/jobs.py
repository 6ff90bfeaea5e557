"""The same run in one process, in local ones and on a Dask cluster: `python -m benchmarks.jobs`.

A random network whose trees of ReLUs are many is optimized three times, with as many jobs as there
are workers. The new models have to be the same bytes. Results go to `benchmarks/results/jobs.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from benchmarks.running.processes import RESULTS, Entry, machine, now, write_text
from benchmarks.scaling import random_layers
from benchmarks.training.export import relu_network_model, write_model
from onnx_exact import optimize_file

WIDTHS, RADIUS = (64, 48, 48, 48, 48, 10), 0.22


@contextmanager
def _on_dask(jobs: int) -> Iterator[None]:
    from distributed import Client, LocalCluster
    from joblib import parallel_config

    cluster = LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
    with cluster, Client(cluster), parallel_config(backend="dask"):
        yield


def _ways(jobs: int) -> dict[str, tuple[int, Callable[[], AbstractContextManager[None]]]]:
    return {
        "one process": (1, nullcontext),
        "local processes": (jobs, nullcontext),
        "Dask LocalCluster": (jobs, lambda: _on_dask(jobs)),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where bytes differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.jobs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--radius", type=float, default=RADIUS)
    parser.add_argument("--out", type=Path, default=RESULTS / "jobs.json", metavar="FILE")
    args = parser.parse_args(argv)
    results: Entry = {"machine": machine(), "when": now(), "jobs": args.jobs, "runs": {}}
    made: set[bytes] = set()
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name) / "in.onnx", Path(name) / "out.onnx"
        write_model(relu_network_model(list(random_layers(WIDTHS, 0)), {}), source)
        domain = f"{0.5 - args.radius}:{0.5 + args.radius}"
        for way, (jobs, within) in _ways(args.jobs).items():
            with within():
                begun = time.perf_counter()
                report = optimize_file(source, target, domain=domain, jobs=jobs)
                seconds = round(time.perf_counter() - begun, 2)
            made.add(target.read_bytes())
            results["runs"][way] = {"seconds": seconds, "deciding": report.seconds["decide"]}
            print(f"{way}: {seconds} s", flush=True)
    results["same bytes"] = len(made) == 1
    write_text(args.out, json.dumps(results, indent=1) + "\n")
    return int(len(made) != 1)


if __name__ == "__main__":
    sys.exit(main())
