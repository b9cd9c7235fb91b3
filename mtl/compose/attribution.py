"""What each source of a trained composition contributes, without retraining.

The game: v(S) is the metric of the composition on a split when only the sources in S are there, and
the blocks of all others (their up-projections and biases) are zero; omega or attention and the head
stay as trained. For the players K, with ``v`` of coalitions:

- leave one out: ``v(K) − v(K without k)``;
- Shapley value (:mod:`mtl.compose.shapley`), which sums to v(K) − v(∅).

Layer by layer the same is asked of one site at a time: v_l(S) is the metric when *at site l* only
the sources in S are there, while all other sites have all sources, as trained. So the Shapley
values of site l sum to v(K) − v_l(∅), what the site's sources do together given all other sites;
over the sites they do not sum to the values above, since sites can stand in for each other, too.

Attributions hold for this trained model and this split: a source that others can stand in for gets
little, although training without them would have used it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.compose.shapley import EXACT, Coalition, Shapley, Value, shapley_values
from mtl.compose.sites import site_keys
from mtl.engine import evaluate
from mtl.engine.passes import usual_passes
from mtl.errors import RequestError, unknown
from mtl.graph.collect import settings_mark
from mtl.graph.evidence import Evidence

if TYPE_CHECKING:
    from mtl.data import Passes
    from mtl.engine import Device, EvalSet
    from mtl.runs import Loaded
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Attribution:
    """What the sources contribute to one metric.

    Attributes:
        whole, empty: the metric with all sources, and with none.
        leave_one_out: (K,).
        shapley: None where it was not asked for.
        layers: site → (K,) leave-one-out of a source at that site alone; empty where not asked.
        layer_shapley: site → Shapley values of the game of that site alone; empty where not asked.
        layer_empty: site → the metric with all sources of that site alone zeroed (beside
            ``layer_shapley``).
        n: examples evaluated on.
        passes: passes over the split that it took.
    """

    metric: str
    split: str
    whole: float
    empty: float
    leave_one_out: np.ndarray
    shapley: Shapley | None
    layers: dict[str, np.ndarray]
    n: int
    layer_shapley: dict[str, Shapley] = field(default_factory=dict)
    layer_empty: dict[str, float] = field(default_factory=dict)
    passes: int = 0


def attribute(
    built: Loaded,
    data: EvalSet,
    device: Device,
    *,
    passes: Passes | None = None,
    shapley: bool = True,
    layers: Sequence[str] = (),
    orders: int = 32,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Attribution:
    """Leave-one-out and Shapley values of the sources of ``built`` on a split.

    Args:
        built: a loaded composition; it is as before when this returns.
        passes: how much goes through the network at once, None for what is usual.
        shapley: False for leave-one-out only.
        layers: sites to look at one by one, too (see :func:`chosen_layers`).
        orders: random orders where the Shapley values are sampled (each also backwards).
        progress: called with 1 after each pass over the split; :func:`passes_needed` says how many
            there are at most.

    Raises:
        RequestError: the composition has no such sites, or the metric is undefined there.
    """
    built.network.to(device.torch_device)
    sites = site_keys(built.network.encoder)
    if not sites:
        raise RequestError("This composition has no sites with sources to switch off.")
    asked = chosen_layers(sites, layers) if layers else []
    count = next(iter(sites.values())).bank.count
    everyone = frozenset(range(count))
    metric = data.spec.headline
    rows = done = 0

    def run(off: dict[str, Coalition]) -> float:
        nonlocal rows, done
        with switched_off(sites, off):
            found = evaluate(
                built.attached, data, device, passes or usual_passes(device.torch_device)
            )
        rows = len(found.row)
        done += 1
        if progress is not None:
            progress(1)
        value = found.metrics[metric]
        if not math.isfinite(value):
            raise RequestError(f"{metric} is undefined on this split; nothing can be attributed.")
        return float(value)

    def game(places: Sequence[str], known: dict[Coalition, float]) -> Value:
        """v of the sources at ``places``; each coalition is evaluated once."""

        def value(coalition: Coalition) -> float:
            if coalition not in known:
                known[coalition] = run(dict.fromkeys(places, everyone - coalition))
            return known[coalition]

        return value

    value = game(list(sites), {})
    whole, empty = value(everyone), value(frozenset())
    alone = np.array([whole - value(everyone - {k}) for k in range(count)])
    found = shapley_values(count, value, orders=orders, seed=seed) if shapley else None
    by_layer, layer_shapley, layer_empty = {}, {}, {}
    for site in asked:
        here = game([site], {everyone: whole})  # all sources at one site: the whole composition
        by_layer[site] = np.array([whole - here(everyone - {k}) for k in range(count)])
        if shapley:
            layer_shapley[site] = shapley_values(count, here, orders=orders, seed=seed)
            layer_empty[site] = here(frozenset())
    return Attribution(
        metric=metric,
        split=data.encoded.name,
        whole=whole,
        empty=empty,
        leave_one_out=alone,
        shapley=found,
        layers=by_layer,
        n=rows,
        layer_shapley=layer_shapley,
        layer_empty=layer_empty,
        passes=done,
    )


def chosen_layers(sites: Iterable[str], names: Sequence[str]) -> list[str]:
    """The sites that ``names`` mean, bottom up: ``all``, sites by name, or layers by number.

    Raises:
        RequestError: a name that is none of them; says which there are.
    """
    known = list(sites)
    if list(names) == ["all"]:
        return known
    found = set()
    for name in names:
        fitting = [site for site in known if name in (site, site.partition(".")[0])]
        if not fitting:
            raise unknown("layer", name, ["all", *known])
        found.update(fitting)
    return [site for site in known if site in found]


def passes_needed(count: int, *, shapley: bool, layers: int, orders: int) -> int:
    """Passes over the split at most: exact for all coalitions, an upper bound for sampled orders.

    Args:
        count: sources.
        layers: sites that are looked at one by one, too.
        orders: random orders beyond :data:`EXACT` sources; each costs two walks of K − 1 passes.
    """
    plain = count + 2  # all, none, and each one left out
    if not shapley:
        return _distinct(plain, count) + count * layers
    many = 2**count if count <= EXACT else plain + 2 * orders * (count - 1)
    return many + layers * (many - 1)  # all sources at one site: the whole composition again


def _distinct(plain: int, count: int) -> int:
    # the only source left out is no source at all
    return plain - 1 if count == 1 else plain


@contextmanager
def switched_off(sites: dict[str, Any], off: dict[str, Coalition]) -> Iterator[None]:
    """Zero the blocks of some sources for the block: site → sources that are off there.

    Raises:
        RequestError: a site without a bank of sources.
    """
    kept: list[tuple[Any, torch.Tensor, torch.Tensor]] = []
    try:
        for name, site in sites.items():
            missing = off.get(name)
            if not missing:
                continue
            bank = getattr(site, "bank", None)
            if bank is None:
                raise RequestError(f"Site {name} of this composition has no sources to switch off.")
            here = torch.tensor(
                [index not in missing for index in range(bank.count)], device=bank.up.device
            )
            kept.append((bank, bank.up, bank.bias))
            bank.up = bank.up * here[bank.owner].unsqueeze(1)
            bank.bias = bank.bias * here.unsqueeze(1)
        yield
    finally:
        for bank, up, bias in kept:
            bank.up, bank.bias = up, bias


def to_dict(found: Attribution, entry: Entry) -> dict[str, Any]:
    """An attribution as JSON, by source."""
    tasks = [parent["task"] for parent in entry.manifest.parents]

    def named(values: np.ndarray) -> dict[str, float]:
        return {task: float(value) for task, value in zip(tasks, values, strict=True)}

    def as_json(shapley: Shapley) -> dict[str, Any]:
        return {
            "values": named(shapley.values),
            "errors": None if shapley.errors is None else named(shapley.errors),
            "exact": shapley.exact,
            "passes": shapley.passes,
        }

    return {
        "metric": found.metric,
        "split": found.split,
        "n": found.n,
        "passes": found.passes,
        "whole": found.whole,
        "empty": found.empty,
        "leave_one_out": named(found.leave_one_out),
        "layers": {layer: named(values) for layer, values in found.layers.items()},
        "shapley": None if found.shapley is None else as_json(found.shapley),
        "layer_shapley": {
            layer: {**as_json(shapley), "empty": found.layer_empty[layer]}
            for layer, shapley in found.layer_shapley.items()
        },
    }


def as_evidence(found: Attribution, entry: Entry, command: str) -> tuple[str, list[Evidence]]:
    """The name of the run and its evidence: one finding per source and method.

    Intervals of sampled Shapley values are the normal ones of their standard error.
    """
    manifest = entry.manifest
    splits = manifest.data.get("splits") or {}
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    items = []
    for number, parent in enumerate(manifest.parents):
        common: dict[str, Any] = {
            "source": parent["task"],
            "target": manifest.task["id"],
            "kind": "attribution",
            "n": found.n,
            "seeds": (manifest.seed,),
            "base": manifest.base["fingerprint"],
            "rows": str(splits.get("train") or manifest.data["fingerprint"]),
            "provenance": {
                "entry": {"ref": entry.ref, "digest": entry.digest},
                "composition": manifest.method,
                "sources": len(manifest.parents),
                "metric": found.metric,
                "split": found.split,
                "command": command,
                "created": now,
                "settings": settings_mark(entry),
            },
        }
        items.append(
            Evidence(
                method=f"{manifest.method} leave-one-out",
                value=float(found.leave_one_out[number]),
                dev=float(found.leave_one_out[number]) if found.split == "dev" else None,
                layers={layer: float(values[number]) for layer, values in found.layers.items()},
                **common,
            )
        )
        if found.shapley is not None:
            value, errors = float(found.shapley.values[number]), found.shapley.errors
            half = None if errors is None else 1.96 * float(errors[number])
            spread = {
                layer: float(shapley.errors[number])
                for layer, shapley in found.layer_shapley.items()
                if shapley.errors is not None
            }
            said = {**common["provenance"], **({"layer_errors": spread} if spread else {})}
            items.append(
                Evidence(
                    method=f"{manifest.method} shapley",
                    value=value,
                    low=None if half is None else value - half,
                    high=None if half is None else value + half,
                    dev=value if found.split == "dev" else None,
                    layers={
                        layer: float(shapley.values[number])
                        for layer, shapley in found.layer_shapley.items()
                    },
                    **{**common, "provenance": said},
                )
            )
    return f"attribute-{entry.digest[:16]}-{found.split}", items
