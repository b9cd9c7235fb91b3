"""Write ``mtl/methods/counts.json`` again: what ``mtl.methods count`` says of every method.

With default settings, over the models whose shapes are built in::

    python scripts/count_known.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import astuple
from unittest.mock import patch

from mtl.backbone import known_models
from mtl.compose import COMPOSITIONS, count_composition
from mtl.joint import JOINT, count_joint
from mtl.methods import METHODS, Count, count_method
from mtl.methods import count as counting
from mtl.methods.method import make_settings
from mtl.remembered import made_by


def count_all(model: str) -> dict[str, list[int]]:
    """Every count of ``model`` as it is shipped, by key, from the real modules."""
    found: dict[str, list[int]] = {}

    def keep(what: object, model: str, count: object, ours: bool) -> Count:
        assert ours, what
        made: Count = count()  # type: ignore[operator]
        key = counting.shipped_key(what, counting.shape_mark(model))
        found[key] = [int(number) for number in astuple(made)]
        return made

    with (
        patch("mtl.methods.count.known_count", keep),
        patch("mtl.compose.count.known_count", keep),
        patch("mtl.joint.count.known_count", keep),
    ):
        for name in METHODS.names():
            count_method(name, model, values={})
        for name in COMPOSITIONS.names():
            count_composition(name, model, sources=8, values={})
        for name in JOINT.names():
            method = JOINT.get(name)
            settings = make_settings(name, method.settings, dict(method.defaults))
            count_joint(name, settings, model, tasks=8)
    return found


def main() -> None:
    """Count, and write the file."""
    found: dict[str, list[int]] = {}
    for model in known_models():
        print(model, file=sys.stderr)
        found |= count_all(model)
    by = {name: made_by(name)[name] for name in ("adapters", "transformers")}
    rows = ",\n".join(f"  {json.dumps(key)}: {json.dumps(found[key])}" for key in sorted(found))
    text = f'{{"by": {json.dumps(by)}, "counts": {{\n{rows}\n}}}}\n'
    counting.SHIPPED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
