"""ONNX to network and back: the only room that knows ONNX."""

from onnx_exact.graph.locate import LocatedChain, locate_chains

__all__ = ["LocatedChain", "locate_chains"]
