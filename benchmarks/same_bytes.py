"""Whether a run gives the same bytes whatever the machine does: `python -m benchmarks.same_bytes`.

`optimize` with a certificate and a report, on every network of `models/` and a dozen public ones:
once as it is, and again, beside six busy processes, with two jobs, and pinned to one core and to
two. The new model, the certificate, and the report without its seconds have to be the same bytes
each time.

Results are merged network by network into `benchmarks/results/same_bytes.json` and shown in
`same_bytes.md` beside it; `--resume` leaves out what was found with the same code.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.decide import fingerprint
from benchmarks.deciding.cases import ROOT, SHARED, Case, cases
from benchmarks.running.processes import RESULTS, machine, now, write_text

BUSY = 6
# Networks of `benchmarks.deciding.cases` that take minutes, and others that are there.
LEFT_OUT = {"acasxu_1_1_box", "acasxu_3_3_box", "mnist-net_256x4", "mnist-net_256x4_prop_1"}
MORE = {
    "cartpole": "-1:1",
    "lindex": "0:1",
    "tll_instance_0_0": "-2:2",
    "mnistcnn_0.1": "0:1",
    "conv_mnist_cnn_l1": "0:1",
}
# Everything the result depends on.
ROOMS = (".",)

Entry = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How a run is made.

    Attributes:
        name: in a few words.
        busy: how many processes do nothing but work beside it.
        jobs: as `--jobs`.
        cores: that it may use; 0 for all there are.
    """

    name: str
    busy: int = 0
    jobs: int = 1
    cores: int = 0


FIRST = Way("as it is")
OTHERS = (
    Way("again"),
    Way("beside six busy processes", busy=BUSY),
    Way("two jobs", jobs=2),
    Way("one core", cores=1),
    Way("two cores", cores=2),
)


def outcome(model: Path, domain: Any, way: Way) -> dict[str, bytes]:
    """What a run leaves: the bytes of its files by name, of the report without its seconds.

    Args:
        model: to be optimized.
        domain: as `--domain`; None for that of the model.
        way: how it is run.
    """
    with tempfile.TemporaryDirectory() as folder, _busy(way.busy):
        command = [sys.executable, "-m", "onnx_exact", "optimize", str(model), "out.onnx"]
        command += ["--certificate", "c.npz", "--report", "r.json", "--jobs", str(way.jobs)]
        if domain is not None:
            command.append(f"--domain={domain}")
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with _pinned(way.cores):
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, check=False
            )
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    if "r.json" in files:
        files["r.json"] = _without_seconds(files["r.json"])
    return files | {"exit code": str(done.returncode).encode()}


def _without_seconds(report: bytes) -> bytes:
    """A report but for what it says of time."""
    found = json.loads(report)
    del found["seconds"]
    return json.dumps(found).encode()


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """Processes that do nothing but work."""
    working = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in working:
            process.kill()
            process.wait()


@contextmanager
def _pinned(cores: int) -> Iterator[None]:
    """Lets this process, and what it starts, run on so many cores alone."""
    if not cores:
        yield
        return
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def compared() -> list[Case]:
    """The networks that are there."""
    shared = [Case(name, SHARED / "models" / f"{name}.onnx", box) for name, box in MORE.items()]
    return [case for case in (*cases(), *shared) if case.present and case.name not in LEFT_OUT]


def differences(case: Case) -> Entry:
    """Which files of which runs are not those of the first."""
    first = outcome(case.file, case.domain_spec, FIRST)
    different = {}
    for way in OTHERS:
        found = outcome(case.file, case.domain_spec, way)
        names = sorted(n for n in first.keys() | found.keys() if first.get(n) != found.get(n))
        different[way.name] = names
    return {"when": now(), "files": sorted(first), "different": different}


def markdown(results: Entry) -> str:
    """The table of what was found."""
    heads = ["network", *(way.name for way in OTHERS)]
    lines = [
        "# The same bytes",
        "",
        "Written by `python -m benchmarks.same_bytes`; not to be edited. The new model, the"
        " certificate and the report without its seconds, against those of a first run.",
        "",
        f"{results['machine']['processor']}, {results['machine']['cores']} cores.",
        "",
        f"| {' | '.join(heads)} |",
        "| --- |" + " --- |" * len(OTHERS),
    ]
    for name, entry in results["rows"].items():
        cells = (", ".join(entry["different"][way.name]) or "the same" for way in OTHERS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(argv: Sequence[str] | None = None, path: Path = RESULTS / "same_bytes.json") -> int:
    """The command line; 1 where bytes differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.same_bytes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", default=[], metavar="CASE", help="these alone")
    parser.add_argument(
        "--resume", action="store_true", help="leave out what was found with the same code"
    )
    arguments = parser.parse_args(argv)
    results: Entry = {"rows": {}}
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
    results["machine"] = machine()
    failed = False
    for case in compared():
        if arguments.only and case.name not in arguments.only:
            continue
        mark = fingerprint(case, 0.0, 0, ROOMS)
        known = results["rows"].get(case.name, {})
        if not (arguments.resume and known.get("fingerprint") == mark):
            known = results["rows"][case.name] = differences(case) | {"fingerprint": mark}
            write_text(path, json.dumps(results, indent=1) + "\n")
            write_text(path.with_suffix(".md"), markdown(results))
        wrong = {way: names for way, names in known["different"].items() if names}
        print(f"{case.name}: {wrong or 'the same'}", flush=True)
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
