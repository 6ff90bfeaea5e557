"""Certificates that `optimize` writes are accepted; what random changes leave of them is refused,
or still true in exact arithmetic."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_exact.errors import NotVerifiedError, UsageError
from onnx_exact.network import Affine, Chain, Layer
from onnx_exact.pipeline import optimize_file
from onnx_exact.verified import Verification, verify
from onnx_exact.verifier.chain import read_chain, read_constant
from onnx_exact.verifier.model import Model
from tests.oracle.networks import SOURCES, Case, random_case
from tests.oracle.regions import Enumeration, enumerate_regions, largest_difference
from tests.verifier.build import Written, gemm_model, read

SEEDS = range(12)  # of each family
MUTATIONS = 15  # of each network
CLAIMED = 4
UNSTABLE = 3
EVERY_CASE = [(family, seed) for family in SOURCES for seed in SEEDS]


@functools.cache
def solved(family: str, seed: int) -> tuple[Case, Enumeration]:
    case = random_case(family, seed)
    return case, enumerate_regions(case.chain, case.box)


def optimized(family: str, seed: int, folder: Path) -> Written:
    case, _ = solved(family, seed)
    layers = [(x.affine.weight, x.affine.bias, x.relu) for x in case.chain.layers]
    paths = [folder / name for name in ("old.onnx", "new.onnx", "certificate.npz")]
    onnx.save(gemm_model(layers), paths[0])
    box = {"x": (case.box.lower, case.box.upper)}
    optimize_file(paths[0], paths[1], domain=box, certificate=paths[2])
    return read(*paths)


def check(written: Written) -> Verification:
    return verify(written.old, written.new, written.certificate)


def assert_true(written: Written, found: Verification, family: str, seed: int) -> None:
    """All that was accepted holds in rational arithmetic."""
    case, exact = solved(family, seed)
    old, new = (Model(path, "a model") for path in (written.old, written.new))
    first = read_chain(old, "x", "y")
    second = read_constant(new, "x", "y", first) or read_chain(new, "x", "y")
    chain = Chain(tuple(Layer(Affine(x.weight, x.bias), x.relu) for x in second.layers))
    worst = max(largest_difference(exact.regions, chain))
    assert worst <= Fraction(found.deviation), case
    truth = [statuses for statuses in exact.statuses if statuses is not None]
    if len(truth) != len([k for k in written.arrays if k.endswith("_status")]):
        return  # Linear layers were folded: units are numbered otherwise.
    names = sorted(k for k in written.arrays if k.endswith("_status"))
    for name, statuses in zip(names, truth, strict=True):
        proofs = written.arrays[name.replace("status", "proof")]
        for claimed, proof, true in zip(written.arrays[name], proofs, statuses, strict=True):
            both = claimed in (1, 2) and true in (1, 2)  # g = 0 throughout is either
            if proof not in (0, CLAIMED) and not both:
                assert claimed == true, case


@pytest.mark.parametrize(("family", "seed"), EVERY_CASE)
def test_what_optimize_writes_is_accepted_and_true(family: str, seed: int, tmp_path: Path) -> None:
    written = optimized(family, seed, tmp_path)
    assert_true(written, check(written), family, seed)


@pytest.mark.parametrize(("family", "seed"), EVERY_CASE)
def test_random_mutations_are_refused_or_still_true(family: str, seed: int, tmp_path: Path) -> None:
    written = optimized(family, seed, tmp_path)
    rng = np.random.default_rng(seed)
    weights = written.new.read_bytes()
    for _ in range(MUTATIONS):
        changed = mutated(written, rng)
        with contextlib.suppress(NotVerifiedError, UsageError):
            assert_true(changed, check(changed), family, seed)
        written.new.write_bytes(weights)


def mutated(written: Written, rng: np.random.Generator) -> Written:
    """With one thing changed; a changed model is entered into the certificate."""
    kind = rng.integers(6)
    name = str(rng.choice(sorted(written.arrays)))
    if kind <= 2:
        return written.changed(**{name: other_entry(written.arrays[name], rng)})
    if kind == 3:
        return shuffled(written, name, rng)
    if kind == 4:
        return other_header(written, rng)
    model = onnx.load(written.new)
    tensor = model.graph.initializer[rng.integers(len(model.graph.initializer))]
    values = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    flat[rng.integers(flat.size)] *= np.float32(1.001)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, written.new)
    return written.changed({"result": {"sha256": Model(written.new, "a model").sha256, "bytes": 0}})


def other_entry(values: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """One entry is another one of the same type, mostly one that could be."""
    values = values.copy()
    flat = values.reshape(-1)
    if not flat.size:
        return values
    at = rng.integers(flat.size)
    if values.dtype == np.bool_:
        flat[at] = not flat[at]
    elif values.dtype.kind == "f":
        flat[at] = rng.choice([0.0, -1.0, 0.5, 2.0, 1e30, -1e30, np.nan, np.inf, 1e-40])
    else:
        flat[at] = np.array(rng.choice([-1, 0, 1, 2, 3, 4, 5, 6, 100])).astype(values.dtype)
    return values


def shuffled(written: Written, name: str, rng: np.random.Generator) -> Written:
    """An array in another order, cut, or gone."""
    values = written.arrays[name]
    how = rng.integers(3)
    if how == 0:
        return written.changed(**{name: rng.permutation(values)})
    return written.changed(**{name: values[:-1] if how == 1 else None})


def other_header(written: Written, rng: np.random.Generator) -> Written:
    """One number of the header is another one."""
    header = copy.deepcopy(written.header)
    places: list[tuple[Any, Any]] = []
    waiting: list[Any] = [header]
    while waiting:
        inside = waiting.pop()
        for key in inside if isinstance(inside, dict) else range(len(inside)):
            value = inside[key]
            if isinstance(value, dict | list):
                waiting.append(value)
            elif isinstance(value, int | float):
                places.append((inside, key))
    inside, key = places[rng.integers(len(places))]
    inside[key] = [0, 1, -1, True, 1.5, 2.5e7, 10**30][rng.integers(7)]
    json.dumps(header)
    return written.changed(header)


def test_the_mutations_are_at_least_two_hundred() -> None:
    assert len(EVERY_CASE) * MUTATIONS >= 200
