"""The exceptions of the package: one tree, one line a message, the cause and the way out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnnxExactError(Exception):
    """What is wrong with the user's file, flag or machine.

    `exit_code` is the command's: 1 something was refuted, or could not be validated; 2 bad input;
    3 two models of which it could not be checked whether they agree.
    """

    exit_code = 2


class UsageError(OnnxExactError):
    """A flag or an argument that cannot be used as it stands."""


class ModelError(OnnxExactError):
    """A model that cannot be read, checked or run."""


class DomainError(OnnxExactError):
    """A domain that does not fit the model's inputs or is no box."""


class OutputError(OnnxExactError):
    """A result that cannot be written where it was asked for."""


class RefutedError(OnnxExactError):
    """Something said of two models that is wrong.

    Attributes:
        counterexample: the inputs that show it, by name; None where no input does.
    """

    exit_code = 1

    def __init__(
        self, message: str, counterexample: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        super().__init__(message)
        self.counterexample = counterexample


class NotVerifiedError(RefutedError):
    """Two models that are not what is claimed of them."""


class UncheckedError(NotVerifiedError):
    """A claim about two models that cannot be checked; nothing shows that it is wrong."""

    exit_code = 3


class ValidationError(RefutedError):
    """The rewritten model does not agree with the original."""


class TimeLimitError(OnnxExactError):
    """The time limit left no room for what has to be done before anything is written."""

    exit_code = 1


class ContradictionError(OnnxExactError):
    """A bound and a witness disagree: a defect of this package, never of the user's model."""

    exit_code = 1

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: a defect of onnx-exact, please report it with the model")
