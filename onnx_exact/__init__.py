"""Makes ReLU networks in ONNX files smaller without changing what they compute."""

from onnx_exact._version import __version__

__all__ = ["__version__"]
