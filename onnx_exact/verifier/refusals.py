"""The two ways to refuse: what is wrong, and what cannot be checked."""

from __future__ import annotations

from onnx_exact.errors import NotVerifiedError, UncheckedError


def require(holds: object, why: str) -> None:
    """Raises NotVerifiedError unless a claim holds.

    Args:
        holds: true or false.
        why: what is wrong, in words.
    """
    if not holds:
        raise NotVerifiedError(why)


def require_known(known: object, why: str) -> None:
    """Raises UncheckedError unless something can be checked."""
    if not known:
        raise UncheckedError(f"cannot check: {why}")
