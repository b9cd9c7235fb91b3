"""Suggestions and compositions for the tiny target, as JSON."""

from __future__ import annotations

from typing import Any

from cli_bench import TARGET, mtl


def suggest(*argv: object) -> Any:
    said = mtl("graph", "suggest", "--target", "same", *argv, "--json")
    assert said.code == 0, said
    return said.json


def compose(*argv: object) -> Any:
    said = mtl("compose", "--target", TARGET, "--epochs", "1", *argv, "--json")
    assert said.code == 0, said
    return said.json
