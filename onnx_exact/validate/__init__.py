"""Whether a new model may take the old one's place, judged at points of the domain.

sessions  models in onnxruntime, with tensors inside of them as further outputs
outside   that both models are the same nodes and constants outside of the chains
written   a chain's nodes as they stand in a file, evaluated in float64
forward   a chain's forward pass in float64, and what rounding can make of it
rounding  what rounding was seen to do to a chain, and is expected to do
judge     the new chain held against the old one, in float64 and in onnxruntime
outputs   the outputs of both models, and a user's tolerance
run       these, in order
"""

from onnx_exact.validate.judge import ChainDeviation, Rewritten
from onnx_exact.validate.run import Deviation, validate

__all__ = ["ChainDeviation", "Deviation", "Rewritten", "validate"]
