"""An independent checker of results: its own reading of both models, its own arithmetic.

It shares no code with the rooms that decide and reduce (`stability`, `reduce`, `graph`) or with the
writer of certificates (`certify`), so that a mistake there cannot hide here. To be read in this
order:

    rounding, balls, batches    float64 rounded upward, Arb, float64 with an error bound
    model, steps, chain         what a file computes between two tensors, and over which box
    bounds                      one inequality for a ReLU, from which all linear bounds follow
    certificate, contents       what is claimed
    claims, trees               the verdicts on the units
    pairs, opposites, outside   how far the result is from the original
    check, text                 all of that in order, and in words
    search, program             what is done without a certificate
"""

from onnx_exact.verifier.check import ChainCheck, Verification, verify

__all__ = ["ChainCheck", "Verification", "verify"]
