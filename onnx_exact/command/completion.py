"""Completion for shells, as text made of the parsers: commands, flags, and the values of flags.

eval "$(onnx-exact completion bash)"
eval "$(onnx-exact completion zsh)"
onnx-exact completion fish | source
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

PROGRAM = "onnx-exact"
SHELLS = ("bash", "zsh", "fish")
_BASH = """\
_onnx_exact() {{
  local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
  case "${{COMP_WORDS[1]}} $prev" in
{values}
  esac
  if [ -z "$words" ] && [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"; fi
  if [ -z "$words" ]; then
    case "${{COMP_WORDS[1]}} $cur" in
{flags}
    esac
  fi
  COMPREPLY=( $(compgen -W "$words" -- "$cur") )
}}
complete -o default -F _onnx_exact {program}
"""
_ZSH = "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n"

Commands = Mapping[str, argparse.ArgumentParser]


def script(shell: str, commands: Commands) -> str:
    """What a shell has to read, from its own start-up file for example.

    Args:
        shell: one of `SHELLS`; zsh reads what bash does.
        commands: the parser of each.
    """
    if shell == "fish":
        return "".join(f"{line}\n" for line in _fish(commands))
    bash = _BASH.format(
        program=PROGRAM,
        commands=" ".join(commands),
        values="\n".join(_values(commands)),
        flags="\n".join(
            f'      "{name} -"*) words="{" ".join(_names(parser))}" ;;'
            for name, parser in commands.items()
        ),
    )
    return bash if shell == "bash" else _ZSH + bash


def shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The arguments that the help shows, in its order."""
    return [action for action in parser._actions if action.help != argparse.SUPPRESS]


def _names(parser: argparse.ArgumentParser) -> list[str]:
    return [name for action in shown(parser) for name in action.option_strings]


def _values(commands: Commands) -> Iterator[str]:
    """A case for each flag, or argument, of few values."""
    for command, parser in commands.items():
        for action in shown(parser):
            words = " ".join(map(str, action.choices or ()))
            for name in action.option_strings or [command]:
                if words:
                    yield f'    "{command} {name}") words="{words}" ;;'


def _fish(commands: Commands) -> Iterator[str]:
    names = " ".join(commands)
    yield f"complete -c {PROGRAM} -n 'not __fish_seen_subcommand_from {names}' -f -a '{names}'"
    for command, parser in commands.items():
        when = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command}'"
        for action in shown(parser):
            words = f" -f -a '{' '.join(map(str, action.choices))}'" if action.choices else ""
            value = "" if action.nargs == 0 or not action.option_strings else " -r"
            options = _fish_names(action.option_strings)
            if options or words:
                yield f"{when}{options}{value}{words}"


def _fish_names(options: Sequence[str]) -> str:
    """The names of a flag as fish wants them."""
    return "".join(f" -{'l' if o.startswith('--') else 's'} {o.lstrip('-')}" for o in options)
