"""An independent checker of results: its own reading of both models, its own arithmetic.

It shares no code with the rooms that decide and reduce (`stability`, `reduce`, `graph`) or with the
writer of certificates (`certify`), so that a mistake there cannot hide here.
"""

from onnx_exact.verifier.check import ChainCheck, Verification, verify

__all__ = ["ChainCheck", "Verification", "verify"]
