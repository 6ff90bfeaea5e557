"""What is generated in docs/: `python -m benchmarks.pages` writes the tables of flags.

The tables of docs/flags.md, between two comments, come from the parsers of the command line.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from benchmarks.deciding.cases import ROOT
from benchmarks.running.processes import write_text
from onnx_exact.command.completion import shown
from onnx_exact.command.flags import commands_of, parser_of_all

PAGE = ROOT / "docs" / "flags.md"
START, END = "<!-- flags -->", "<!-- end of flags -->"


def tables() -> str:
    """A table for each command: its arguments and what they mean."""
    return "\n".join(_table(name, parser) for name, parser in commands_of(parser_of_all()).items())


def _table(name: str, parser: argparse.ArgumentParser) -> str:
    # Who asks decides what argparse calls the program.
    description = (parser.description or "").replace(parser.prog, f"onnx-exact {name}")
    lines = [f"## {name}", "", description, "", "| argument | meaning |", "| --- | --- |"]
    formatter = argparse.HelpFormatter("onnx-exact")
    for action in shown(parser):
        if isinstance(action, argparse._HelpAction):
            continue
        text = formatter._expand_help(action).replace("|", r"\|")
        lines.append(f"| {_called(action)} | {text} |")
    return "\n".join([*lines, ""])


def _called(action: argparse.Action) -> str:
    """An argument as it is written on the command line."""
    if not action.option_strings:
        return f"`{action.metavar or action.dest}`"
    value = action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}"
    return ", ".join(
        f"`{o}`" if action.nargs == 0 else f"`{o} {value}`" for o in action.option_strings
    )


def with_tables(page: str) -> str:
    """The page with the tables as they are now."""
    found = re.compile(f"{re.escape(START)}.*{re.escape(END)}", re.DOTALL)
    return found.sub(lambda _: f"{START}\n{tables()}\n{END}", page)


def main(argv: Sequence[str] | None = None) -> int:
    """Writes the tables into the page."""
    del argv
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
