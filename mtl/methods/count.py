"""Exact parameter counts, taken from the real modules on the meta device.

Building the modules takes torch and ``adapters``. What was counted before is known without them:
with default settings, of the models whose shapes are built in, by ``counts.json``, which
``scripts/count_known.py`` makes and a test makes again; anything else by this machine, as long as
the code is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.backbone.arch import check_method
from mtl.backbone.shapes import shape_mark
from mtl.files import sha256_json
from mtl.methods.method import METHODS, Method, RunFacts, attach, find_method, make_settings
from mtl.remembered import computed, keep_computed, made_by

if TYPE_CHECKING:
    from torch import nn


SHIPPED = Path(__file__).with_name("counts.json")


@dataclass(frozen=True)
class Count:
    """Parameters by part.

    Attributes:
        method: the method's own trainable scalars; of masked methods the floats that are stored.
        layer_norm: of unfrozen LayerNorms of the base.
        head: of the head, 0 where none was asked for.
        merged: what the method adds at inference (experts merged); ``method`` where that is all.
        mask_entries: bits stored beside the floats.
        all_parameters: of base, method and head together.
    """

    method: int
    layer_norm: int
    head: int
    merged: int
    mask_entries: int
    all_parameters: int

    @property
    def total(self) -> int:
        return self.method + self.layer_norm + self.head

    @property
    def percent(self) -> float:
        """``total`` in percent of all parameters."""
        return 100 * self.total / self.all_parameters

    def to_dict(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "layer_norm": self.layer_norm,
            "head": self.head,
            "total": self.total,
            "merged": self.merged,
            "mask_entries": self.mask_entries,
            "percent": self.percent,
        }


def numel(parameters: Iterable[nn.Parameter]) -> int:
    """Number of scalars."""
    return sum(parameter.numel() for parameter in parameters)


def count_head(head: str | None, config: Any, labels: int) -> int:
    """Parameters of a head with ``labels`` outputs; 0 for None."""
    import torch

    from mtl.backbone import build_head

    if head is None:
        return 0
    with torch.device("meta"):
        return numel(build_head(head, config, labels, pooler=True).trained().values())


def count_method(
    name: str, model: str, *, values: dict[str, Any], head: str | None = None, labels: int = 2
) -> Count:
    """Count a stage-one method on ``model``; nothing is downloaded, nothing allocated.

    Raises:
        RequestError: unknown method, setting or model shape.
    """
    method = find_method(name)
    settings = make_settings(name, method.settings, {**method.defaults, **values})
    return count_settings(method, settings, model, head=head, labels=labels)


def count_settings(
    method: Method, settings: Any, model: str, *, head: str | None = None, labels: int = 2
) -> Count:
    """As :func:`count_method`, for settings that are made."""
    if method.package and find_spec(method.package) is None:  # counting says what is missing
        return _count(method, settings, model, head, labels)
    what = ["adapter", method.name, asdict(settings), head, labels]
    ours = METHODS.ours(method, method.name)
    return known_count(what, model, lambda: _count(method, settings, model, head, labels), ours)


def known_count(what: Any, model: str, count: Callable[[], Count], ours: bool) -> Count:
    """``count()``, or what it gave before.

    Args:
        what: what is counted on ``model``, as JSON.
        ours: whether all code that decides it is this package's own; else nothing is known.
    """
    shape = shape_mark(model) if ours else None
    if shape is None:
        return count()
    shipped = shipped_counts().get(shipped_key(what, shape))
    if shipped is not None:
        return Count(*shipped)
    by = made_by("torch", "transformers", "adapters", "peft")
    key = sha256_json({"what": what, "shape": shape, "by": by})
    before = computed("counts", key)
    if before is not None:
        return Count(**before)
    found = count()
    keep_computed("counts", key, asdict(found))
    return found


def shipped_key(what: Any, shape: Any) -> str:
    """Under which key ``counts.json`` holds a count."""
    return sha256_json({"what": what, "shape": shape})[:16]


@lru_cache(maxsize=1)
def shipped_counts() -> Mapping[str, list[int]]:
    """The counts in ``counts.json``, by key; none where other versions of the libraries count."""
    content = json.loads(SHIPPED.read_bytes())
    installed = made_by(*content["by"])
    same = all(installed.get(name) == version for name, version in content["by"].items())
    return content["counts"] if same else {}


def _count(method: Method, settings: Any, model: str, head: str | None, labels: int) -> Count:
    import torch

    from mtl.backbone import skeleton

    encoder = skeleton(model)
    check_method(encoder.config.model_type, method.name)
    base = numel(encoder.parameters())
    with torch.device("meta"):
        tuned = attach(encoder, method, settings, "counted", RunFacts(head=head or ""))
    sizes = {group.name: numel(group.parameters.values()) for group in tuned.groups}
    own = sum(size for part, size in sizes.items() if part not in {"layer_norm", "masks", "gates"})
    of_head = count_head(head, encoder.config, labels)
    return Count(
        method=own,
        layer_norm=sizes.get("layer_norm", 0),
        head=of_head,
        merged=own if tuned.merged is None else tuned.merged,
        mask_entries=tuned.mask_entries,
        all_parameters=base + (own if method.adds else 0) + of_head,
    )
