"""Trains ReLU networks on real data by the papers' recipe and writes them as ONNX files.

    python -m benchmarks.train --data mnist --hidden 100 100 --l1 2e-4 --out FILE.onnx
    python -m benchmarks.train --grid models

The recipe (Serra, Kumar, Ramalingam 2020; Serra, Yu, Kumar, Ramalingam 2021): inputs in [0, 1],
SGD with learning rate 0.01 and momentum 0.9, batches of 128, 120 epochs with a decay by 0.1
every 50, an l1 penalty on all weight matrices, Kaiming-normal weights and zero biases.

A grid leaves out the networks that are already there, so it can be stopped and taken up again;
--data, --hidden, --l1 and --seed then narrow it. PyTorch is needed here and nowhere else.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.training import data, networks
from benchmarks.training.data import BenchmarkError, Dataset
from benchmarks.training.export import Layer, relu_network_model, write_model
from benchmarks.training.networks import Job, NetworkSpec

if TYPE_CHECKING:
    import torch

LEARNING_RATE = 0.01
MOMENTUM = 0.9
BATCH = 128
DECAY = 0.1
_REPORT_EVERY = 10
_EVALUATION_BATCH = 10_000


@dataclass(frozen=True)
class Trained:
    """A trained network: its layers, the share of the test set it gets right, and its time."""

    layers: tuple[Layer, ...]
    test_accuracy: float
    seconds: float
    torch_version: str


def decay_every(epochs: int) -> int:
    """After how many epochs the learning rate falls: 50 of 120, and as much of any other count."""
    return max(1, round(epochs * 50 / 120))


def train(spec: NetworkSpec, dataset: Dataset, *, verbose: bool = False) -> Trained:
    """Train the network ``spec`` on ``dataset``, on one thread; the same seed, the same weights.

    Raises `BenchmarkError` where PyTorch is missing or the training diverges.
    """
    try:
        import torch
    except ImportError as error:
        raise BenchmarkError("training needs PyTorch: pip install torch==2.13.0") from error

    start = time.perf_counter()
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(spec.seed)
    network = _initial_network(spec, dataset, generator)
    # Arrays are read-only and tensors do not know that, hence the copies.
    inputs = torch.tensor(dataset.train_inputs)
    labels = torch.tensor(dataset.train_labels)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, fused=True
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, decay_every(spec.epochs), DECAY)
    for epoch in range(1, spec.epochs + 1):
        with _subnormals_flushed():
            loss = _epoch(network, optimizer, inputs, labels, spec.l1, generator)
        schedule.step()
        if not math.isfinite(loss):
            raise BenchmarkError(f"{spec.name} diverged in epoch {epoch}: try a smaller --l1")
        if verbose and (epoch % _REPORT_EVERY == 0 or epoch in (1, spec.epochs)):
            elapsed = time.perf_counter() - start
            print(f"{spec.name}: epoch {epoch}, loss {loss:.4f}, {elapsed:.0f} s", flush=True)
    return Trained(
        layers=tuple(
            (module.weight.detach().numpy().copy(), module.bias.detach().numpy().copy())
            for module in network
            if isinstance(module, torch.nn.Linear)
        ),
        test_accuracy=_accuracy(network, dataset),
        seconds=time.perf_counter() - start,
        torch_version=str(torch.__version__),
    )


@contextmanager
def _subnormals_flushed() -> Iterator[None]:
    """Takes subnormal numbers for 0: the momentum of dead units decays into them, and is slow then.

    The processor does so for whoever computes in the same thread, so that it has to end.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _initial_network(
    spec: NetworkSpec, dataset: Dataset, generator: torch.Generator
) -> torch.nn.Sequential:
    """Linear layers with Kaiming-normal weights and zero biases, a ReLU between each two."""
    import torch

    classes = int(dataset.train_labels.max()) + 1
    widths = [dataset.train_inputs.shape[1], *spec.hidden, classes]
    modules: list[torch.nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(widths):
        layer = torch.nn.Linear(fan_in, fan_out)
        torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        torch.nn.init.zeros_(layer.bias)
        modules += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*modules[:-1])


def _epoch(
    network: torch.nn.Sequential,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    l1: float,
    generator: torch.Generator,
) -> float:
    """One pass over the training set in random order; the mean cross-entropy of its batches."""
    import torch

    weights = [parameter for parameter in network.parameters() if parameter.dim() == 2]
    batches = torch.randperm(len(inputs), generator=generator).split(BATCH)
    total = 0.0
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(network(inputs[batch]), labels[batch])
        loss.backward()
        if l1 > 0:
            # The subgradient of l1 * sum(abs(W)), added by hand: the same as in the loss, faster.
            for weight in weights:
                weight.grad.add_(torch.sign(weight.detach()), alpha=l1)
        optimizer.step()
        total += loss.item()
    return total / len(batches)


