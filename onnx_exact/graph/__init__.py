"""ONNX to network and back: the only room that knows ONNX."""

from onnx_exact.graph.locate import LocatedChain, locate_chains
from onnx_exact.graph.metadata import DOMAIN_KEY, SOURCE_KEY, metadata_of, stamp, with_metadata
from onnx_exact.graph.origin import Origin
from onnx_exact.graph.ranges import ChainDomain, Ranges
from onnx_exact.graph.read import InputSpec, Source, inputs_of, read_model
from onnx_exact.graph.splice import splice
from onnx_exact.graph.write import copy_unchanged, write_model

__all__ = [
    "DOMAIN_KEY",
    "SOURCE_KEY",
    "ChainDomain",
    "InputSpec",
    "LocatedChain",
    "Origin",
    "Ranges",
    "Source",
    "copy_unchanged",
    "inputs_of",
    "locate_chains",
    "metadata_of",
    "read_model",
    "splice",
    "stamp",
    "with_metadata",
    "write_model",
]
