"""What a ReLU network is: affine maps, chains, boxes. numpy only."""

from onnx_exact.network.affine import Affine
from onnx_exact.network.chain import Chain, Layer
from onnx_exact.network.domain import Box
from onnx_exact.network.split import SplitChain

__all__ = ["Affine", "Box", "Chain", "Layer", "SplitChain"]
