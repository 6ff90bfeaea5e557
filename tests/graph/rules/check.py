"""Holds the intervals of one combination to onnxruntime and to onnx.reference."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnx_exact.graph import Ranges
from onnx_exact.graph.bounds.operators import OPERATORS, Effect
from onnx_exact.network import Box
from tests.graph.rules.combination import Combination
from tests.graph.rules.defects import is_wrong
from tests.graph.rules.points import BOXES, ROWS, boxes, integers, points

Array = NDArray[Any]
Feed = Mapping[str, Array]
Runtime = Callable[[Feed], list[Any]]

# Points of a graph whose first axis is none of points are run one by one.
SINGLE_RUNS = 5
# Sums may overflow inside of these, of which no interval is asked for.
NAN_INSIDE = {"GRU", "LSTM", "RNN"}
# What a runtime raises for a type, an attribute or a shape that it does not do.
REFUSALS = (Exception,)
# The definition is evaluated in float64: what that rounds, relative to the largest result.
REAL_SLACK = 2.0**-40
# What axes of a size that the model does not tell are fed with.
SYMBOLIC: dict[int | str, int] = {"n": 1, "one": 1, "three": 3}


@dataclass(frozen=True, eq=False)
class Trial:
    """A box for each float variable, and what is fed: all at once, or point after point."""

    domain: Mapping[str, Box]
    feeds: list[dict[str, Array]]


def count_points(combination: Combination) -> int:
    """How many points a combination is tried at, in each of its types."""
    variables = combination.variables.values()
    kinds = [helper.tensor_dtype_to_np_dtype(v.elem_type or TensorProto.FLOAT) for v in variables]
    in_boxes = BOXES if any(np.dtype(kind).kind == "f" for kind in kinds) else 1
    return in_boxes * (ROWS if all(v.rows for v in variables) else SINGLE_RUNS)


def trials(combination: Combination, elem_type: int) -> Iterator[Trial]:
    """The same for the same combination; a second variable goes through the boxes out of step."""
    text = f"{combination.op}{sorted(combination.attributes.items())}{elem_type}"
    rng = np.random.default_rng(list(text.encode()))
    variables = combination.variables
    sizes = {
        n: tuple(1 if isinstance(d, str) else d for d in v.shape) for n, v in variables.items()
    }
    fed = {n: tuple(SYMBOLIC.get(d, d) for d in v.shape) for n, v in variables.items()}
    dtypes = {
        n: np.dtype(helper.tensor_dtype_to_np_dtype(v.elem_type or elem_type))
        for n, v in variables.items()
    }
    listed = {n: list(boxes(sizes[n], d, rng)) for n, d in dtypes.items() if d.kind == "f"}
    for turn in range(max((len(found) for found in listed.values()), default=1)):
        domain = {
            name: found[(turn * (1 + 2 * place)) % len(found)]
            for place, (name, found) in enumerate(listed.items())
        }
        drawn = {
            name: points(_spread(domain[name], fed[name]), dtypes[name], rng)
            if name in domain
            else integers(fed[name], dtypes[name], rng)
            for name in variables
        }
        if all(variable.rows for variable in variables.values()):
            feeds = [{name: values[:, 0] for name, values in drawn.items()}]
        else:
            feeds = [{n: values[i] for n, values in drawn.items()} for i in range(SINGLE_RUNS)]
        yield Trial(domain, feeds)


def _spread(box: Box, sizes: tuple[int, ...]) -> Box:
    return Box(np.broadcast_to(box.lower, sizes), np.broadcast_to(box.upper, sizes))


def runtimes(model: ModelProto) -> dict[str, Runtime]:
    """Those that take the model at all: onnxruntime lacks some types, the reference attributes."""
    import onnxruntime

    found: dict[str, Runtime] = {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    with contextlib.suppress(*REFUSALS):
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        found["onnxruntime"] = lambda feed: list(session.run(None, dict(feed)))
    with contextlib.suppress(*REFUSALS):
        evaluator = ReferenceEvaluator(model)
        found["onnx.reference"] = lambda feed: list(evaluator.run(None, dict(feed)))
    return found


def violations(combination: Combination, elem_type: int) -> list[str]:
    """What is not in its interval, in words; empty where everything is.

    Raises:
        AssertionError: no runtime runs it.
    """
    model = combination.model(elem_type)
    running = {n: f for n, f in runtimes(model).items() if not is_wrong(n, combination)}
    if OPERATORS[combination.op].effect is Effect.COMPUTES and "onnx.reference" in running:
        definition = _over_the_reals(model, elem_type)
        running |= {} if definition is None else {"definition": definition}
    found: list[str] = []
    ran = set()
    for trial in trials(combination, elem_type):
        ranges = Ranges(model, trial.domain)
        limits = [ranges.of(f"y{i}") for i in range(combination.outputs)]
        for feed in trial.feeds:
            for name, values in _results(running, feed):
                ran.add(name)
                slack = REAL_SLACK if name == "definition" else 0.0
                open_inputs = combination.op in NAN_INSIDE or any(
                    v.dtype.kind == "f" and not np.isfinite(v).all() for v in feed.values()
                )
                for value, limit in zip(values, limits, strict=True):
                    wrong = _outside(value, limit, open_inputs, slack)
                    if wrong:
                        found.append(f"{name}: {wrong} for {_shown(trial.domain)}")
    assert ran, "no runtime runs it"
    return found


def _results(running: Mapping[str, Runtime], feed: Feed) -> Iterator[tuple[str, list[Any]]]:
    for name, run in running.items():
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                values = run(feed)
            except REFUSALS:
                continue
        yield name, values


def _over_the_reals(model: ModelProto, elem_type: int) -> Runtime | None:
    """The definition on the same numbers in float64, as near to the reals as there is."""
    if elem_type == TensorProto.DOUBLE:
        return None
    wide = ModelProto()
    wide.CopyFrom(model)
    for value in (*wide.graph.input, *wide.graph.output):
        if value.type.tensor_type.elem_type == elem_type:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for tensor in wide.graph.initializer:
        if tensor.data_type == elem_type:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    evaluator = ReferenceEvaluator(wide)
    narrow = np.dtype(helper.tensor_dtype_to_np_dtype(elem_type))

    def run(feed: Feed) -> list[Any]:
        widened = {n: v.astype(np.float64) if v.dtype == narrow else v for n, v in feed.items()}
        return list(evaluator.run(None, widened))

    return run


def _outside(value: Any, limit: Box, open_inputs: bool, slack: float) -> str:
    numbers = np.asarray(value).astype(np.float64)
    if numbers.ndim != limit.lower.ndim:
        return f"rank {numbers.ndim}, not {limit.lower.ndim}"
    if not numbers.size:
        return ""
    nothing_known = np.isinf(limit.lower) & np.isinf(limit.upper)
    finite = np.abs(numbers[np.isfinite(numbers)])
    room = slack * finite.max(initial=0.0)
    undefined = np.isnan(numbers)
    with np.errstate(invalid="ignore"):
        bad = (numbers < limit.lower - room) | (numbers > limit.upper + room)
        if slack:
            bad &= np.isfinite(numbers)
    if not (open_inputs or slack):
        bad |= undefined & ~nothing_known
    if not bad.any():
        return ""
    place = tuple(int(i) for i in np.argwhere(bad)[0])
    low, high = (np.broadcast_to(v, numbers.shape)[place] for v in (limit.lower, limit.upper))
    return f"{numbers[place]!r} is not in [{low!r}, {high!r}]"


def _shown(domain: Mapping[str, Box]) -> str:
    return ", ".join(f"{n} in [{b.lower.min()}, {b.upper.max()}]" for n, b in domain.items())
