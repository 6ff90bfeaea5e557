"""The commands and flags of the command line, and what they say of themselves."""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from onnx_exact._version import __version__
from onnx_exact.command.completion import SHELLS
from onnx_exact.methods import (
    DEFAULT_LP_SOLVER,
    DEFAULT_MAX_DEVIATION,
    GOALS,
    METHODS,
    REDUCTIONS,
)

_DOMAIN_HELP = (
    "where the network has to stay the same: LO:HI for every entry of the input (inf and -inf for"
    " an unbounded side); LO:HI,LO:HI,... for its channels; LO:HI:mean=M,...:std=S,... for an image"
    " with pixels LO to HI that is normalised before the graph; data:FILE[:MARGIN] for the box"
    " around the points of an .npy or .npz file (inputs outside of it are not covered); or a file:"
    " .npz or .json with lower and upper, or .vnnlib (the hull of its input boxes). NAME= in front"
    " of any of these names one of several inputs (repeat the flag). Default: the domain in the"
    " model's metadata, else every finite input"
)
_NEXT = """\
Makes ReLU networks in ONNX files smaller without changing what they compute. Try

  {prog} analyze model.onnx --domain 0:1
  {prog} optimize model.onnx smaller.onnx --domain 0:1 --report report.html

where 0:1 is the range of every input; {prog} --help has the rest.
"""
_EXIT_CODES = (
    "exit codes: 0 done, also where there was nothing to do; 1 the result could not be validated,"
    " or not within the time limit; 2 an unusable flag, domain or file"
)
_VERIFY_EXIT_CODES = (
    "exit codes: 0 verified; 1 refuted: a claim that does not hold, or an input at which the models"
    " differ; 2 an unusable flag, domain or file; 3 not shown: no certificate, one that rests on"
    " claims, or what could not be checked, or not in time"
)


def read_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its flags.

    Raises:
        SystemExit: code 0 after help, 2 after a bad flag.
    """
    parser = parser_of_all()
    if not argv:
        parser.exit(2, _NEXT.format(prog=parser.prog))
    return parser.parse_args(_joined(argv))


def called() -> str:
    """The program's name as it was called."""
    name = Path(sys.argv[0]).name
    return "python -m onnx_exact" if name in ("__main__.py", "-c", "-m", "") else name


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with a flag, rather than repeating the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {' '.join(message.split())} (see {self.prog} --help)\n")


