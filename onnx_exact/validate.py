"""Runs two models in onnxruntime on the same inputs and compares every output.

Knows nothing of how one was made from the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains import Domain, InputLike
from onnx_exact.errors import ModelError, ValidationError
from onnx_exact.feeds import OTHER_SIZES, Feed, feeds, has_other_symbols

# The default tolerance, in units of the last place of an output's largest value. Real float32
# networks with units removed, merged and folded were seen to differ by up to 55 such units, from
# nothing but another order of summing; these allow five times that, 3e-5 of the largest value.
# onnxruntime rounds float16 once a node rather than once a product, so fewer units do there.
ROUNDING_UNITS = {"float16": 16.0, "float32": 256.0, "float64": 256.0}
# The same in absolute terms, for outputs near zero that are differences of values near 1.
FLOOR_UNITS = 16.0


@dataclass(frozen=True)
class Deviation:
    """How far apart the outputs of the two models were.

    Attributes:
        observed_max_abs: largest absolute difference of any entry of a floating-point output.
        points: number of points at which both models ran.
        worst_output: name of the output where it was seen.
    """

    observed_max_abs: float
    points: int
    worst_output: str


def validate(
    before: bytes | Path,
    after: bytes | Path,
    inputs: Sequence[InputLike],
    domain: Domain,
    *,
    extra: Sequence[Mapping[str, NDArray[Any]]] = (),
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    go_on: Callable[[], None] = lambda: None,
) -> Deviation:
    """Compares two models at points of the domain.

    Entries a (before) and b (after) of a floating-point output agree if |a - b| <= atol + rtol |a|,
    or if both are nan or the same infinity; those of any other output if they are equal. If neither
    tolerance is given, atol is `ROUNDING_UNITS` units in the last place of the largest finite value
    seen in that output, plus `FLOOR_UNITS` of those of 1. If one is given, the other is 0.

    Points at which the model before fails are left out.

    Args:
        before, after: serialized models, or paths.
        inputs: of the model before, in its order.
        domain: where to draw points.
        extra: more points. Each mapping holds, for some inputs, an array of k points of shape
            (k, *sample), where sample is the tensor without its first axis, or (k, *tensor).
        rtol, atol: see above.
        seed: of the random points.
        go_on: called before each run; what it raises ends the comparison.

    Raises:
        ValidationError: the outputs differ, or the model after cannot be loaded or run.
        ModelError: the model before cannot be loaded, or runs at no point.
    """
    reference = _Model(before, ModelError, "the model")
    candidate = _Model(after, ValidationError, "the rewritten model")
    if candidate.outputs != reference.outputs:
        raise ValidationError("the rewritten model has other outputs than the original")
    rng = np.random.default_rng(seed)
    if rtol is not None and atol is None:
        atol = 0.0
    comparison = _Comparison(rtol or 0.0)
    failure = ""
    for size in OTHER_SIZES:
        for feed, points in feeds(inputs, domain, extra, size, rng):
            go_on()
            try:
                expected = reference.run(feed)
            except _errors() as error:
                failure = failure or _one_line(error)
                continue
            try:
                found = candidate.run(feed)
            except _errors() as error:
                raise ValidationError(
                    f"the rewritten model fails where the original runs: {_one_line(error)}", feed
                ) from error
            comparison.add(feed, points, expected, found)
        if comparison.points or not has_other_symbols(inputs):
            break
    if not comparison.points:
        why = failure or "no input has a known rank"
        raise ModelError(f"the model runs at no point that was tried; give --samples ({why})")
    return comparison.result(atol)


class _Model:
    """One model loaded in onnxruntime, on one thread, silent."""

    def __init__(self, model: bytes | Path, kind: type[ModelError | ValidationError], name: str):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        source = str(model) if isinstance(model, Path) else model
        try:
            self._session = ort.InferenceSession(
                source, options, providers=["CPUExecutionProvider"]
            )
        except _errors() as error:
            raise kind(f"onnxruntime cannot load {name}: {_one_line(error)}") from error
        self.outputs = [output.name for output in self._session.get_outputs()]
        self._run_options = ort.RunOptions()
        self._run_options.log_severity_level = 4

    def run(self, feed: Feed) -> dict[str, NDArray[Any]]:
        """The outputs by name; members of sequences and maps as outputs of their own."""
        values = self._session.run(None, feed, self._run_options)
        return dict(
            leaf
            for name, value in zip(self.outputs, values, strict=True)
            for leaf in _leaves(name, value)
        )


def _leaves(name: str, value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(f"{name}[{index}]", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(f"{name}[{key!r}]", item)
    else:
        yield name, np.asarray(value)


def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model or an input that it cannot take."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type)]
    raised = tuple(kind for kind in own if issubclass(kind, Exception))
    return (*raised, RuntimeError, ValueError, TypeError)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:500]


class _Comparison:
    """The largest differences seen, output by output."""

    def __init__(self, rtol: float) -> None:
        self.points = 0
        self._rtol = rtol
        self._worst: dict[str, _Worst] = {}

    def add(self, feed: Feed, points: int, before: Feed, after: Feed) -> None:
        """Takes in the outputs of both models for one feed.

        Raises:
            ValidationError: outputs of other names, types or shapes.
        """
        self.points += points
        if list(before) != list(after):
            raise ValidationError(
                "the rewritten model gives a sequence or map of other length", feed
            )
        for name, expected in before.items():
            found = after[name]
            if found.dtype != expected.dtype or found.shape != expected.shape:
                raise ValidationError(
                    f"output {name!r} was {expected.dtype} of shape {expected.shape} and is now"
                    f" {found.dtype} of shape {found.shape}",
                    feed,
                )
            self._worst.setdefault(name, _Worst(expected.dtype)).add(
                feed, expected, found, self._rtol
            )

    def result(self, atol: float | None) -> Deviation:
        """The largest deviation.

        Raises:
            ValidationError: one is beyond the tolerance; it names the worst output.
        """
        beyond = {
            name: worst.excess / tolerance if tolerance else math.inf
            for name, worst in self._worst.items()
            if worst.excess > (tolerance := worst.tolerance(atol))
        }
        if beyond:
            name = max(beyond, key=lambda n: beyond[n])
            worst = self._worst[name]
            raise ValidationError(
                f"output {name!r} differs by {worst.excess_difference:.3g} where"
                f" {worst.tolerance(atol):.3g} {f'+ {self._rtol:g} |value| ' * bool(self._rtol)}"
                f"is allowed; {len(beyond)} of {len(self._worst)} outputs differ",
                worst.feed,
            )
        name = max(self._worst, key=lambda n: self._worst[n].largest)
        return Deviation(self._worst[name].largest, self.points, name)


class _Worst:
    """The largest differences seen in one output."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._scale = 0.0
        self.largest = 0.0  # absolute difference
        self.excess = 0.0  # the difference beyond rtol times the value
        self.excess_difference = 0.0
        self.feed: Feed | None = None

    def add(self, feed: Feed, before: NDArray[Any], after: NDArray[Any], rtol: float) -> None:
        """Takes in one pair of arrays of the same shape."""
        if not before.size:
            return
        if self._dtype.kind == "f":
            difference, size = _differences(before, after)
        else:
            difference = np.where(before == after, 0.0, np.inf)
            size = np.zeros(before.shape)
        self._scale = max(self._scale, float(size.max()))
        self.largest = max(self.largest, float(difference.max()))
        excess = difference - rtol * size
        worst = int(excess.argmax())
        if excess.flat[worst] > self.excess:
            self.excess = float(excess.flat[worst])
            self.excess_difference = float(difference.flat[worst])
            self.feed = {name: array.copy() for name, array in feed.items()}

    def tolerance(self, atol: float | None) -> float:
        """`atol`, or the default for the element type and the largest value seen."""
        if self._dtype.kind != "f":
            return 0.0
        if atol is not None:
            return atol
        units = ROUNDING_UNITS[self._dtype.name] * self._scale + FLOOR_UNITS
        return float(np.finfo(self._dtype).eps) * units


def _differences(
    before: NDArray[Any], after: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """|a - b|, infinite where only one is finite, and |a|, 0 where it is not finite."""
    a, b = before.astype(np.float64), after.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.where(finite, np.abs(a - b), np.inf))
    return difference, np.where(np.isfinite(a), np.abs(a), 0.0)
