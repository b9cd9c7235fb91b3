"""What only names, lists and plans answers without what computes: no torch, no transformers."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mtl"

HEAVY = ("torch", "transformers", "datasets", "adapters", "accelerate", "peft", "sklearn", "pandas")

PROBE = """
import sys
from pathlib import Path
from mtl.cli.main import dispatch
try:
    code = dispatch(sys.argv[1], sys.argv[2:])
except SystemExit as ended:
    code = ended.code
print("HEAVY", code, [name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
"""


def answer(*argv: str, **environment: str) -> tuple[str, str, int]:
    """What a command says, and how it ends, in a process that has imported nothing heavy."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(PACKAGE.parent), **environment},
    )
    *said, last = done.stderr.splitlines()
    word, code, heavy = last.split(" ", 2)
    assert word == "HEAVY", done.stderr[-1500:]
    assert heavy == "[]", f"mtl {' '.join(argv)} imports {heavy}"
    return done.stdout, "\n".join(said), int(code)


@pytest.mark.parametrize(
    "argv",
    [
        ["methods", "ls"],
        ["methods", "ls", "--json"],
        ["methods", "settings"],
        ["methods", "settings", "--suite", "demo", "--json"],
    ],
)
def test_lists_of_methods(argv: list[str]) -> None:
    said, _, code = answer(*argv)
    assert code == 0
    assert "pfeiffer" in said
    assert "hyperformer++" in said


def test_every_function_that_later_names_is_there() -> None:
    """A wrong name would be found only when somebody trains the method."""
    calls = [
        ast.literal_eval(node.args[0])
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "later"
    ]
    assert len(calls) > 30
    for target in calls:
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), target


def test_placements_are_those_of_adapters() -> None:
    from mtl.methods.placement import (
        PLACEMENTS,
        placement_fields,
        signature,
        signature_of,
        stock_config,
    )

    for placement in PLACEMENTS:
        stock = stock_config(placement, reduction_factor=1)
        assert signature(stock) == signature_of(placement)
        assert {key: stock[key] for key in placement_fields(placement)} == placement_fields(
            placement
        )
