"""Evidence and entries for the tests of the graph."""

from __future__ import annotations

from typing import Any

from zoo_bench import manifest, store, task

from mtl.graph import Evidence
from mtl.zoo import Entry, Zoo


def finding(**changes: Any) -> Evidence:
    values: dict[str, Any] = {
        "source": "toy/helper",
        "target": "toy/own",
        "kind": "measured",
        "method": "average",
        "value": 0.1,
        "seeds": (0,),
        "base": "ab" * 32,
        "rows": "r",
    }
    return Evidence(**{**values, **changes})


def helper(zoo: Zoo) -> Entry:
    return store(zoo, manifest(task=task("helper"), runhash="11" * 8))
