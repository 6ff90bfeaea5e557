"""How each operator acts on intervals. One family of them a file.

An interval holds for the operator's definition over the reals and for every evaluation in the type
of the tensor, within the error that docs/guarantees.md states for each operator.
"""

from __future__ import annotations

from onnx_exact.graph.bounds.operators import OPERATORS, apply, unknown_of

__all__ = ["OPERATORS", "apply", "unknown_of"]
