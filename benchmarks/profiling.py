"""Where deciding a case spends its time: `python -m benchmarks.profiling CASE...`.

Prints the functions that take most of the processor's time, by themselves and with what they call,
in a run on one thread after one that is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
from collections.abc import Sequence

from benchmarks.deciding.cases import cases
from benchmarks.measure import load
from onnx_exact.decide.run import Options, analyze_chain

LINES = 15


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; 2 where a case is not there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profiling", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("cases", nargs="+", metavar="CASE")
    names = parser.parse_args(argv).cases
    present = {case.name: case for case in cases() if case.present}
    for name in names:
        if name not in present:
            print(f"no case {name!r}; there are {', '.join(present)}", file=sys.stderr)
            return 2
        chain, box = load(present[name])
        analyze_chain(chain, box, Options())
        profile = cProfile.Profile()
        profile.runcall(analyze_chain, chain, box, Options())
        print(f"{name}, {sum(layer.width for layer in chain.layers if layer.relu):,} units")
        for order in ("tottime", "cumtime"):
            pstats.Stats(profile).strip_dirs().sort_stats(order).print_stats(LINES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
