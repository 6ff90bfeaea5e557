"""Runs the commands and gives their exit codes; the only module that prints."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_exact.command.flags import read_arguments
from onnx_exact.errors import OnnxExactError, OutputError, UsageError
from onnx_exact.runtime import streams

if TYPE_CHECKING:
    from onnx_exact.report import Report
    from onnx_exact.runtime.outputs import Outputs
    from onnx_exact.runtime.progress import Progress

# The name of a report that goes to the standard output.
STDOUT = "-"
# Endings of the names of reports to look at.
HTML = (".html", ".htm")
LOG_FORMAT = "%(asctime)s %(name)s %(message)s"
# How many threads the libraries take that numpy may have come with, read as they are loaded.
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code.

    Args:
        argv: the arguments, without the program's name; those of the process if None.

    Raises:
        SystemExit: from argparse, with code 0 after help and 2 after a bad flag; on a signal that
            ends the process, with 128 and its number.
    """
    _multiply_on_one_thread()
    streams.open_missing()
    try:
        with streams.ended_by_exceptions():
            return _main(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt:
        _print_error("interrupted")
        return INTERRUPTED
    finally:
        streams.settle()


def _multiply_on_one_thread() -> None:
    """Keeps numpy's BLAS from starting threads that would only wait, where it is not loaded yet."""
    if "numpy" not in sys.modules:
        for variable in BLAS_THREADS:
            os.environ.setdefault(variable, "1")


def _main(argv: Sequence[str]) -> int:
    try:
        arguments = read_arguments(argv)
        if arguments.command == "verify":
            return _verify(arguments)
        if arguments.command == "inspect":
            return _inspect(arguments)
        if arguments.command == "completion":
            return _completion(arguments.shell)
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
    from onnx_exact.command.verified_text import to_text
    from onnx_exact.errors import NotVerifiedError
    from onnx_exact.inputs.counterexample import save_beside
    from onnx_exact.verified import verify

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
    if not arguments.quiet:
        _print_or_warn(to_text(found))
    return found.exit_code


def _inspect(arguments: argparse.Namespace) -> int:
    """Prints what is in a model, and gives the exit code."""
    from onnx_exact.inspected import inspect

    found = inspect(arguments.input, arguments.domain, rebase=arguments.rebase)
    _print_or_warn(found.to_text())
    return 0


def _completion(shell: str) -> int:
    """Prints the script for a shell, and gives the exit code."""
    from onnx_exact.command.completion import script
    from onnx_exact.command.flags import commands_of, parser_of_all

    _print_or_warn(script(shell, commands_of(parser_of_all())))
    return 0


def _run(arguments: argparse.Namespace) -> None:
    from onnx_exact.runtime.output_paths import check_report
    from onnx_exact.runtime.outputs import appearing

    source = Path(arguments.input)
    models: tuple[Path, ...] = (source,)
    if arguments.command == "optimize":
        target = Path(arguments.output)
        models = (source, target)
        if arguments.certificate is not None:
            models = (source, target, Path(arguments.certificate))
    if arguments.units and arguments.report is None:
        raise UsageError("--units is about the report: give --report FILE as well")
    if arguments.report not in (None, STDOUT):
        check_report(Path(arguments.report), models)
    with _progress(arguments) as progress:
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
        from onnx_exact import api, pipeline
        from onnx_exact.report.bounds import write_bounds

        bounds = None if arguments.bounds is None else Path(arguments.bounds)
        if bounds is not None:
            reports = () if arguments.report in (None, STDOUT) else (Path(arguments.report),)
            api.check_bounds(bounds, (*models, *reports))

        if arguments.command == "optimize":
            if arguments.form is not None:
                raise UsageError("--form is gone: --goal size does what --form split did")
            options |= {
                "reductions": arguments.reductions,
                "max_deviation": arguments.max_deviation,
                "goal": arguments.goal,
                "align": arguments.align,
                "certificate": arguments.certificate,
            }
            export = None if bounds is None else api.bounds_of_both(bounds, target, **options)

            def deliver(report: Report, outputs: Outputs) -> None:
                if export is not None:
                    export(report, outputs)
                _deliver(report, arguments.report, arguments.units, outputs, (source, target))

            report = pipeline.optimize_file(
                source, target, in_place=arguments.in_place, deliver=deliver, **options
            )
        else:
            with appearing() as outputs:
                report = pipeline.analyze(source, **options)
                if bounds is not None:
                    write_bounds(bounds, report, None, outputs)
                _deliver(report, arguments.report, arguments.units, outputs)
    if arguments.report != STDOUT and not arguments.quiet:
        _print_or_warn(_text(report))


@contextmanager
def _progress(arguments: argparse.Namespace) -> Iterator[Progress]:
    """What is shown of the work while it goes on: one line, every stage as a log, or nothing."""
    from onnx_exact.runtime.progress import LOGGER, Logged, Shown, Silent

    if arguments.quiet:
        yield Silent()
    elif arguments.verbose:
        logging.basicConfig(stream=sys.stderr, format=LOG_FORMAT)
        LOGGER.setLevel(logging.INFO)
        yield Logged()
    else:
        with Shown(sys.stderr, arguments.time_limit) as shown:
            yield shown


def _deliver(
    report: Report,
    where: str | None,
    units: bool,
    outputs: Outputs,
    models: tuple[Path, Path] | None = None,
) -> None:
    """Writes the report where it is wanted: to a file that appears with the others.

    It is HTML where the file's name ends in .html or .htm, with the latency of two models, else
    JSON.
    """
    from onnx_exact.report import to_json
    from onnx_exact.report.html import to_html
    from onnx_exact.runtime.outputs import reported

    if where == STDOUT:
        failure = streams.write(to_json(report, units=units), sys.stdout)
        if failure is not None:
            raise OutputError(f"the report cannot be printed: {failure.strerror or failure}")
    elif where is not None:
        with reported(Path(where)):
            if Path(where).suffix.lower() in HTML:
                text = to_html(report, models and _latency(report, models, outputs))
            else:
                text = to_json(report, units=units)
            outputs.place(Path(where)).write_text(text, encoding="utf-8")


def _latency(
    report: Report, models: tuple[Path, Path], outputs: Outputs
) -> tuple[float, float] | None:
    """How long the original and the result take, which is not in its place yet."""
    from onnx_exact.report.latency import latencies

    return latencies(models[0], outputs.made(models[1]), report.domain)


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
