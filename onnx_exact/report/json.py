"""The report as strict JSON.

The names in it are a public contract, which `schema.json` beside this file states. `format_version`
is raised when a name goes or means something else; a name that is new leaves it as it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import resources
from typing import Any

from onnx_exact.report.report import FormReport, LayerReport, Refusal, Report
from onnx_exact.validate import ChainDeviation

FORMAT, FORMAT_VERSION = "onnx-exact report", 1
# Numbers of the deviation that bound the whole domain; the others were observed.
_WORST_CASE = ("certified_max_abs", "runtime_rounding_before", "runtime_rounding_after")
# What a layer has for each of its units.
_OF_UNITS = frozenset(("status", "evidence", "lower", "upper", "tensor"))


def to_json_dict(report: Report, *, units: bool = False) -> dict[str, Any]:
    """The report as JSON values. A number that is not finite is null, as is what was not run.

    Args:
        report: what to write.
        units: what is known of each unit as well.
    """
    seconds = dict(report.seconds)
    seconds["total"] = report.total_seconds
    deviation, certified = report.deviation, report.certified
    data = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "version": report.version,
        "command": report.command,
        "source": report.source.encode(errors="replace").decode(),
        "warnings": list(report.warnings),
        "source_sha256": report.source_sha256,
        "domain": report.domain,
        "domain_source": report.domain_source,
        "domain_declared": report.domain_declared,
        "method": report.method,
        "seed": report.seed,
        "interrupted": report.interrupted,
        "time_limit": {
            "seconds": report.time_limit.seconds,
            "reached": report.time_limit.reached,
            "cut_short": list(report.time_limit.cut_short),
        },
        "changed": report.changed,
        "chains": [
            {
                "name": chain.name,
                "nodes": list(chain.nodes),
                "dtype": chain.dtype,
                "inputs": chain.inputs,
                "rounded": chain.rounded,
                "unread_inputs": list(chain.unread_inputs),
                "slice": None if chain.slice is None else asdict(chain.slice),
                "layers": [_layer(layer, units) for layer in chain.layers],
                "forms": [_form(form) for form in chain.forms],
            }
            for chain in report.chains
        ],
        "totals": asdict(report.totals),
        "deviation": {
            "observed_max_abs": None if deviation is None else deviation.observed_max_abs,
            "points": 0 if deviation is None else deviation.points,
            "worst_output": None if deviation is None else deviation.worst_output,
            "chains": None if deviation is None else [_chain(chain) for chain in deviation.chains],
            "certified_max_abs": None if certified is None else certified.max_abs,
            "certified_of": None if certified is None else certified.of,
            "runtime_rounding_before": None if certified is None else certified.rounding_before,
            "runtime_rounding_after": None if certified is None else certified.rounding_after,
            "worst_case_bounds": list(_WORST_CASE),
        },
        "seconds": seconds,
        "left_out": list(report.left_out),
        "channels": [asdict(channels) for channels in report.channels],
        "channels_rounded": report.channels_deviation > 0.0,
        "channels_in_blocks": report.channels_in_blocks,
        "channels_max_abs": report.channels_deviation,
        "graph_parameters": None
        if report.parameters is None
        else {"before": report.parameters[0], "after": report.parameters[1]},
        "refused": [_refusal(refusal) for refusal in report.refused],
    }
    found: dict[str, Any] = strict(data)
    return found


def to_json(report: Report, *, units: bool = False) -> str:
    """The report as the text of a JSON file; arguments as for `to_json_dict`."""
    return json.dumps(to_json_dict(report, units=units), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """The JSON Schema of the report."""
    text = resources.files(__package__).joinpath("schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _layer(layer: LayerReport, units: bool) -> dict[str, Any]:
    data = {f.name: getattr(layer, f.name) for f in fields(layer) if f.name not in _OF_UNITS}
    if units and layer.relu:
        data["verdicts"] = {
            "tensor": layer.tensor,
            "status": layer.status,
            "evidence": layer.evidence,
            "lower": None if layer.lower is None else layer.lower.tolist(),
            "upper": None if layer.upper is None else layer.upper.tolist(),
        }
    return data


def _chain(chain: ChainDeviation) -> dict[str, Any]:
    return {**asdict(chain), "unexpected": chain.unexpected}


def _form(form: FormReport) -> dict[str, Any]:
    return {
        "layer": form.layer,
        "form": form.form,
        "reason": form.reason,
        "numbers": dict(form.numbers),
    }


def _refusal(refusal: Refusal) -> dict[str, Any]:
    return {
        "chain": refusal.chain,
        "layer": refusal.layer,
        "what": refusal.what,
        "reason": refusal.reason,
        "numbers": dict(refusal.numbers),
    }


def strict(value: Any) -> Any:
    """`value` made of JSON's own types, with null for a number that is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
