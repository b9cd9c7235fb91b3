"""Options that the commands of ``mtl.graph`` share."""

from __future__ import annotations

from typing import Any

from mtl.errors import RequestError

RUNS = {
    "suggest": "predict, without training, which sources help a target",
    "measure": "measure transfer: compose each source alone and compare with the own adapter",
    "attribute": "what each source of a trained composition contributes",
}
"""Commands that run a model; they parse for themselves."""


def add_graph_places(parser: Any) -> None:
    """``--zoo`` and ``--graph``."""
    parser.add_argument("--zoo", help="folder of the zoo [MTL_ZOO, ./adapters_zoo]")
    parser.add_argument("--graph", help="folder of the graph [MTL_GRAPH, ZOO.graph]")


def add_scene(parser: Any) -> None:
    """Options that name a base, data and candidates."""
    parser.add_argument("--suite", help="the suite 'all' means [the target's]")
    parser.add_argument("--model", help="Hub name, folder, or 'demo' [MTL_MODEL, suite]")
    parser.add_argument("--protocol", help="how data are split [the suite's]")
    parser.add_argument("--data-root", help="local mirror of Hub datasets [MTL_DATA_ROOT]")
    parser.add_argument("--runs", help="folder of run folders [MTL_RUNS, ./runs]")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    add_graph_places(parser)


def check_limit(flag: str, value: int, least: int) -> int:
    """``value``, if it is at least ``least``. Raises RequestError."""
    if value < least:
        raise RequestError(f"{flag} {value} must be at least {least}.")
    return value
