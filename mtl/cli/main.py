"""The console script ``mtl`` and what all commands share: dispatch, errors, exit codes.

Exit codes: 0 done, 1 a run failed, 2 the request was wrong. Errors meant for users are one message
on standard error; ``--debug`` (or ``MTL_DEBUG=1``) shows the traceback behind it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NoReturn

from mtl.cli.leaving import Told, telling
from mtl.cli.speaking import speak_anywhere
from mtl.errors import MtlError, unknown
from mtl.tasks.looking import one_look
from mtl.typed import command_line

COMMANDS: dict[str, tuple[str, str]] = {
    "tasks": ("mtl.cli.tasks:main", "tasks and suites: list, show rows as encoded, check"),
    "methods": ("mtl.cli.methods:main", "methods and exact parameter counts"),
    "train": ("mtl.cli.train:main", "stage one: train one adapter per task into the zoo"),
    "compose": ("mtl.cli.compose:main", "stage two: learn how a target task uses frozen adapters"),
    "joint": ("mtl.cli.joint:main", "joint baselines: one model trained on several tasks"),
    "search": ("mtl.cli.search:main", "search a method's settings on dev, into a recipe"),
    "study": ("mtl.cli.study:main", "a matrix of runs as one file: plan, run, watch"),
    "predict": ("mtl.cli.predict:main", "answer the rows of a file with what was trained"),
    "serve": ("mtl.cli.serve:main", "answer requests over HTTP, many entries on one encoder"),
    "export": ("mtl.cli.export:main", "one stock adapter out of a composition, with its proof"),
    "bench": ("mtl.cli.bench:main", "what stage two costs for your model"),
    "zoo": ("mtl.cli.zoo:main", "the zoo: list, show, check, remove, push, pull, lock"),
    "graph": ("mtl.cli.graph:main", "which sources help which target: build, show, suggest, …"),
    "report": ("mtl.cli.report:main", "tables and plots of what is in the zoo"),
}
LOOK_AGAIN = {"tasks", "search", "study", "serve"}
"""Commands that write task files or recipes, or go on for long: they look whenever they ask."""


def run_main(main: Callable[[Sequence[str]], int], argv: Sequence[str]) -> int:
    """Run one command's ``main`` and turn user-facing errors into a message and an exit code."""
    arguments = [argument for argument in argv if argument != "--debug"]
    debug = len(arguments) != len(argv) or os.environ.get("MTL_DEBUG") == "1"
    speak_anywhere()
    try:
        with telling(), command_line(arguments):
            return main(arguments)
    except MtlError as error:
        if debug:
            raise
        from mtl.words import printable_lines

        # Part of it may be a stranger's: a name out of a manifest, what a server said.
        print(printable_lines(f"error: {error}"), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe went away (`mtl zoo ls | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except Told as leave:
        print(f"{leave}; run the same command again to go on", file=sys.stderr)
        return leave.exit_code


def dispatch(command: str, argv: Sequence[str]) -> int:
    """Import the module of ``command`` and run its ``main(argv)``."""
    module, _, function = COMMANDS[command][0].partition(":")

    def main(arguments: Sequence[str]) -> int:
        with nullcontext() if command in LOOK_AGAIN else one_look():
            return int(getattr(importlib.import_module(module), function)(arguments))

    return run_main(main, argv)


def module_entry(command: str) -> NoReturn:
    """What ``python -m mtl.<command>`` calls."""
    sys.exit(dispatch(command, sys.argv[1:]))


def entry() -> NoReturn:
    """The console script: ``mtl <command> …``."""
    argv = sys.argv[1:]
    if not argv or argv[0] in {"-h", "--help"}:
        sys.exit(run_main(_help, argv))
    if argv[0] == "--version":
        from mtl import __version__

        print(f"mtl {__version__}")
        sys.exit(0)
    if argv[0] not in COMMANDS:
        speak_anywhere()
        print(f"error: {unknown('command', argv[0], COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    sys.exit(dispatch(argv[0], argv[1:]))


def _help(_: Sequence[str]) -> int:
    print(_usage(), flush=True)
    return 0


def _usage() -> str:
    rows = [f"  {name:<9} {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        ["usage: mtl COMMAND …   (mtl COMMAND --help for its options)", "", "commands:", *rows]
    )
