"""Graphs to draw: a small one with a stranger in it, and one of many tasks."""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np

from mtl.graph import Evidence, build_graph

BASE = "ab" * 32
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>&@data@\u202e'


def finding(source: str, kind: str, value: float, **changes: Any) -> Evidence:
    common: dict[str, Any] = {"target": "t/own", "method": "average", "base": BASE, "rows": "r"}
    return Evidence(source, kind=kind, value=value, **{**common, **changes})


def sample() -> nx.DiGraph:
    run = {
        "entry": {"ref": f"base/toy/{EVIL}", "digest": "1"},
        "own": {"ref": "base/toy/own/seed0"},
        "command": "python -m mtl.compose --target own",
    }
    return build_graph(
        [],
        [
            finding("s/good", "measured", 0.2, low=0.1, high=0.3, n=400, provenance=run),
            finding("s/bad", "measured", -0.1, low=-0.15, high=-0.05, seeds=(0,)),
            finding("s/seen", "reliance", 0.4, method="omega", layers={"0": 0.3, "1": 0.5}),
            finding("s/told", "predicted", -1.0, method="logme"),
            finding("s/good", "predicted", -0.5, method="logme"),
            finding("t/own", "reliance", 0.6, method="omega"),
            finding(f"s/{EVIL}", "measured", 0.05, provenance={"command": EVIL}),
        ],
    )


def many(count: int) -> nx.DiGraph:
    """So many tasks of one suite with about six measured sources each, and three scored ones."""
    rng = np.random.default_rng(0)
    names = [
        f"s/task_{number:02d}{'_of_a_long_name' * (number % 7 == 0)}" for number in range(count)
    ]
    items = []
    for target in names:
        for source in rng.choice(names, min(6, count), replace=False):
            value = float(rng.normal(0.01, 0.03))
            spread = {"low": value - 0.02, "high": value + 0.02, "target": target}
            if source != target:
                items.append(finding(str(source), "measured", value, **spread))
        for source in rng.choice(names, min(3, count), replace=False):
            if source != target:
                score = float(rng.normal())
                items.append(
                    finding(str(source), "predicted", score, method="logme", target=target)
                )
    return build_graph([], items)
