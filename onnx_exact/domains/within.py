"""The domain of a run on a model that may carry one: it is valid there alone, and so is the result.

What is made of a model over a domain equals it on that domain only. Whoever takes the result for a
model of its own and declares more has to say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_exact.domains.domain import DOMAIN_KEY, Domain, InputLike
from onnx_exact.domains.spec import DomainLike, carried_domain, is_given, resolve_domain
from onnx_exact.errors import DomainError
from onnx_exact.network import Box

_ANEW = "--rebase with --domain to take this file as the original"


def domain_of_run(
    spec: DomainLike | None,
    inputs: Sequence[InputLike],
    metadata: Mapping[str, str],
    *,
    rebase: bool,
) -> Domain:
    """The domain of a run: the one given, which the model's own has to hold, or else its own.

    Args:
        spec, inputs, metadata: as for `resolve_domain`.
        rebase: the file itself is the original: a given domain stands, whatever the metadata say.

    Raises:
        DomainError: what is given or carried cannot be used, or reaches beyond what is carried.
    """
    if rebase and is_given(spec):
        return resolve_domain(spec, inputs, {})
    try:
        carried = carried_domain(inputs, metadata)
    except DomainError as error:
        raise DomainError(f"{error}; give {_ANEW}") from error
    if carried is None or not is_given(spec):
        return carried or resolve_domain(spec, inputs, {})
    given = resolve_domain(spec, inputs, {})
    _refuse_beyond(given, carried)
    return given


def same_boxes(first: Domain, second: Domain) -> bool:
    """Whether two domains of the same inputs hold the same points."""
    pairs = (_aligned(box, second.boxes[name]) for name, box in first.boxes.items())
    return all(
        np.array_equal(one.lower, other.lower) and np.array_equal(one.upper, other.upper)
        for one, other in pairs
    )


def _aligned(first: Box, second: Box) -> tuple[Box, Box]:
    """Two boxes of one input, of which one may have a row for all, with rows for both."""
    if first.lower.shape == second.lower.shape:
        return first, second
    shape = np.broadcast_shapes(first.lower.shape, second.lower.shape)
    one, other = (
        Box(np.broadcast_to(b.lower, shape), np.broadcast_to(b.upper, shape), b.source)
        for b in (first, second)
    )
    return one, other


def _refuse_beyond(given: Domain, carried: Domain) -> None:
    """Raises unless every point of one domain lies in the other, input by input."""
    for name, box in given.boxes.items():
        box, own = _aligned(box, carried.boxes[name])
        beyond = np.flatnonzero((box.lower < own.lower) | (box.upper > own.upper))
        if beyond.size:
            raise DomainError(
                f"{given.source}: the model is valid over the domain in its metadata"
                f" ({DOMAIN_KEY!r}) alone, and input {name!r} reaches beyond it"
                f" ({_entry(box, beyond)} is not within {_entry(own, beyond)}); give a domain"
                f" within it, the model that it was made from, or {_ANEW}"
            )


def _entry(box: Box, entries: NDArray[np.intp]) -> str:
    """The sides of the first of some entries, in words; every digit counts here."""
    low, high = (float(side.flat[entries[0]]) for side in (box.lower, box.upper))
    return f"[{low!r}, {high!r}]"