def _accuracy(network: torch.nn.Sequential, dataset: Dataset) -> float:
    import torch

    with torch.no_grad():
        scores = [
            network(torch.tensor(dataset.test_inputs[i : i + _EVALUATION_BATCH])).numpy()
            for i in range(0, len(dataset.test_inputs), _EVALUATION_BATCH)
        ]
    classes = np.concatenate(scores).argmax(axis=1)
    return float(np.mean(classes == dataset.test_labels))


def metadata(spec: NetworkSpec, trained: Trained, file: str) -> dict[str, str]:
    """What the ONNX file says about its training."""
    return {
        "training.dataset": spec.data,
        "training.hidden": " ".join(str(width) for width in spec.hidden),
        "training.l1": networks.plain(spec.l1),
        "training.seed": str(spec.seed),
        "training.epochs": str(spec.epochs),
        "training.test_accuracy": f"{trained.test_accuracy:.4f}",
        "training.torch": trained.torch_version,
        "training.command": spec.command(file),
    }


@functools.lru_cache(maxsize=1)
def _dataset(name: str) -> Dataset:
    return data.load(name)


def run_job(job: Job) -> str:
    """Train one network, write its file, and say in one line how it went."""
    trained = train(job.spec, _dataset(job.spec.data), verbose=True)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    model = relu_network_model(trained.layers, metadata(job.spec, trained, job.path.name))
    write_model(model, job.path)
    return f"{job.path.name}: test accuracy {trained.test_accuracy:.4f}, {trained.seconds:.0f} s"


def run_grid(jobs: Sequence[Job], workers: int) -> None:
    """Train the networks of ``jobs`` that are not there yet, ``workers`` at a time."""
    for job in jobs:
        if job.path.exists():
            networks.record(job)
    missing = [job for job in jobs if not job.path.exists()]
    print(f"{len(jobs)} networks, {len(missing)} to train", flush=True)
    for name in sorted({job.spec.data for job in missing}):
        data.fetch(name)
    pool = ProcessPoolExecutor(max_workers=workers)
    try:
        running = {pool.submit(run_job, job): job for job in missing}
        for future in as_completed(running):
            print(future.result(), flush=True)
            networks.record(running[future])
    finally:
        # After an error or an interrupt nothing new is begun.
        pool.shutdown(cancel_futures=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", choices=list(data.DATASETS))
    parser.add_argument("--hidden", type=_positive, nargs="+", metavar="WIDTH")
    parser.add_argument("--l1", type=_penalty, help="l1 penalty on all weights (default: 0)")
    parser.add_argument("--seed", type=int, help="(default: 0)")
    parser.add_argument("--epochs", type=_positive, help="(default: 120)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the ONNX file to write")
    parser.add_argument("--grid", choices=networks.GRIDS, help="train a whole set of networks")
    parser.add_argument("--jobs", type=_positive, default=1, help="networks at once in a grid")
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 on")
    return value


def _penalty(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number from 0 on")
    return value


def _narrowed(jobs: Sequence[Job], args: argparse.Namespace) -> list[Job]:
    """The jobs that agree with the flags given beside --grid."""

    def wanted(spec: NetworkSpec) -> bool:
        return (
            args.data in (None, spec.data)
            and (args.hidden is None or tuple(args.hidden) == spec.hidden)
            and args.l1 in (None, spec.l1)
            and args.seed in (None, spec.seed)
        )

    return [job for job in jobs if wanted(job.spec)]


def _single(args: argparse.Namespace) -> Job:
    missing = [flag for flag in ("data", "hidden", "out") if getattr(args, flag) is None]
    if missing:
        flags = ", ".join(f"--{flag}" for flag in missing)
        raise BenchmarkError(f"{flags} missing: name one network, or a set of them with --grid")
    if not args.out.parent.is_dir():
        raise BenchmarkError(f"folder {args.out.parent} does not exist: create it first")
    if args.out.is_dir():
        raise BenchmarkError(f"{args.out} is a folder: give --out the name of a file in it")
    spec = NetworkSpec(
        data=args.data,
        hidden=tuple(args.hidden),
        l1=args.l1 if args.l1 is not None else 0.0,
        seed=args.seed if args.seed is not None else 0,
        epochs=args.epochs if args.epochs is not None else networks.PAPER_EPOCHS,
    )
    return Job(spec, args.out)


def _run(args: argparse.Namespace) -> None:
    if args.grid is None:
        print(run_job(_single(args)))
        return
    if args.out is not None or args.epochs is not None:
        raise BenchmarkError("--out and --epochs are for one network: leave them out with --grid")
    jobs = _narrowed(networks.grid(args.grid), args)
    if not jobs:
        raise BenchmarkError(f"no network of grid {args.grid} agrees with the other flags")
    run_grid(jobs, args.jobs)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    try:
        _run(_parser().parse_args(argv))
    except (BenchmarkError, OSError) as error:
        print(f"benchmarks.train: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
