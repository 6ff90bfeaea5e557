"""What was found, changed and checked: one Report, as values, as JSON and as text."""

from onnx_exact.report.json import schema, to_json, to_json_dict
from onnx_exact.report.report import (
    ChainReport,
    FormReport,
    LayerReport,
    Refusal,
    Report,
    SliceReport,
    Totals,
)
from onnx_exact.report.text import to_text

__all__ = [
    "ChainReport",
    "FormReport",
    "LayerReport",
    "Refusal",
    "Report",
    "SliceReport",
    "Totals",
    "schema",
    "to_json",
    "to_json_dict",
    "to_text",
]
