"""``modelexport completion``: print the completion script of a shell."""

import argparse
from collections.abc import Sequence
from typing import Any

import shtab

from modelexport.matrix.support import ARCHITECTURES, TARGETS

SHELLS = ("bash", "zsh")
DESCRIPTION = """Print a script that completes commands, options, files, targets and architectures."""
EPILOG = """examples:
  modelexport completion bash > ~/.local/share/bash-completion/completions/modelexport
  modelexport completion zsh > ~/.zfunc/_modelexport      (with: fpath+=~/.zfunc before compinit)
"""


def add_parser(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.set_defaults(command=print_completion)


def print_completion(options: argparse.Namespace) -> int:
    """Print the completion script of the parser that ``options.build_parser`` builds."""
    parser = options.build_parser()
    _describe_values(parser)
    preamble = f"{_function(_TARGETS)}\n{_function(_ARCHITECTURES)}" if options.shell == "bash" else ""
    print(shtab.complete(parser, options.shell, preamble=preamble))
    return 0


_TARGETS, _ARCHITECTURES = "_modelexport_targets", "_modelexport_architectures"
_VALUES: dict[str, Sequence[str]] = {_TARGETS: tuple(map(str, TARGETS)), _ARCHITECTURES: tuple(ARCHITECTURES)}
_OF_METAVAR = {
    "FORMAT/PRECISION": _TARGETS,
    "FILE": shtab.FILE,
    "PATH": shtab.FILE,
    "DIR": shtab.DIRECTORY,
    "DIR|URL": shtab.DIRECTORY,
}
"""What completes a value, by the name that the help has for it."""


def _describe_values(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what completes the values of each option, in the parser and those of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _describe_values(command)
        found = _ARCHITECTURES if action.dest == "architecture" else _OF_METAVAR.get(str(action.metavar))
        if isinstance(found, str):
            found = {"bash": found, "zsh": f"({' '.join(_VALUES[found])})"}
        if found:
            vars(action)["complete"] = found


def _function(name: str) -> str:
    """Return the function of bash that completes one of a list of words."""
    return f"{name}() {{ compgen -W '{' '.join(_VALUES[name])}' -- \"$1\"; }}"
