"""A grammar of lies: honest certificates with one thing in them, or in a model, that is false.

A lie about numbers counts as one only where exact arithmetic shows a claim to be false: a verdict
that is not the true one, or outputs that differ by more than is claimed. A lie about graphs counts
only where onnxruntime shows that the two models are not the same function, or do not take the same
inputs. Each has a true sibling, of the same form, that has to be accepted.
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from onnx_exact.network import Affine, Box, Chain, Layer
from onnx_exact.pipeline import optimize_file
from onnx_exact.verifier.chain import read_chain, read_constant
from onnx_exact.verifier.model import Model
from tests.oracle.networks import Case, random_case
from tests.oracle.regions import Enumeration, enumerate_regions, largest_difference
from tests.verifier.build import Written, gemm_model, read

FAMILIES = ("normal", "dyadic")
INACTIVE, ACTIVE, UNSTABLE = 1, 2, 3
BOUNDS, SLOPES, TREE, CLAIMED, WITNESS, UNSHOWN = range(1, 7)
# What a claimed deviation may fall short of the true one before that counts as false.
SHARE, ROUNDING = Fraction(102, 100), Fraction(1, 10**11)
# Splits on the way to a leaf of a random tree.
DEEPEST = 6
Random = np.random.Generator
Mutation = Callable[[Written, Random], Written | None]


@dataclass(frozen=True, eq=False)
class Network:
    """A small network, and its exact truth over a box."""

    case: Case
    seed: int

    def exact(self, box: Box) -> Enumeration:
        """Its regions."""
        return enumerate_regions(self.case.chain, box)


@functools.cache
def network(family: str, seed: int) -> Network:
    """The same one every time."""
    return Network(random_case(family, seed), seed)


@functools.cache
def truth(family: str, seed: int) -> Enumeration:
    """Of the network over its own box."""
    found = network(family, seed)
    return found.exact(found.case.box)


def honest(family: str, seed: int, folder: Path) -> Written:
    """What `optimize` writes of a network."""
    case = network(family, seed).case
    layers = [(x.affine.weight.tolist(), x.affine.bias.tolist(), x.relu) for x in case.chain.layers]
    paths = [folder / name for name in ("old.onnx", "new.onnx", "certificate.npz")]
    onnx.save(gemm_model(layers), paths[0])
    box = {"x": (case.box.lower, case.box.upper)}
    optimize_file(paths[0], paths[1], domain=box, certificate=paths[2])
    return read(*paths)


def rests_on_claims(written: Written) -> bool:
    """Whether it is honest and says that it is no proof."""
    return any((a == CLAIMED).any() for n, a in written.arrays.items() if n.endswith("_proof"))


def is_constant(written: Written) -> bool:
    """Whether the result is a constant, which has no layers for a graph to be built around."""
    return any(node.op_type == "Expand" for node in onnx.load(written.new).graph.node)


def is_false(written: Written, family: str, seed: int) -> bool:
    """Whether exact arithmetic shows a claim of the certificate to be false."""
    case = network(family, seed).case
    domain = written.header["domain"]["x"]
    sides = [np.broadcast_to(np.asarray(domain[s], float), (1, case.chain.n_in)) for s in SIDES]
    box = Box(sides[0].reshape(-1), sides[1].reshape(-1))
    same = np.array_equal(box.lower, case.box.lower) and np.array_equal(box.upper, case.box.upper)
    exact = truth(family, seed) if same else network(family, seed).exact(box)
    tensors = onnx.load(written.new).graph.initializer
    if not all(np.isfinite(numpy_helper.to_array(t)).all() for t in tensors):
        return True
    old, new = (Model(path, "a model") for path in (written.old, written.new))
    first = read_chain(old, "x", "y")
    second = read_constant(new, "x", "y", first) or read_chain(new, "x", "y")
    chain = Chain(tuple(Layer(Affine(x.weight, x.bias), x.relu) for x in second.layers))
    claimed = Fraction(float(written.header["deviation"]["certified_max_abs"]))
    largest = max(abs(v) for pair in exact.outputs for v in pair)
    if max(largest_difference(exact.regions, chain)) > SHARE * claimed + ROUNDING * (1 + largest):
        return True
    return any(_wrong(written, exact))


SIDES = ("lower", "upper")


def _wrong(written: Written, exact: Enumeration) -> Iterator[bool]:
    statuses = [found for found in exact.statuses if found is not None]
    names = sorted(name for name in written.arrays if name.endswith("_status"))
    if len(names) != len(statuses):
        return  # Linear layers were folded: units are numbered otherwise.
    for name, true in zip(names, statuses, strict=True):
        for claimed, status in zip(written.arrays[name].tolist(), true, strict=True):
            # A pre-activation that is 0 throughout is either.
            either = claimed in (INACTIVE, ACTIVE) and status in (INACTIVE, ACTIVE)
            yield claimed != 0 and claimed != status and not either


# -- lies about numbers --


def _with(written: Written, arrays: Mapping[str, Any]) -> Written:
    """With other arrays."""
    return written.changed(**dict(arrays))


def _layers(written: Written) -> list[int]:
    return [k for k, relu in enumerate(written.header["chains"][0]["relu"]) if relu]


def _any(values: Any, rng: Random) -> Any:
    return values[int(rng.integers(len(values)))]


def status(written: Written, rng: Random) -> Written | None:
    """A unit is said to be what it is not, by any kind of proof."""
    if not _layers(written):
        return None
    k = _any(_layers(written), rng)
    found, proof = (written.arrays[f"c0_l{k}_{what}"].copy() for what in ("status", "proof"))
    unit = int(rng.integers(len(found)))
    found[unit] = _any([s for s in (INACTIVE, ACTIVE, UNSTABLE) if s != found[unit]], rng)
    kinds = (WITNESS, UNSHOWN) if found[unit] == UNSTABLE else (BOUNDS, SLOPES, TREE, CLAIMED)
    proof[unit] = _any(kinds, rng)
    return _with(written, {f"c0_l{k}_status": found, f"c0_l{k}_proof": proof})


def tree(written: Written, rng: Random) -> Written | None:
    """The same, with a splitting of the box or of signs that is said to prove it."""
    k, changed = _stable(written, rng, TREE)
    if changed is None:
        return None
    unit, claimed = changed[1], changed[2]
    number = len(written.header["chains"][0]["trees"])
    kind = "relu" if k and rng.random() < 0.5 else "box"
    arrays: dict[str, NDArray[Any]] = {
        "units": np.array([unit], np.int32),
        "positive": np.array([claimed == INACTIVE]),
    }
    inputs = network_inputs(written)
    if kind == "box":
        arrays["nodes"] = np.array(_random_nodes(inputs, rng), np.int16)
    else:
        below = [j for j in _layers(written) if j < k]
        if not below:
            return None
        at = _any(below, rng)
        width = written.header["chains"][0]["widths"][at]
        loose = sum(_loose(changed[0], j) for j in below)
        arrays["nodes"] = np.array([[at, rng.integers(width)], [-1, -1], [-1, -1]], np.int32)
        arrays["slopes"] = rng.integers(0, 256, (2, loose)).astype(np.uint8)
        arrays["multipliers"] = rng.random(2).astype(np.float32)
    heads = [*written.header["chains"][0]["trees"], {"kind": kind, "layer": k}]
    made = {f"c0_t{number}_{name}": array for name, array in arrays.items()}
    return _with(changed[0].chain(trees=heads), made)


def _random_nodes(inputs: int, rng: Random, depth: int = 0) -> list[int]:
    if depth > DEEPEST or rng.random() < 0.4:
        return [-1]
    parts = (_random_nodes(inputs, rng, depth + 1) for _ in range(2))
    return [int(rng.integers(inputs)), *(side for part in parts for side in part)]


def _loose(written: Written, k: int) -> int:
    found, proof = (written.arrays[f"c0_l{k}_{what}"] for what in ("status", "proof"))
    return int((np.isin(found, (0, UNSTABLE)) | (proof == CLAIMED)).sum())


def network_inputs(written: Written) -> int:
    """How many inputs its chain has."""
    sides = written.header["domain"]["x"]
    sizes = [np.asarray(sides[side]).size for side in SIDES]
    shape = onnx.load(written.old).graph.input[0].type.tensor_type.shape.dim
    return max(*sizes, int(shape[1].dim_value))


def _stable(written: Written, rng: Random, by: int) -> tuple[int, tuple[Written, int, int] | None]:
    """A unit that is not said to be stable is; its layer, what that makes, the unit and how."""
    open_ = [
        (k, unit)
        for k in _layers(written)
        for unit in np.flatnonzero(np.isin(written.arrays[f"c0_l{k}_status"], (0, UNSTABLE)))
    ]
    if not open_:
        return 0, None
    k, unit = _any(open_, rng)
    found, proof = (written.arrays[f"c0_l{k}_{what}"].copy() for what in ("status", "proof"))
    found[unit], proof[unit] = _any((INACTIVE, ACTIVE), rng), by
    changed = _with(written, {f"c0_l{k}_status": found, f"c0_l{k}_proof": proof})
    return k, (changed, int(unit), int(found[unit]))


def slopes(written: Written, rng: Random) -> Written | None:
    """The same, with slopes that are said to prove it."""
    k, changed = _stable(written, rng, SLOPES)
    if changed is None or not k:
        return None
    loose = sum(_loose(changed[0], j) for j in _layers(written) if j < k)
    return _with(
        changed[0],
        {
            f"c0_l{k}_slopes_unit": np.array([changed[1]], np.int32),
            f"c0_l{k}_slopes_positive": np.array([changed[2] == INACTIVE]),
            f"c0_l{k}_slopes": rng.integers(0, 256, (1, loose)).astype(np.uint8),
        },
    )


def witnesses(written: Written, rng: Random) -> Written | None:
    """A stable unit is said to be unstable, by points in the box and beyond."""
    if not _layers(written):
        return None
    k = _any(_layers(written), rng)
    found, proof = (written.arrays[f"c0_l{k}_{what}"].copy() for what in ("status", "proof"))
    unit = int(rng.integers(len(found)))
    found[unit], proof[unit] = UNSTABLE, WITNESS
    points = (10.0 ** rng.integers(0, 4)) * rng.normal(size=(16, network_inputs(written)))
    arrays = {f"c0_l{k}_status": found, f"c0_l{k}_proof": proof, "c0_witnesses": points}
    return _with(written, arrays)


def place(written: Written, rng: Random) -> Written | None:
    """Units live on elsewhere, and the result is changed to go with it."""
    names = sorted(n for n in written.arrays if n.startswith("c0_m") and n.endswith("_unit"))
    name = _any(names, rng)
    places = written.arrays[name].copy()
    places[int(rng.integers(len(places)))] = rng.integers(-3, max(places.max(), 0) + 1)
    return weights(_with(written, {name: places}), rng)


def factor(written: Written, rng: Random) -> Written | None:
    """Units live on another number of times, and the result is changed."""
    k = int(rng.integers(len(written.header["chains"][0]["sources"])))
    units = len(written.arrays[f"c0_m{k}_unit"])
    factors = written.arrays.get(f"c0_m{k}_factor", np.ones(units)).copy()
    factors[int(rng.integers(units))] *= _any((0.5, 2.0, -1.0, -2.0, 1e-3, 1e3, 1.0 + 1e-3), rng)
    return weights(_with(written, {f"c0_m{k}_factor": factors}), rng)


def domain(written: Written, rng: Random) -> Written | None:
    """All is said of a wider box, in the metadata of the result too."""
    sides = written.header["domain"]["x"]
    low, high = (np.asarray(sides[side], dtype=float) for side in SIDES)
    more = float(_any((0.25, 1.0, 4.0), rng))
    wider = {"x": {"lower": (low - more).tolist(), "upper": (high + more).tolist()}}
    model = onnx.load(written.new)
    for entry in model.metadata_props:
        if entry.key == "onnx_exact.domain":
            entry.value = json.dumps(wider)
    return marked(written.changed({"domain": wider}), new=model)


def deviation(written: Written, rng: Random) -> Written | None:
    """The outputs, of which a weight is another one, are said to differ by less than they do."""
    made = weights(written, rng)
    if made is None:
        return None
    claimed = float(written.header["deviation"]["certified_max_abs"])
    less = _any((0.0, 0.5 * claimed, -1.0), rng)
    return made.changed({"deviation": {"certified_max_abs": less}})


def weights(written: Written, rng: Random) -> Written | None:
    """A number of the result is another one, or none."""
    model = onnx.load(written.new)
    tensors = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    if not tensors:
        return None
    tensor = _any(tensors, rng)
    values = numpy_helper.to_array(tensor).copy()
    if not values.size:
        return None
    at = int(rng.integers(values.size))
    values.flat[at] = _any((-1.0, 0.5, 1.01, 2.0), rng) * values.flat[at] + _any((0.0, 0.25), rng)
    if rng.random() < 0.1:
        values.flat[at] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return marked(written, new=model)


def order(written: Written, rng: Random) -> Written | None:
    """The units of a layer of the result are in another order than they are read in."""
    model = onnx.load(written.new)
    tensors = [t for t in model.graph.initializer if len(t.dims) and t.dims[0] > 1]
    if not tensors:
        return None
    tensor = _any(tensors, rng)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(rng.permutation(values), tensor.name))
    return marked(written, new=model)


NUMBERS: dict[str, Mutation] = {
    "status": status,
    "tree": tree,
    "slopes": slopes,
    "witnesses": witnesses,
    "map": place,
    "factor": factor,
    "domain": domain,
    "deviation": deviation,
    "weights": weights,
    "order": order,
}


def marked(
    written: Written, old: ModelProto | None = None, new: ModelProto | None = None
) -> Written:
    """With other models beside it, of which it names the hashes."""
    paths = {}
    for name, path, model in (("original", written.old, old), ("result", written.new, new)):
        if model is not None:
            path = path.with_name(f"lie_{path.name.removeprefix('lie_')}")
            onnx.save(model, path)
        paths[name] = path
    header = copy.deepcopy(written.header)
    for name, path in paths.items():
        header[name] = {"sha256": Model(path, name).sha256, "bytes": path.stat().st_size}
    made = replace(written, old=paths["original"], new=paths["result"])
    return made.changed(header)


def beside(written: Written, name: str) -> Written:
    """The same certificate in a file of its own, which changes leave alone."""
    made = replace(written, certificate=written.certificate.with_name(f"{name}.npz"))
    made.save()
    return made


def number_lies(
    written: Written, family: str, seed: int, rng: Random, tries: int
) -> Iterator[tuple[str, Written]]:
    """Lies about the numbers of one network: random changes of which a claim is false."""
    for _ in range(tries):
        kind = _any(sorted(NUMBERS), rng)
        changed = NUMBERS[kind](beside(written, "lie"), rng)
        if changed is not None and is_false(changed, family, seed):
            yield kind, changed
