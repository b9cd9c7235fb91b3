"""What messages of ``mtl`` recommend to type, read out of its source, and which test follows it.

``literals()`` is a static pass over the string literals of the package (docstrings and help texts
aside); ``{}`` stands for what a message fills in. A test says with ``@recommends(module, part)``
which of them it provokes; ``follow`` takes the command out of the real message and runs it.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from cli_bench import ROOT, Said, mtl

PACKAGE = ROOT / "mtl"
COMMAND = re.compile(
    r"python -m mtl\.\w+|\bpip install\b|(?<!src/)\bscripts/\w|\bhf (?:auth|download)\b|\biconv\b"
    r"|\baccelerate launch\b"
)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")
ENDS = re.compile(r"\. |[,;] | \(| says | lists | adds | makes | and | shows |\)|\.$")
"""Where a command line ends in a sentence, if it stands in no quotes."""
BARE = re.compile(
    r"(?<!-m )(?<![\w.-])mtl[ .](?:zoo|graph|tasks|methods) "
    r"(?:rm|ls|build|verify|fsck|diff|migrate|lock|measure|calibrate|check|show|new)\b"
)
"""A command line that no shell runs (``mtl.zoo rm``), or only where a script is on the path."""

Function = TypeVar("Function", bound=Callable[..., Any])
COVERED: dict[tuple[str, str], str] = {}
"""(module, part of a literal) → the test that provokes and follows it."""


@dataclass(frozen=True)
class Literal:
    """One string of the package: module below ``mtl/``, line, and text."""

    module: str
    line: int
    text: str

    def matches(self, message: str) -> bool:
        """Whether ``message`` holds this literal, filled in."""
        parts = [re.escape(part) for part in re.split(r"{}|%s", self.text.strip().rstrip("."))]
        return re.search(".*?".join(parts), message, re.DOTALL) is not None


@cache
def literals() -> tuple[Literal, ...]:
    """All strings of the package that may reach a user, f-strings with ``{}`` for values."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        skipped: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr):  # docstrings
                skipped.add(id(node.value))
            elif isinstance(node, ast.Call) and _describes_options(node):
                skipped |= {id(inner) for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                skipped |= {id(inner) for inner in node.values}
        module = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(tree):
            if id(node) not in skipped and (text := _text(node)):
                found.append(Literal(module, node.lineno, text))  # type: ignore[attr-defined]
    return tuple(found)


def _describes_options(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name in {"add_argument", "add_argument_group", "add_parser"}


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
        )
    return ""


def recommending() -> list[Literal]:
    """The literals that recommend a command line."""
    return [item for item in literals() if COMMAND.search(item.text)]


def recommends(module: str, part: str) -> Callable[[Function], Function]:
    """Registers a test for the literal of ``mtl/<module>`` that contains ``part``."""

    def mark(test: Function) -> Function:
        COVERED[module, part] = test.__name__
        return test

    return mark


def covered(literal: Literal) -> str | None:
    """The test registered for ``literal``."""
    for (module, part), test in COVERED.items():
        if module == literal.module and part in literal.text:
            return test
    return None


def provoked(message: str, module: str, part: str) -> str:
    """``message``, if it is the one of the literal that contains ``part``."""
    fitting = [item for item in literals() if item.module == module and part in item.text]
    assert any(item.matches(message) for item in fitting), (module, part, message)
    return message


def commands(message: str) -> list[list[str]]:
    """The command lines of a message: from ``python -m`` to the end of line, quote or sentence."""
    found = []
    for match in re.finditer(r"python -m mtl\.(?:(?!python -m )[^\n])*", message):
        line = match[0].partition("   #")[0]
        before = message[match.start() - 1 : match.start()]
        if before and before in "'`(":
            line = line.partition({"(": ")"}.get(before, before))[0]
        line = ENDS.split(line)[0]
        found.append(shlex.split(line)[2:])
    return found


def follow(message: str, *more: object, which: int = 0, **filled: object) -> Said:
    """Run the command that ``message`` recommends, placeholders filled in, and more words after.

    ``TASK=…`` replaces the word TASK of the command.
    """
    words = [str(filled.get(word, word)) for word in commands(message)[which]]
    module, *rest = words
    return mtl(module.removeprefix("mtl."), *rest, *more)


@cache
def options() -> frozenset[str]:
    """Every option that some parser of the package, or a setting of runs, has."""
    found = {"--help", "--tokens"}
    for path in (PACKAGE / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _describes_options(node):
                found |= {
                    arg.value
                    for arg in node.args
                    if isinstance(arg, ast.Constant) and str(arg.value).startswith("--")
                }
                if any("BooleanOptionalAction" in ast.dump(word) for word in node.keywords):
                    found |= {
                        f"--no-{str(arg.value)[2:]}"
                        for arg in node.args
                        if isinstance(arg, ast.Constant)
                    }
    from mtl.engine.settings import RunSettings

    return (
        frozenset(found)
        | {"--version", "--debug"}
        | {f"--{name.replace('_', '-')}" for name in RunSettings.__dataclass_fields__}
    )
