"""Whether the checker can be fooled: `python -m benchmarks.lies`.

Makes lies from honest certificates of small random networks (`tests/verifier/lies.py` and
`graph_lies.py` are the grammar, exact arithmetic and onnxruntime the judges) and holds each and its
true sibling to `verify`. Results go to `benchmarks/results/lies.json` after every network: a run
that was stopped goes on where it was, and the same seed gives the same lies.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.running.processes import RESULTS, machine, write_text
from onnx_exact.errors import NotVerifiedError, UsageError
from onnx_exact.verified import verify
from tests.verifier import graph_lies, lies
from tests.verifier.build import Written

PAGE = RESULTS / "lies.json"
LIES = 5_000
# Random changes of a network's certificate, most of which are lies.
TRIES = 40
PACKAGES = ("numpy", "onnx", "onnxruntime")

Entry = dict[str, Any]


@dataclass
class Tally:
    """What became of the lies and siblings of a network.

    Attributes:
        lies: how many by kind.
        accepted: the lies that passed, in words.
        siblings: how many were held to `verify`.
        refused: the siblings that did not pass.
    """

    lies: Counter[str] = field(default_factory=Counter)
    accepted: list[str] = field(default_factory=list)
    siblings: int = 0
    refused: list[str] = field(default_factory=list)

    def lie(self, kind: str, written: Written) -> None:
        """Holds a lie to the checker."""
        self.lies[kind] += 1
        if passes(written):
            self.accepted.append(kind)

    def sibling(self, kind: str, written: Written) -> None:
        """Holds what is true to the checker."""
        self.siblings += 1
        if not passes(written):
            self.refused.append(kind)


def passes(written: Written) -> bool:
    """Whether `verify` says that a certificate holds."""
    try:
        return verify(written.old, written.new, written.certificate).verified
    except (NotVerifiedError, UsageError):
        return False


def trial(family: str, seed: int, folder: Path) -> Tally:
    """All lies and siblings of one network."""
    found = Tally()
    written = lies.honest(family, seed, folder)
    if lies.rests_on_claims(written):
        return found
    found.sibling("numbers", lies.beside(written, "sibling"))
    rng = np.random.default_rng([lies.FAMILIES.index(family), seed])
    for kind, lie in lies.number_lies(written, family, seed, rng, TRIES):
        found.lie(kind, lie)
    if lies.is_constant(written):
        return found
    points = lies.network(family, seed).case.box.sample(rng, 3)
    for kind, form in graph_lies.FORMS.items():
        found.sibling(kind, graph_lies.formed(written, form, lies=False))
        lie = graph_lies.formed(written, form, lies=True)
        if graph_lies.is_false(lie, form, points):
            found.lie(kind, lie)
    return found


def networks() -> Iterator[tuple[str, int]]:
    """Without an end."""
    seed = 0
    while True:
        for family in lies.FAMILIES:
            yield family, seed
        seed += 1


def read(path: Path) -> dict[str, Entry]:
    """What was found before, by network."""
    if not path.is_file():
        return {}
    found: dict[str, Entry] = json.loads(path.read_text())["networks"]
    return found


def page(found: dict[str, Entry]) -> str:
    """The record as JSON text."""
    kinds: Counter[str] = Counter()
    for entry in found.values():
        kinds.update(entry["lies"])
    total = {
        "lies": sum(kinds.values()),
        "lies_accepted": sum(len(entry["accepted"]) for entry in found.values()),
        "siblings": sum(entry["siblings"] for entry in found.values()),
        "siblings_refused": sum(len(entry["refused"]) for entry in found.values()),
    }
    record = {
        "total": total,
        "by_kind": dict(sorted(kinds.items())),
        "machine": machine(PACKAGES),
        "networks": found,
    }
    return json.dumps(record, indent=1) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 1 where a lie was accepted or a sibling refused."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lies", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--lies", type=int, default=LIES, help="how many (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    arguments = parser.parse_args(argv)
    found = read(arguments.out)
    for family, seed in networks():
        if sum(sum(entry["lies"].values()) for entry in found.values()) >= arguments.lies:
            break
        name = f"{family}-{seed}"
        if name in found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            tally = trial(family, seed, Path(folder))
        found[name] = {
            "lies": dict(tally.lies),
            "accepted": tally.accepted,
            "siblings": tally.siblings,
            "refused": tally.refused,
        }
        write_text(arguments.out, page(found))
        print(name, sum(tally.lies.values()), tally.accepted, tally.refused, flush=True)
    wrong = [name for name, entry in found.items() if entry["accepted"] or entry["refused"]]
    print(f"wrong: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
