"""Looks for a difference between two models where no certificate says why there is none.

Random points, random and sparse corners, then projected gradient ascent on |new - old| through both
networks in float64; what is found is run in onnxruntime. Finding nothing proves nothing, but for
small networks `program` can.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains import Domain
from onnx_exact.elements import numpy_type
from onnx_exact.errors import NotVerifiedError
from onnx_exact.verifier.chain import Layer, input_box, read_chain
from onnx_exact.verifier.check import Verification, words
from onnx_exact.verifier.model import Model
from onnx_exact.verifier.outside import compare_signatures
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


@dataclass(frozen=True, eq=False)
class Pair:
    """Both networks from the only input to one output, and the box of that input."""

    output: str
    old: tuple[Layer, ...]
    new: tuple[Layer, ...]
    low: Array
    high: Array


def search(old: Model, new: Model, domain: Domain) -> Verification:
    """Tests whether two models agree over a domain, as far as that goes without a certificate.

    Raises:
        NotVerifiedError: they differ in signature, or at a point, which the error has.
    """
    compare_signatures(old, new)
    rng = np.random.default_rng(0)
    notes: list[str] = []
    pairs: list[Pair] = []
    try:
        pairs = [_pair(old, new, domain, value.name) for value in old.graph.output]
    except NotVerifiedError as error:
        notes.append(f"No gradients: {error}.")
    sizes = [1] * 8
    if all(old.shape(i.name, 2) not in (None, old.shape(i.name)) for i in old.inputs):
        sizes.append(2)
    kinds = (None, 0.5, SPARSE)
    points = [_draw(old, domain, rng, share, size) for share in kinds for size in sizes]
    for pair in pairs:
        points += [_feed(old, point) for point in _ascend(pair, rng)]
    largest, tolerance, count = _run(old, new, points)
    found = Verification(
        "search", words(domain), deviation=largest, points=count, tolerance=tolerance
    )
    if pairs:
        from onnx_exact.verifier.program import prove

        outcome = prove(pairs, tolerance, max(_seen_unstable(pair, rng) for pair in pairs))
        if outcome.proved:
            return replace(found, method="program")
        if outcome.point is not None:
            point = np.clip(outcome.point, pairs[0].low, pairs[0].high)
            _run(old, new, [_feed(old, point)])
        notes.append(f"No proof: {outcome.reason}.")
    return replace(found, notes=tuple(notes))


def _feed(model: Model, point: Array) -> dict[str, NDArray[Any]]:
    """A point of the only input as the model takes it; the domain holds what it is rounded to."""
    spec = model.inputs[0]
    dtype = numpy_type(spec.elem_type) or np.dtype(np.float32)
    return {spec.name: point.astype(dtype).reshape(model.shape(spec.name) or ())}


def _pair(old: Model, new: Model, domain: Domain, output: str) -> Pair:
    if len(old.inputs) != 1 or not old.inputs[0].is_float:
        raise NotVerifiedError("the model has more than one input")
    name = old.inputs[0].name
    sides = [{name: side} for side in (domain.boxes[name].lower, domain.boxes[name].upper)]
    box = input_box(old, name, *sides)
    layers = [read_chain(model, name, output).layers for model in (old, new)]
    return Pair(output, layers[0], layers[1], box.lower, box.upper)


def _draw(
    model: Model, domain: Domain, rng: np.random.Generator, share: float | None, size: int
) -> dict[str, NDArray[Any]]:
    """A point: uniform for None, else a corner with that share of entries at the upper side.

    Symbolic axes have `size`.
    """
    feed = {}
    for spec in model.inputs:
        shape, dtype = model.shape(spec.name, size), numpy_type(spec.elem_type)
        if shape is None or dtype is None:
            raise NotVerifiedError(f"cannot check: no point can be drawn of {spec.name!r}")
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


def _ascend(pair: Pair, rng: np.random.Generator) -> Array:
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


def _seen_unstable(pair: Pair, rng: np.random.Generator) -> int:
    """How many units of the old network random points show both signs of."""
    points = pair.low + rng.random((POINTS, pair.low.size)) * (pair.high - pair.low)
    h, count = points, 0
    for layer in pair.old:
        g = h @ layer.weight.T + layer.bias
        count += int(((g > 0.0).any(axis=0) & (g < 0.0).any(axis=0)).sum()) if layer.relu else 0
        h = np.maximum(g, 0.0) if layer.relu else g
    return count


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


def _run(old: Model, new: Model, points: list[dict[str, NDArray[Any]]]) -> tuple[float, float, int]:
    """The largest difference in onnxruntime, what is none, and at how many points they ran."""
    largest = tolerance = 0.0
    count = 0
    for feed, before, after in _outputs(old, new, points):
        count += 1
        for value, a, b in zip(old.graph.output, before, after, strict=True):
            if a.dtype.kind != "f" or a.shape != b.shape:
                same, apart = np.array_equal(a, b), np.inf
            else:
                unit = float(np.finfo(a.dtype).eps)
                finite = np.abs(a[np.isfinite(a)]).max(initial=0.0)
                allowed = unit * (ROUNDING_UNITS * float(finite) + FLOOR_UNITS)
                tolerance = max(tolerance, allowed)
                with np.errstate(invalid="ignore"):
                    gaps = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
                apart = float(gaps.max(initial=0.0))
                largest = max(largest, apart)
                same = bool(apart <= allowed)
            if not same:
                raise NotVerifiedError(f"output {value.name!r} differs by {apart:.6g}", feed)
    return largest, tolerance, count


def _outputs(
    old: Model, new: Model, points: list[dict[str, NDArray[Any]]]
) -> Iterator[tuple[dict[str, NDArray[Any]], list[Any], list[Any]]]:
    """Every point with what both models compute there."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        sessions = [
            onnxruntime.InferenceSession(str(model.path), providers=["CPUExecutionProvider"])
            for model in (old, new)
        ]
        for feed in points:
            before, after = (session.run(None, feed) for session in sessions)
            yield feed, before, after
    except NotVerifiedError:
        raise
    except Exception as error:  # onnxruntime has no common base class for its errors
        reason = " ".join(str(error).split())[:200]
        raise NotVerifiedError(f"onnxruntime cannot run the models: {reason}") from error
