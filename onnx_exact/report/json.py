"""The report as strict JSON; the names in it are a public contract."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from onnx_exact.report.report import FormReport, LayerReport, Refusal, Report
from onnx_exact.validate import ChainDeviation


def to_json_dict(report: Report) -> dict[str, Any]:
    """The report as JSON values. A number that is not finite is null, as is what was not run."""
    seconds = dict(report.seconds)
    seconds["total"] = report.total_seconds
    deviation, certified = report.deviation, report.certified
    data = {
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
                "layers": [_layer(layer) for layer in chain.layers],
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
        },
        "seconds": seconds,
        "left_out": list(report.left_out),
        "refused": [_refusal(refusal) for refusal in report.refused],
    }
    strict: dict[str, Any] = _strict(data)
    return strict


def to_json(report: Report) -> str:
    """The report as the text of a JSON file."""
    return json.dumps(to_json_dict(report), indent=2, allow_nan=False) + "\n"


def _layer(layer: LayerReport) -> dict[str, Any]:
    return asdict(layer)


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


def _strict(value: Any) -> Any:
    """`value` made of JSON's own types, with null for a number that is not finite."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if value is None or isinstance(value, bool | str | int):
        return value
    number = value.item() if hasattr(value, "item") else value
    if isinstance(number, float) and not math.isfinite(number):
        return None
    return number
