"""What a result says of itself in its metadata: where it is valid, of what it was made, and how."""

from __future__ import annotations

import json

from onnx_exact._version import __version__
from onnx_exact.domains import DOMAIN_KEY, carried_domain, same_boxes
from onnx_exact.graph.metadata import SOURCE_KEY, metadata_of
from onnx_exact.stages.run import Run


def provenance(run: Run) -> dict[str, str]:
    """What a changed model says of itself: where it is valid and what it was made from, how."""
    options = {
        "method": run.settings.method,
        "reductions": run.settings.reductions,
        "max_deviation": run.settings.max_deviation,
        "goal": run.settings.goal,
        "seed": run.settings.seed,
    }
    if run.settings.time_limit is not None:
        options["time_limit"] = run.settings.time_limit
    return {
        **_validity(run),
        "onnx_exact.version": __version__,
        "onnx_exact.options": json.dumps(options),
    }


def _validity(run: Run) -> dict[str, str]:
    """Where a result is valid, and as what."""
    return {DOMAIN_KEY: json.dumps(run.domain.to_json()), SOURCE_KEY: run.first_sha256}


def copied_metadata(run: Run) -> dict[str, str]:
    """What a copy of the model, to which nothing could be done, has to say that it does not yet."""
    metadata = metadata_of(run.source.model)
    if run.settings.rebase and not metadata.keys().isdisjoint({DOMAIN_KEY, SOURCE_KEY}):
        return _validity(run)
    carried = carried_domain(run.inputs, metadata)
    if carried is None:
        return _validity(run) if run.domain.declared else {}
    return {} if same_boxes(carried, run.domain) else _validity(run)
