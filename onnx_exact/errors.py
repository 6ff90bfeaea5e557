"""The exceptions of the package: one tree, one line a message, the cause and the way out."""


class OnnxExactError(Exception):
    """What is wrong with the user's file, flag or machine; `exit_code` is the command's."""

    exit_code = 2


class UsageError(OnnxExactError):
    """A flag or an argument that cannot be used as it stands."""


class ModelError(OnnxExactError):
    """A model that cannot be read, checked or run."""


class DomainError(OnnxExactError):
    """A domain that does not fit the model's inputs or is no box."""


class OutputError(OnnxExactError):
    """A result that cannot be written where it was asked for."""


class ValidationError(OnnxExactError):
    """The rewritten model does not agree with the original."""

    exit_code = 1
