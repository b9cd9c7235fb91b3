"""The graph of a zoo as it is now: entries and the evidence beside them; and adding to it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING

from mtl.errors import MtlError, unknown
from mtl.graph.collect import record
from mtl.graph.evidence import graph_folder, read_evidence
from mtl.graph.model import bases_of, build_graph
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from pathlib import Path

    import networkx as nx

    from mtl.zoo import Entry, Zoo


def open_graph(zoo: Zoo, folder: Path, base: str | None) -> tuple[nx.DiGraph, list[str]]:
    """The graph of what is there now, and remarks on what could not be read.

    Raises:
        RequestError: ``base`` is none of those that zoo and evidence know.
    """
    entries = zoo.entries()
    evidence, problems = read_evidence(folder)
    if base is not None:
        known = bases_of(entries, evidence)
        named = [f for f, name in known.items() if name == base]
        long_enough = [f for f in known if len(base) >= 8 and f.startswith(base)]
        fitting = named or long_enough
        if len(fitting) != 1:
            shown = [f"{name or '?'} ({f[:8]})" for f, name in known.items()]
            raise unknown("base", base, shown, "Give its id, or 8 digits of its fingerprint.")
        base = fitting[0]
    return build_graph(entries, evidence, base), [*map(str, zoo.problems), *problems]


def adding_evidence(
    zoo: Zoo, graph: str | None, say: Callable[[str], None]
) -> Callable[[Entry], None]:
    """Puts what a finished composition says beside the zoo; the run stands even if that fails.

    Args:
        graph: folder of the graph, None for the zoo's.
        say: takes a remark where it fails.
    """
    folder = graph_folder(zoo.root, graph)
    places = zoo_option(zoo.root) + (f" --graph {shlex.quote(graph)}" if graph else "")

    def add(entry: Entry) -> None:
        if not entry.manifest.composes:
            return
        try:
            record(zoo, folder, [entry])
        except MtlError as error:
            say(
                f"note: {entry.ref} is in the zoo, its evidence is not beside it: {error} "
                f"'python -m mtl.graph build{places}' collects it again."
            )

    return add