class _Removed(argparse.Action):
    """A flag that is gone."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Says what has taken its place."""
        parser.error("--require-proof is gone: a proof is always required now; leave it out")


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with a range that starts with a minus sign tied to its flag.

    argparse would take the -1:1 of `--domain -1:1` for a flag.
    """
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] == "--domain" and re.match(r"-(\d|\.\d|inf)", argument):
            joined[-1] = f"--domain={argument}"
        else:
            joined.append(argument)
    return joined


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parser of each command."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def parser_of_all() -> argparse.ArgumentParser:
    """The parser of the command line, with those of its commands."""
    parser = _Parser(
        prog=called(),
        description="Makes ReLU networks in ONNX files smaller without changing what they compute.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"onnx-exact {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    optimize = commands.add_parser(
        "optimize",
        help="write a smaller model that computes the same",
        description="Removes, merges and folds ReLU units of IN whose behaviour over the domain is"
        " proved, checks the result against IN in onnxruntime, and writes it to OUT.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    optimize.add_argument("input", metavar="IN", help="the .onnx file to read; never written to")
    optimize.add_argument("output", metavar="OUT", help="the .onnx file to write")
    _add_options(optimize)
    optimize.add_argument(
        "--reductions",
        choices=REDUCTIONS,
        default=REDUCTIONS[0],
        help="which rewrites are used: all that save connections, or only the published ones, for"
        " comparison (default: %(default)s)",
    )
    optimize.add_argument(
        "--max-deviation",
        metavar="R",
        type=_number("a number from 0 on", lambda deviation: deviation >= 0),
        default=DEFAULT_MAX_DEVIATION,
        help="how far a rewrite may move a value, as a multiple of what the model's own rounding"
        " may move it; 0 forbids every rewrite that rounds, negligible units included (default:"
        " %(default)g)",
    )
    optimize.add_argument(
        "--goal",
        choices=GOALS,
        default=GOALS[0],
        help="what the result is for: deploy, the fewest connections in a plain chain; verify, no"
        " mixtures of units, and biases with which interval bounds prove every stable unit; size,"
        " the fewest connections, with products that bypass a ReLU (default: %(default)s)",
    )
    optimize.add_argument(
        "--align",
        metavar="N",
        type=_count,
        help="keep the channels of each convolution a multiple of N, for runtimes that lay them out"
        " in blocks; 1 keeps the fewest (default: what onnxruntime is fast with, by what reads"
        " them; 1 with --goal verify or size)",
    )
    # Its place was taken by --goal.
    optimize.add_argument("--form", help=argparse.SUPPRESS)
    optimize.add_argument(
        "--certificate",
        metavar="FILE",
        help="write the evidence with which verify checks the result; needs a finite domain",
    )
    optimize.add_argument(
        "--in-place", action="store_true", help="allow OUT to be IN, which is then replaced"
    )
    analyze = commands.add_parser(
        "analyze",
        help="say which units are stable; write no model",
        description="Says which ReLU units of IN are proved stable over the domain; writes nothing"
        " but the report.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    analyze.add_argument("input", metavar="IN", help="the .onnx file to read")
    _add_options(analyze)
    inspect = commands.add_parser(
        "inspect",
        help="say what is in a model and what could be done, without proofs",
        description="Lists the chains of IN and their domains, and for everything that ends a chain"
        " or leaves a domain unknown the node and the reason. Proves nothing.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    inspect.add_argument("input", metavar="IN", help="the .onnx file to read")
    _add_domain(inspect)
    verify = commands.add_parser(
        "verify",
        help="check that an optimized model computes the same",
        description="Checks that OUT computes what IN does on the domain, without trusting the"
        " program that made it: claim by claim with a certificate, else by a search for a"
        " difference.",
        epilog=_VERIFY_EXIT_CODES,
        allow_abbrev=False,
    )
    verify.add_argument("input", metavar="IN", help="the original .onnx file")
    verify.add_argument("output", metavar="OUT", help="the .onnx file made of it")
    verify.add_argument(
        "--certificate", metavar="FILE", help="the file that optimize --certificate wrote"
    )
    verify.add_argument(
        "--domain",
        metavar="SPEC",
        action="append",
        help="where they have to agree, as for optimize; default: the domain in the metadata of"
        " OUT",
    )
    _add_talk(verify)
    verify.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_number("a positive number of seconds", lambda seconds: seconds > 0),
        help="limit for the whole check; what is not checked by then is not verified"
        " (default: none)",
    )
    _add_tolerances(
        verify,
        "of outputs in onnxruntime, without a certificate",
        "the rounding of the outputs' type",
    )
    completion = commands.add_parser(
        "completion",
        help="print what a shell needs to complete commands and flags",
        description='Prints a script for a shell. bash and zsh: eval "$(onnx-exact completion'
        ' bash)"; fish: onnx-exact completion fish | source.',
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell to complete in")
    return parser


def _add_domain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", metavar="SPEC", action="append", help=_DOMAIN_HELP)
    parser.add_argument(
        "--rebase",
        action="store_true",
        help="treat IN as the original, whatever its metadata say of the model that it was made"
        " from; without the flag --domain has to lie in the domain that IN carries",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    _add_domain(parser)
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="how units are decided: auto; bounds, which uses no solver; or isa and per-unit, the"
        " published algorithms, for comparison (default: %(default)s)",
    )
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_number("a positive number of seconds", lambda seconds: seconds > 0),
        help="limit for the whole run: deciding stops early enough for the later stages, and units"
        " that are still undecided stay unchanged (default: no limit)",
    )
    parser.add_argument(
        "--samples", metavar="FILE", help="more points of the domain to evaluate, .npy or .npz"
    )
    parser.add_argument(
        "--trust-solver",
        action="store_true",
        help="also act on claims of the solver that bounds do not confirm, and label what rests on"
        " them; by default such claims change nothing",
    )
    _add_talk(parser)
    parser.add_argument("--require-proof", action=_Removed, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write everything found: a page to look at if FILE ends in .html, else JSON; - prints"
        " JSON on the standard output, in place of the text",
    )
    parser.add_argument(
        "--bounds",
        metavar="FILE",
        help="write bounds on every unit of the network, and of the new one, for solvers and"
        " verifiers: .npz or .json",
    )
    parser.add_argument(
        "--units",
        action="store_true",
        help="in the JSON report, list each unit with its verdict, evidence and bounds",
    )
    _add_tolerances(
        parser,
        "for the model's outputs in onnxruntime, integers too",
        "the chains are judged, the outputs reported",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=_count,
        default=1,
        help="processes for branch and bound and for the solver (default: 1)",
    )
    parser.add_argument(
        "--lp-solver",
        metavar="NAME",
        default=DEFAULT_LP_SOLVER,
        help="solver of the linear relaxations, by its cvxpy name (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, default=0, help="of random points (default: 0)"
    )


def _add_talk(parser: argparse.ArgumentParser) -> None:
    talk = parser.add_mutually_exclusive_group()
    talk.add_argument(
        "--quiet", action="store_true", help="print errors only; the exit code has the result"
    )
    talk.add_argument(
        "--verbose", action="store_true", help="log every stage on the standard error as it begins"
    )


def _add_tolerances(parser: argparse.ArgumentParser, what: str, default: str) -> None:
    for flag, kind in (("--rtol", "relative"), ("--atol", "absolute")):
        parser.add_argument(
            flag,
            metavar=flag[2].upper(),
            type=_number("a number from 0 on", lambda tolerance: tolerance >= 0),
            help=f"{kind} tolerance {what}; if one is given, the other is 0 (default: {default})",
        )


def _number(wanted: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    """A reader of finite numbers that `accepts` takes, with `wanted` for the error."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and accepts(value)):
            raise argparse.ArgumentTypeError(f"expected {wanted}, not {text!r}")
        return value

    return read


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"expected an integer from 1 on, not {text!r}")
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"expected an integer from 0 on, not {text!r}")
    return int(text)
