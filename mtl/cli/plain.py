"""Option parsers whose complaints are one message, like every other error of a command line.

Apart from :mod:`mtl.cli.options`, since a listing of the zoo takes less time than jsonargparse
takes to be imported.
"""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from mtl.errors import RequestError

_SPOKEN = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false"}


def complaint(prog: str, message: str) -> RequestError:
    """What a parser has to say, in one sentence."""
    text = " ".join(message.split()).rstrip(".")
    wrong = re.match(
        r'Parser key "(\w+)"(?: element \d+)?: Expected a <class \'(\w+)\'>\. Got value: (.*)', text
    )
    if wrong:
        name, kind, value = wrong.groups()
        text = f"--{name.replace('_', '-')} takes {_SPOKEN.get(kind, kind)}, not {value!r}"
    return RequestError(f"{prog}: {text}. See {prog.replace('mtl.', 'mtl ')} --help.")


def add_task_files(parser: argparse.ArgumentParser) -> None:
    """``--task``, of commands that need the tasks of stored entries again."""
    parser.add_argument(
        "--task",
        nargs="+",
        default=[],
        metavar="FILE",
        help="the YAML file of the entry's task, if it is your own and not below MTL_TASKS",
    )


class PlainParser(argparse.ArgumentParser):
    """For commands with flags only."""

    def error(self, message: str) -> NoReturn:
        raise complaint(self.prog, message)
