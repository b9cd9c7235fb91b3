"""The graph: tasks as nodes, evidence as edges, derived from a zoo and from evidence files.

A ``networkx.DiGraph``. Nodes carry ``kind``, ``suite``, ``metric``, ``rows`` (sizes of training
splits) and ``entries``; edges source → target carry ``evidence``, a list of findings over seeds. An
edge from a task to itself is what a target draws from its own adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.graph.evidence import Evidence

if TYPE_CHECKING:
    import networkx as nx

    from mtl.zoo import Entry

ORDER = ("measured", "attribution", "reliance", "predicted")
"""Which evidence speaks for an edge where there are several: what was measured goes first."""


def build_graph(
    entries: Iterable[Entry], evidence: Iterable[Evidence], base: str | None = None
) -> nx.DiGraph:
    """Put nodes and edges together.

    Findings that differ only in their seed are one: the mean, with the Student-t interval over
    seeds where there are several, else the interval of the one run. Runs of other settings
    (epochs, learning rate, ...) or with other sources are findings of their own: a share among two
    is none among six.

    Args:
        base: fingerprint of a base (or its first digits): only its entries and evidence. None for
            all; findings of different bases are never averaged.
    """
    import networkx as nx

    graph = nx.DiGraph(name="source-task graph", base=base or "")
    for entry in sorted(entries, key=lambda item: item.ref):
        if base is None or entry.manifest.base["fingerprint"].startswith(base):
            _add_entry(graph, entry)
    groups: dict[tuple[Any, ...], list[Evidence]] = {}
    for item in evidence:
        if base is None or item.base.startswith(base):
            settings = str(item.provenance.get("settings", ""))
            key = (item.source, item.target, item.kind, item.method, item.base, item.rows, settings)
            groups.setdefault(key, []).append(item)
    for key in sorted(groups):
        source, target = key[:2]
        for task in (source, target):
            if task not in graph:
                graph.add_node(task, **_empty_node(task))
        if not graph.has_edge(source, target):
            graph.add_edge(source, target, evidence=[])
        graph.edges[source, target]["evidence"].append(_joined(groups[key]))
    return graph


def edge_value(
    data: Mapping[str, Any], kinds: Sequence[str] = ORDER, method: str | None = None
) -> dict[str, Any] | None:
    """The finding that speaks for an edge: of the first of ``kinds`` that it has.

    Of several findings of a kind (other compositions, other training rows), the one over most
    seeds, then the latest.
    """
    for kind in kinds:
        found = [
            item
            for item in data["evidence"]
            if item["kind"] == kind and method in (None, item["method"])
        ]
        if found:
            return max(found, key=lambda item: (len(item["seeds"]), item["created"]))
    return None


def choice_value(item: Mapping[str, Any]) -> float | None:
    """What of a finding a choice may go by: never what the test split showed.

    The value on dev of measured transfer and attribution, None where there is none; of learned
    reliance and of scores the value itself, which comes from training rows.
    """
    value = item["dev"] if item["kind"] in {"measured", "attribution"} else item["value"]
    return None if value is None else float(value)


def negative_edges(graph: nx.DiGraph, target: str | None = None) -> list[dict[str, Any]]:
    """Measured transfer below zero, worst first; ``certain`` where the interval is below zero.

    Args:
        target: only edges into this task.
    """
    found = []
    for source, goal, data in graph.edges(data=True):
        if source == goal or target not in (None, goal):
            continue
        item = edge_value(data, ("measured",))
        if item is not None and item["value"] < 0:
            certain = item["high"] is not None and item["high"] < 0
            found.append({"source": source, "target": goal, "certain": certain, **item})
    return sorted(found, key=lambda item: (item["value"], item["source"], item["target"]))


def method_text(item: Mapping[str, Any]) -> str:
    """The method of a finding; of a share or contribution also among how many sources it is."""
    among = item.get("sources")
    shared = item["kind"] in {"reliance", "attribution"} and isinstance(among, int)
    return f"{item['method']}, {among} sources" if shared else str(item["method"])


def bases_of(entries: Iterable[Entry], evidence: Iterable[Evidence]) -> dict[str, str]:
    """Fingerprint → id of every base there is (the id is empty where only evidence names it)."""
    found = {item.base: "" for item in evidence if item.base}
    found |= {e.manifest.base["fingerprint"]: e.manifest.base["id"] for e in entries}
    return found


def _empty_node(task: str) -> dict[str, Any]:
    suite = task.rpartition("/")[0]
    return {"suite": suite, "kind": "", "metric": "", "rows": 0, "sizes": [], "entries": []}


def _add_entry(graph: nx.DiGraph, entry: Entry) -> None:
    manifest = entry.manifest
    task = manifest.task["id"]
    if task not in graph:
        graph.add_node(task, **_empty_node(task))
    node = graph.nodes[task]
    node["suite"], node["kind"] = manifest.suite, manifest.task["kind"]
    node["metric"] = manifest.task["headline"] or ""
    size = int(manifest.data["sizes"].get("train", 0))
    node["sizes"] = sorted({*node["sizes"], size})
    node["rows"] = max(node["sizes"])
    test = manifest.headline() or {}
    node["entries"].append(
        {
            "ref": entry.ref,
            "digest": entry.digest,
            "kind": manifest.kind,
            "method": manifest.method,
            "seed": manifest.seed,
            "base": manifest.base["fingerprint"],
            "train": size,
            "test": test.get("value"),
        }
    )


def _joined(items: Sequence[Evidence]) -> dict[str, Any]:
    """One finding over seeds; the last one written where a seed was looked at twice."""
    from mtl.report.stats import mean_interval

    by_seed: dict[tuple[int, ...], Evidence] = {}
    for item in sorted(items, key=lambda item: str(item.provenance.get("created", ""))):
        by_seed[item.seeds] = item
    kept = [by_seed[seeds] for seeds in sorted(by_seed)]
    first = kept[0]
    value, low, high = first.value, first.low, first.high
    if len(kept) > 1:
        interval = mean_interval([item.value for item in kept])
        value, low, high = interval.mean, interval.low, interval.high
    devs = [item.dev for item in kept if item.dev is not None]
    devs = devs if len(devs) == len(kept) else []
    layers = {
        layer: sum(item.layers[layer] for item in kept) / len(kept)
        for layer in first.layers
        if all(layer in item.layers for item in kept)
    }
    return {
        "kind": first.kind,
        "method": first.method,
        "value": float(value),
        "low": low,
        "high": high,
        "dev": sum(devs) / len(devs) if devs else None,
        "interval": "over seeds" if len(kept) > 1 else "of one run",
        "n": first.n,
        "seeds": sorted({seed for item in kept for seed in item.seeds}),
        "base": first.base,
        "rows": first.rows,
        "layers": layers,
        "settings": str(first.provenance.get("settings", "")),
        "sources": first.provenance.get("sources"),
        "caveat": next((str(c) for i in kept if (c := i.provenance.get("caveat"))), None),
        "created": max(str(item.provenance.get("created", "")) for item in kept),
        "runs": [dict(item.provenance) for item in kept],
    }
