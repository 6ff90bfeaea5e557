"""Measures one contestant on one case: in a process of its own, so that the peak is its own too.

`python -m benchmarks.contest CASE CONTESTANT LIMIT SEED VERDICTS` takes the case as JSON, prints
what was measured as JSON, or `{"skipped": reason}`, and leaves the verdicts in the file VERDICTS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.comparing.contestants import CONTESTANTS, SkippedError
from benchmarks.deciding.cases import case_from_json
from benchmarks.deciding.verdicts import Verdicts
from benchmarks.measure import measure


def main(argv: Sequence[str]) -> None:
    """Measures as the module's words say."""
    text, name, limit, seed, verdicts = argv
    case, contestant = case_from_json(json.loads(text)), CONTESTANTS[name]
    try:
        decide = contestant.prepare(case)
        measured, stability = measure(case, contestant.method, float(limit), int(seed), decide)
    except SkippedError as reason:
        print(json.dumps({"skipped": str(reason)}))
        return
    Verdicts.of(stability).save(Path(verdicts))
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main(sys.argv[1:])
