"""Makes ReLU networks in ONNX files smaller without changing what they compute."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from onnx_exact._version import __version__

if TYPE_CHECKING:
    from onnx_exact.api import analyze, optimize, optimize_file, verify
    from onnx_exact.network import Box
    from onnx_exact.report import Report
    from onnx_exact.verified import Verification

__all__ = [
    "Box",
    "Report",
    "Verification",
    "__version__",
    "analyze",
    "optimize",
    "optimize_file",
    "verify",
]

# Loaded at first use, so that `--help` and `--version` answer at once.
_HOMES = {
    "Box": "onnx_exact.network",
    "Report": "onnx_exact.report",
    "Verification": "onnx_exact.verified",
    "analyze": "onnx_exact.api",
    "optimize": "onnx_exact.api",
    "optimize_file": "onnx_exact.api",
    "verify": "onnx_exact.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
