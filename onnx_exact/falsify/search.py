"""Looks for a difference between two models: what is found is a fact, finding nothing no proof.

Random points, random and sparse corners, then projected gradient ascent on |new - old| through both
networks in float64; what is found is run in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains import Domain
from onnx_exact.elements import numpy_type
from onnx_exact.errors import NotVerifiedError, UncheckedError
from onnx_exact.verifier.chain import Layer, read_chain
from onnx_exact.verifier.clock import Clock
from onnx_exact.verifier.coverage import compare_signatures
from onnx_exact.verifier.front import Front
from onnx_exact.verifier.model import Input, Model
from onnx_exact.verifier.rounding import Array

POINTS = 256
STARTS = 48
STEPS = 60
# The first step, as a share of the sides of the box, and how fast steps get shorter.
STEP, DECAY = 0.25, 0.93
SPARSE = 0.1
# What is no difference: so many units in the last place of the largest output, and of 1.
ROUNDING_UNITS, FLOOR_UNITS = 256.0, 16.0
UNBOUNDED_RADIUS = 10.0
# Entries of a point, whatever sizes a model names.
MOST_ENTRIES = 2**26
# rtol and atol; None for those of the outputs' type, or 0 where the other is given.
Tolerances = tuple[float | None, float | None]
Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Searched:
    """Where nothing was found.

    Attributes:
        largest: difference that was seen.
        tolerance: the largest that was allowed.
        points: at which both models ran.
        notes: on what was not done.
    """

    largest: float
    tolerance: float
    points: int
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Pair:
    """Both networks from the only input to one output, and the box of that input."""

    old: tuple[Layer, ...]
    new: tuple[Layer, ...]
    low: Array
    high: Array


def search(
    old: Model, new: Model, domain: Domain, tolerances: Tolerances, clock: Clock
) -> Searched:
    """Tests whether two models agree over a domain.

    Args:
        old, new, domain: the models, and where they have to agree.
        tolerances: of a difference in onnxruntime.
        clock: when to stop.

    Raises:
        NotVerifiedError: they differ in signature, or at a point, which the error has.
        UncheckedError: they cannot be run, or the time is up.
    """
    compare_signatures(old, new, meaning=False)
    rng = np.random.default_rng(0)
    notes: list[str] = []
    pairs: list[Pair] = []
    try:
        pairs = [_pair(old, new, domain, value.name) for value in old.graph.output]
    except UncheckedError as error:
        why = str(error).removeprefix("cannot check: ")
        notes.append(f"Without gradients, at random points alone: {why}.")
    symbolic = all(i.shape is not None and None in i.shape for i in old.inputs)
    sizes = [1] * 8 + [2] * symbolic
    kinds = (None, 0.5, SPARSE)
    points = [_draw(old, domain, rng, share, size) for share in kinds for size in sizes]
    for pair in pairs:
        points += [_feed(old.inputs[0], point) for point in _ascend(pair, rng, clock)]
    return _run(old, new, points, tolerances, clock, tuple(notes))


def _sizes(spec: Input, size: int) -> tuple[int, ...]:
    """The shape of an input where every symbolic size is `size`."""
    if spec.shape is None:
        raise UncheckedError(f"cannot check: the rank of {spec.name!r} is not known")
    shape = tuple(size if n is None else n for n in spec.shape)
    if np.prod(shape, dtype=float) > MOST_ENTRIES:
        raise UncheckedError(f"cannot check: {spec.name!r} has too many entries")
    return shape


def _feed(spec: Input, point: Array) -> Feed:
    """A point of the only input as the model takes it; the domain holds what it is rounded to."""
    dtype = numpy_type(spec.elem_type) or np.dtype(np.float32)
    shape = _sizes(spec, 1)
    rows = int(np.prod(shape)) // len(point)
    return {spec.name: np.tile(point.astype(dtype), rows).reshape(shape)}


def _pair(old: Model, new: Model, domain: Domain, output: str) -> Pair:
    if len(old.inputs) != 1 or not old.inputs[0].is_float:
        raise UncheckedError("the model has more than one input")
    name = old.inputs[0].name
    chains = [read_chain(model, name, output) for model in (old, new)]
    if any(set(chain.before.trail) != {1} for chain in chains):
        raise UncheckedError("features lie in front of the samples")
    box = domain.boxes[name]
    low, high = Front(old, {name: (box.lower, box.upper)}).features(name, chains[0].before)
    return Pair(chains[0].layers, chains[1].layers, low, high)


def _draw(
    model: Model, domain: Domain, rng: np.random.Generator, share: float | None, size: int
) -> Feed:
    """A point: uniform for None, else a corner with that share of entries at the upper side.

    Symbolic axes have `size`.
    """
    feed = {}
    for spec in model.inputs:
        shape, dtype = _sizes(spec, size), numpy_type(spec.elem_type)
        if dtype is None:
            raise UncheckedError(f"cannot check: no point can be drawn of {spec.name!r}")
        if not spec.is_float:
            feed[spec.name] = rng.integers(0, 2, shape).astype(dtype)
            continue
        box = domain.boxes[spec.name]
        low = np.where(
            np.isfinite(box.lower), box.lower, np.minimum(box.upper, 0) - UNBOUNDED_RADIUS
        )
        high = np.where(np.isfinite(box.upper), box.upper, np.maximum(low, 0) + UNBOUNDED_RADIUS)
        chosen = rng.random(shape)
        at = low + chosen * (high - low) if share is None else np.where(chosen < share, high, low)
        feed[spec.name] = at.astype(dtype)
    return feed


def _ascend(pair: Pair, rng: np.random.Generator, clock: Clock) -> Array:
    """Points at which the two networks may be farthest apart, the worst first."""
    low, high = pair.low, pair.high
    drawn = rng.random((3, POINTS, low.size))
    points = np.concatenate(
        [
            low + drawn[0] * (high - low),
            np.where(drawn[1] < 0.5, high, low),
            np.where(drawn[2] < SPARSE, high, low),
        ]
    )
    x = points[np.argsort(-_apart(pair, points)[0])[:STARTS]]
    best, at = _apart(pair, x)[0], x.copy()
    length = STEP
    for _ in range(STEPS):
        clock.spend()
        _, gradient = _apart(pair, x)
        scale = np.abs(gradient).max(axis=1, keepdims=True)
        x = x + length * (high - low) * gradient / np.where(scale > 0.0, scale, 1.0)
        x = np.clip(x, low, high)
        for candidate in (x, np.where(gradient > 0.0, high, low)):
            value = _apart(pair, candidate)[0]
            better = value > best
            best, at[better] = np.where(better, value, best), candidate[better]
        length *= DECAY
    return at[np.argsort(-best)]


def _apart(pair: Pair, points: Array) -> tuple[Array, Array]:
    """The largest |new - old| of any output at each point, and its gradient."""
    old, new = (_forward(layers, points) for layers in (pair.old, pair.new))
    difference = new[-1] - old[-1]
    worst = np.abs(difference).argmax(axis=1)
    row = np.arange(len(points))
    seed = np.zeros_like(difference)
    seed[row, worst] = np.sign(difference[row, worst])
    gradient = _backward(pair.new, new, seed) - _backward(pair.old, old, seed)
    return np.abs(difference)[row, worst], gradient


def _forward(layers: tuple[Layer, ...], points: Array) -> list[Array]:
    values = [points]
    for layer in layers:
        g = values[-1] @ layer.weight.T + layer.bias
        values.append(np.maximum(g, 0.0) if layer.relu else g)
    return values


def _backward(layers: tuple[Layer, ...], values: list[Array], seed: Array) -> Array:
    for layer, value in zip(reversed(layers), reversed(values), strict=False):
        seed = (np.where(value > 0.0, seed, 0.0) if layer.relu else seed) @ layer.weight
    return seed


def _run(
    old: Model,
    new: Model,
    points: list[Feed],
    tolerances: Tolerances,
    clock: Clock,
    notes: tuple[str, ...],
) -> Searched:
    """Compares both models in onnxruntime at every point."""
    largest = tolerance = 0.0
    for feed, before, after in _outputs(old, new, points):
        clock.spend()
        for value, a, b in zip(old.graph.output, before, after, strict=True):
            apart, allowed = _apart_in_onnxruntime(a, b, tolerances)
            if not apart <= allowed:
                raise NotVerifiedError(
                    f"output {value.name!r} of {new.name} differs by {apart:.6g} from that of"
                    f" {old.name}",
                    feed,
                )
            largest, tolerance = max(largest, apart), max(tolerance, allowed)
    return Searched(largest, tolerance, len(points), notes)


def _apart_in_onnxruntime(a: Any, b: Any, tolerances: Tolerances) -> tuple[float, float]:
    """The largest difference of two outputs, inf where they are no numbers, and what is none."""
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)) or a.dtype.kind not in "fiu":
        return (0.0 if _equal(a, b) else np.inf), 0.0
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf, 0.0
    with np.errstate(all="ignore"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        gaps = np.where((a == b) | (np.isnan(x) & np.isnan(y)), 0.0, np.abs(x - y))
    # A number against none is the largest of all differences.
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    finite = float(np.abs(x[np.isfinite(x)]).max(initial=0.0))
    rtol, atol = tolerances
    if rtol is None and atol is None:
        unit = float(np.finfo(a.dtype).eps) if a.dtype.kind == "f" else 0.0
        rtol, atol = unit * ROUNDING_UNITS, unit * FLOOR_UNITS
    return float(gaps.max(initial=0.0)), (atol or 0.0) + (rtol or 0.0) * finite


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return bool(a == b)


def _outputs(old: Model, new: Model, points: list[Feed]) -> Iterator[tuple[Feed, Any, Any]]:
    """Every point with what both models compute there."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    model = old
    try:
        sessions = []
        for model in (old, new):
            sessions.append(_session(model))
        for feed in points:
            model = old
            before = sessions[0].run(None, feed)
            model = new
            yield feed, before, sessions[1].run(None, feed)
    except NotVerifiedError:
        raise
    except Exception as error:  # onnxruntime has no common base class for its errors
        reason = " ".join(str(error).split())[:200]
        raise UncheckedError(f"onnxruntime cannot run {model.name}: {reason}") from error


def _session(model: Model) -> Any:
    import onnxruntime

    file = str(model.source) if isinstance(model.source, Path) else model.source.SerializeToString()
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
