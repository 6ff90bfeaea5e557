"""Runs two models on the same inputs, and has their chains and their outputs judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto

from onnx_exact.domains import Domain, InputLike
from onnx_exact.errors import ModelError, ValidationError
from onnx_exact.graph.locate import LocatedChain
from onnx_exact.inputs.feeds import OTHER_SIZES, Feed, feeds, has_other_symbols
from onnx_exact.validate.judge import ChainDeviation, ChainJudge, Rewritten
from onnx_exact.validate.outputs import Comparison, Tolerance
from onnx_exact.validate.outside import check_outside
from onnx_exact.validate.sessions import Session, errors, leaves, one_line, tapped


@dataclass(frozen=True)
class Deviation:
    """How far apart the two models were in onnxruntime.

    Attributes:
        observed_max_abs: largest absolute difference of any entry of an output.
        points: number of points at which both models ran.
        worst_output: name of the output where it was seen.
        chains: the same at the outputs of the chains that were replaced.
    """

    observed_max_abs: float
    points: int
    worst_output: str
    chains: tuple[ChainDeviation, ...] = ()

    def behind(self, first: Deviation) -> Deviation:
        """That of two steps together, at most: what was seen of each is added up."""
        larger = max(self, first, key=lambda step: step.observed_max_abs)
        total = self.observed_max_abs + first.observed_max_abs
        points = min(self.points, first.points)
        return Deviation(total, points, larger.worst_output, self.chains)


def validate(
    before: bytes | Path,
    after: bytes | Path,
    inputs: Sequence[InputLike],
    domain: Domain,
    *,
    original: ModelProto | None = None,
    chains: Sequence[Rewritten] = (),
    extra: Sequence[Mapping[str, NDArray[Any]]] = (),
    rtol: float | None = None,
    atol: float | None = None,
    seed: int = 0,
    go_on: Callable[[], None] = lambda: None,
) -> Deviation:
    """Compares two models at points of the domain.

    With `chains`, the models have to be the same outside of these (`validate.outside`), each has to
    be what it was in float64 and in onnxruntime (`validate.judge`), and the outputs are judged by a
    tolerance only if one is given. Without, the outputs are all there is to judge, by default to
    `outputs.ROUNDING_UNITS` units in the last place of the largest finite value seen in each, plus
    `outputs.FLOOR_UNITS` of those of 1.

    A given tolerance holds for numbers of every type: entries a (before) and b (after) agree if
    |a - b| <= atol + rtol |a|, or if both are nan or the same infinity; all else if it is equal. If
    one is given, the other is 0. No value may become nan or infinite.

    Points at which the model before fails are left out.

    Args:
        before, after: serialized models, or paths.
        inputs: of the model before, in its order.
        domain: where to draw points.
        original: the model before with its external data loaded; read from `before` if not given.
        chains: what was replaced.
        extra: more points. Each mapping holds, for some inputs, an array of k points of shape
            (k, *sample), where sample is the tensor without its first axis, or (k, *tensor).
        rtol, atol: see above.
        seed: of the random points.
        go_on: called before each run; what it raises ends the comparison.

    Raises:
        ValidationError: the models do not agree, or the one after cannot be loaded or run.
        ModelError: the model before cannot be loaded, or runs at no point.
    """
    # Sessions first: what they take while they are made is more than what they keep.
    pair = _Pair(before, after, [c.located for c in chains])
    judges = _judges(before, original, after, chains)
    comparison = Comparison(Tolerance(rtol, atol, default=not chains))
    rng = np.random.default_rng(seed)
    failure = ""
    for size in OTHER_SIZES:
        for feed, points in feeds(inputs, domain, extra, size, rng):
            go_on()
            try:
                expected = pair.before(feed)
            except errors() as error:
                failure = failure or one_line(error)
                continue
            try:
                found = pair.after(feed)
            except errors() as error:
                raise ValidationError(
                    f"the rewritten model fails where the original runs: {one_line(error)}", feed
                ) from error
            for judge in judges:
                judge.add(feed, expected.inside, found.inside)
            comparison.add(feed, points, expected.outputs, found.outputs)
        if comparison.points or not has_other_symbols(inputs):
            break
    if not comparison.points:
        why = failure or "no input has a known rank"
        raise ModelError(f"the model runs at no point that was tried; give --samples ({why})")
    deviations = tuple(judge.result() for judge in judges)
    largest, worst = comparison.result()
    return Deviation(largest, comparison.points, worst, deviations)


def _judges(
    before: bytes | Path,
    original: ModelProto | None,
    after: bytes | Path,
    chains: Sequence[Rewritten],
) -> list[ChainJudge]:
    """A judge for each chain; the new model is read from what was written, and let go."""
    if not chains:
        return []
    original, new = original or _loaded(before), _loaded(after)
    check_outside(original, new, [(c.located.input, c.located.output) for c in chains])
    return [ChainJudge(chain, original, new) for chain in chains]


def _loaded(model: bytes | Path) -> ModelProto:
    return onnx.load(model) if isinstance(model, Path) else ModelProto.FromString(model)


@dataclass(frozen=True, eq=False)
class _Values:
    """What a model puts out, sequences and maps taken apart, and its tensors at the chains."""

    outputs: Feed
    inside: Feed


class _Pair:
    """Both models, as users run them and with the tensors at the chains as further outputs."""

    def __init__(
        self, before: bytes | Path, after: bytes | Path, chains: Sequence[LocatedChain]
    ) -> None:
        names = ("the model", "the rewritten model")
        models, kinds = (before, after), (ModelError, ValidationError)
        plain = [Session(m, k, n) for m, k, n in zip(models, kinds, names, strict=True)]
        if plain[0].outputs != plain[1].outputs:
            raise ValidationError("the rewritten model has other outputs than the original")
        wanted = dict.fromkeys(name for chain in chains for name in (chain.input, chain.output))
        hidden = [n for n in wanted if n not in {*plain[0].inputs, *plain[0].outputs}]
        inner: list[Session | None] = [None, None]
        if hidden:
            inner = [tapped(m, hidden, k, n) for m, k, n in zip(models, kinds, names, strict=True)]
        self._before, self._after = zip(plain, inner, strict=True)
        self._wanted = tuple(wanted)

    def before(self, feed: Feed) -> _Values:
        """Runs the model before."""
        return self._run(*self._before, feed)

    def after(self, feed: Feed) -> _Values:
        """Runs the model after."""
        return self._run(*self._after, feed)

    def _run(self, plain: Session, inner: Session | None, feed: Feed) -> _Values:
        outputs = plain.run(feed)
        known = feed | outputs | (inner.run(feed) if inner is not None else {})
        return _Values(leaves(outputs), {name: known[name] for name in self._wanted})
