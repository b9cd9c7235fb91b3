"""``mtl.methods ls --model``: what works on a model, and why not the rest."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

STAGES = {1: "stage one", 2: "stage two", "joint": "joint"}


def works_on(options: Namespace) -> int:
    """Print the methods of every stage by whether they work on the type of ``options.model``.

    Raises:
        RequestError: the model is not at hand, or of a type that mtl does not know.
    """
    from mtl.backbone.arch import supported
    from mtl.backbone.shapes import type_of
    from mtl.compose import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS

    arch = supported(type_of(options.model), repr(options.model))
    rows: list[dict[str, Any]] = [
        {
            "method": name,
            "stage": stage,
            "works": name not in arch.refuses,
            "reason": arch.refuses.get(name),
        }
        for stage, registry in ((1, METHODS), (2, COMPOSITIONS), ("joint", JOINT))
        for name in registry.names()
    ]
    if options.json:
        about = {"type": arch.type, "entry": arch.entry, "shared": arch.shared or None}
        print(json.dumps({**about, "pooling": arch.pooling, "methods": rows}))
        return 0
    entry = {"native": "classes of its own in adapters", "interface": "an interface of adapters"}
    ways = f"adapters get in by {entry[arch.entry]}, heads read {_READ[arch.pooling]}"
    print(f"type {arch.type}: {ways}")
    if arch.shared:
        print(f"    {arch.shared}")
    for stage, words in STAGES.items():
        own = [row for row in rows if row["stage"] == stage]
        print(f"{words}: {', '.join(row['method'] for row in own if row['works'])}")
        for row in own:
            if not row["works"]:
                print(f"    not {row['method']}: {row['reason']}")
    return 0


_READ = {
    "first": "the first token",
    "last": "the last real token",
    "mean": "the mean over the real tokens",
}
