"""The commands, their flags and their exit codes; the only room that prints."""

from __future__ import annotations

import argparse
import math
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from onnx_exact import streams
from onnx_exact._version import __version__
from onnx_exact.errors import OnnxExactError, OutputError
from onnx_exact.methods import (
    DEFAULT_LP_SOLVER,
    DEFAULT_MAX_DEVIATION,
    FORMS,
    METHODS,
    REDUCTIONS,
)

if TYPE_CHECKING:
    from onnx_exact.outputs import Outputs
    from onnx_exact.report import Report

# The name of a report that goes to the standard output.
STDOUT = "-"
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_DOMAIN_HELP = (
    "where the network has to stay the same: LO:HI for every entry of the input (inf and -inf for"
    " an unbounded side), NAME=LO:HI for one of several inputs (repeat the flag), or a file: .npz"
    " or .json with lower and upper, or .vnnlib; default: the domain in the model's metadata, else"
    " every finite input"
)
_EXIT_CODES = (
    "exit codes: 0 done, also where there was nothing to do; 1 the result could not be validated,"
    " or not within the time limit; 2 an unusable flag, domain or file"
)
_VERIFY_EXIT_CODES = (
    "exit codes: 0 verified; 1 refuted: a claim that does not hold, or an input at which the models"
    " differ; 2 an unusable flag, domain or file; 3 not shown: no certificate, one that rests on"
    " claims, or what could not be checked, or not in time"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code.

    Args:
        argv: the arguments, without the program's name; those of the process if None.

    Raises:
        SystemExit: from argparse, with code 0 after help and 2 after a bad flag; on a signal that
            ends the process, with 128 and its number.
    """
    streams.open_missing()
    try:
        with streams.ended_by_exceptions():
            return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        _print_error("interrupted")
        return INTERRUPTED
    finally:
        streams.settle()


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = _parser().parse_args(_joined(argv))
        if arguments.command == "verify":
            return _verify(arguments)
        _run(arguments)
    except OnnxExactError as error:
        _print_error(f"error: {error}")
        return error.exit_code
    except MemoryError as error:
        _print_error(f"error: not enough memory ({error or 'of this process'})")
        return OnnxExactError.exit_code
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == __package__:
            raise
        _print_error(
            f"error: {name} is not installed; install onnx-exact with pip, which brings it"
        )
        return OnnxExactError.exit_code
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    """Prints what was checked, and gives the exit code."""
    from onnx_exact.counterexample import save_beside
    from onnx_exact.errors import NotVerifiedError
    from onnx_exact.verified import verify
    from onnx_exact.verified_text import to_text

    result = Path(arguments.output)
    try:
        found = verify(
            arguments.input,
            result,
            arguments.certificate,
            arguments.domain,
            rtol=arguments.rtol,
            atol=arguments.atol,
            time_limit=arguments.time_limit,
        )
    except NotVerifiedError as error:
        save_beside(error, result)
        raise
    _print_or_warn(to_text(found))
    return found.exit_code


def _run(arguments: argparse.Namespace) -> None:
    from onnx_exact.outputs import appearing
    from onnx_exact.paths import check_report
    from onnx_exact.progress import Shown

    source = Path(arguments.input)
    models: tuple[Path, ...] = (source,)
    if arguments.command == "optimize":
        target = Path(arguments.output)
        models = (source, target)
        if arguments.certificate is not None:
            models = (source, target, Path(arguments.certificate))
    if arguments.report not in (None, STDOUT):
        check_report(Path(arguments.report), models)
    with Shown(sys.stderr) as progress:
        options: dict[str, Any] = {
            "domain": arguments.domain,
            "rebase": arguments.rebase,
            "method": arguments.method,
            "time_limit": arguments.time_limit,
            "samples": arguments.samples,
            "rtol": arguments.rtol,
            "atol": arguments.atol,
            "seed": arguments.seed,
            "jobs": arguments.jobs,
            "lp_solver": arguments.lp_solver,
            "trust_solver": arguments.trust_solver,
            "progress": progress,
        }
        from onnx_exact import pipeline

        def deliver(report: Report, outputs: Outputs) -> None:
            _deliver(report, arguments.report, outputs)

        if arguments.command == "optimize":
            options |= {
                "reductions": arguments.reductions,
                "max_deviation": arguments.max_deviation,
                "form": arguments.form,
                "certificate": arguments.certificate,
            }
            report = pipeline.optimize_file(
                source, target, in_place=arguments.in_place, deliver=deliver, **options
            )
        else:
            with appearing() as outputs:
                report = pipeline.analyze(source, **options)
                deliver(report, outputs)
    if arguments.report != STDOUT:
        _print_or_warn(_text(report))


def _deliver(report: Report, where: str | None, outputs: Outputs) -> None:
    """Writes the report as JSON, where it is wanted: to a file that appears with the others."""
    from onnx_exact.outputs import reported
    from onnx_exact.report import to_json

    if where == STDOUT:
        failure = streams.write(to_json(report), sys.stdout)
        if failure is not None:
            raise OutputError(f"the report cannot be printed: {failure.strerror or failure}")
    elif where is not None:
        with reported(Path(where)):
            outputs.place(Path(where)).write_text(to_json(report), encoding="utf-8")


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


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m onnx_exact",
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
        help="what is done with stable units: all that is exact and saves connections, or what is"
        " published, to compare with (default: %(default)s)",
    )
    optimize.add_argument(
        "--max-deviation",
        metavar="R",
        type=_number("a number from 0 on", lambda deviation: deviation >= 0),
        default=DEFAULT_MAX_DEVIATION,
        help="how far a rewrite may move a value or round it off further, in units of what the"
        " model's own rounding may; 0 for no rewrite that rounds anything (default: %(default)g)",
    )
    optimize.add_argument(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="where what stably active units compute goes: chain, through the ReLU, which any tool"
        " for ReLU networks reads; split, around it as a product of its own wherever that saves"
        " connections; auto, around it where that is faster (default: %(default)s)",
    )
    optimize.add_argument(
        "--certificate",
        metavar="FILE",
        help="write all that is needed to check the result without trusting this program",
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
    verify = commands.add_parser(
        "verify",
        help="check that an optimized model computes the same",
        description="Checks that OUT computes what IN does over the domain, without trusting what"
        " made it: claim by claim with a certificate, else by looking for a difference.",
        epilog=_VERIFY_EXIT_CODES,
        allow_abbrev=False,
    )
    verify.add_argument("input", metavar="IN", help="the original .onnx file")
    verify.add_argument("output", metavar="OUT", help="the .onnx file made of it")
    verify.add_argument(
        "--certificate", metavar="FILE", help="what optimize --certificate wrote beside OUT"
    )
    verify.add_argument(
        "--domain",
        metavar="SPEC",
        action="append",
        help="where they have to be the same, as for optimize; default: the domain in the metadata"
        " of OUT",
    )
    verify.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_number("a positive number of seconds", lambda seconds: seconds > 0),
        help="for checking; what is not done then is not verified (default: none)",
    )
    _add_tolerances(
        verify,
        "of outputs in onnxruntime, without a certificate",
        "the rounding of the outputs' type",
    )
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", metavar="SPEC", action="append", help=_DOMAIN_HELP)
    parser.add_argument(
        "--rebase",
        action="store_true",
        help="take IN itself as the original, whatever its metadata say of the model that it was"
        " made from; without it --domain has to lie in the domain that IN carries, where alone it"
        " is valid",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default=METHODS[0],
        help="how units are decided: auto; bounds, which needs no solver; or isa and per-unit, the"
        " published algorithms, to compare with (default: %(default)s)",
    )
    parser.add_argument(
        "--time-limit",
        metavar="SECONDS",
        type=_number("a positive number of seconds", lambda seconds: seconds > 0),
        help="for the whole run: deciding stops early enough for what comes after it, and units"
        " left undecided then are not touched (default: no limit)",
    )
    parser.add_argument(
        "--samples", metavar="FILE", help="points of the domain to look at as well, .npy or .npz"
    )
    parser.add_argument(
        "--trust-solver",
        action="store_true",
        help="act on what a solver says beyond its tolerance, too, and label what rests on it;"
        " by default, what bounds do not confirm changes nothing",
    )
    parser.add_argument("--require-proof", action=_Removed, nargs=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write everything found as JSON; - for the standard output, and no text there",
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
        help="processes for splitting and for the programs of the solver (default: 1)",
    )
    parser.add_argument(
        "--lp-solver",
        metavar="NAME",
        default=DEFAULT_LP_SOLVER,
        help="solver of the linear relaxations, by its name in cvxpy (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", metavar="N", type=_seed, default=0, help="of random points (default: 0)"
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


def _text(report: Report) -> str:
    """The report for the standard output."""
    from onnx_exact.report import to_text
    from onnx_exact.report.text import WIDTH

    width = WIDTH
    if sys.stdout.isatty():
        width = shutil.get_terminal_size((WIDTH, 24)).columns
    unicode = (sys.stdout.encoding or "ascii").lower().startswith("utf")
    return to_text(report, width=width, unicode=unicode)


def _print_or_warn(text: str) -> None:
    """Prints; what was asked for is done, so that a failure is worth no more than a line."""
    failure = streams.write(text, sys.stdout)
    if failure is not None:
        _print_error(
            f"warning: done, but the text cannot be printed: {failure.strerror or failure}"
        )


def _print_error(message: str) -> None:
    streams.write(" ".join(message.split()) + "\n", sys.stderr)
