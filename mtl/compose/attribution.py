"""What each source of a trained composition contributes, without retraining.

The game: v(S) is the metric of the composition on a split when only the sources in S are there, and
the blocks of all others (their up-projections and biases) are zero; omega or attention and the head
stay as trained. For the players K, with ``v`` of coalitions:

- leave one out: ``v(K) − v(K without k)``;
- Shapley value: ``Σ_S |S|! (K−|S|−1)! / K! · (v(S ∪ {k}) − v(S))``, which sums to v(K) − v(∅)
  (Shapley 1953). Exact by all 2^K coalitions up to K = 8; beyond, the mean over random orders, each
  taken forwards and backwards, with its standard error (Mitchell et al. 2022, JMLR 23, antithetic
  permutation sampling).

Attributions hold for this trained model and this split: a source that others can stand in for gets
little, although training without them would have used it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtl.compose.sites import site_keys
from mtl.engine import evaluate
from mtl.errors import RequestError
from mtl.graph.evidence import Evidence

if TYPE_CHECKING:
    from mtl.compose.load import LoadedComposition
    from mtl.engine import Device, EvalSet
    from mtl.zoo import Entry

EXACT = 8
"""Sources up to which all coalitions are evaluated (2^8 = 256 passes over the split)."""

Coalition = frozenset[int]
Value = Callable[[Coalition], float]


@dataclass(frozen=True)
class Shapley:
    """Shapley values (K,), with standard errors where they were sampled.

    Attributes:
        passes: how many coalitions were evaluated.
        exact: whether all of them were.
    """

    values: np.ndarray
    errors: np.ndarray | None
    passes: int
    exact: bool


@dataclass(frozen=True)
class Attribution:
    """What the sources contribute to one metric.

    Attributes:
        whole, empty: the metric with all sources, and with none.
        leave_one_out: (K,).
        shapley: None where it was not asked for.
        layers: layer → (K,) leave-one-out of a source in that layer alone; empty where not asked.
        n: examples evaluated on.
    """

    metric: str
    split: str
    whole: float
    empty: float
    leave_one_out: np.ndarray
    shapley: Shapley | None
    layers: dict[str, np.ndarray]
    n: int


def attribute(
    built: LoadedComposition,
    data: EvalSet,
    device: Device,
    *,
    batch_size: int = 128,
    shapley: bool = True,
    per_layer: bool = False,
    orders: int = 32,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Attribution:
    """Leave-one-out and Shapley values of the sources of ``built`` on a split.

    Args:
        built: a loaded composition; it is as before when this returns.
        orders: random orders where the Shapley values are sampled (each also backwards).
        progress: called with 1 after each pass over the split.

    Raises:
        RequestError: the composition has no sites, or the metric is undefined there.
    """
    built.network.to(device.torch_device)
    sites = site_keys(built.network.encoder)
    count = next(iter(sites.values())).bank.count
    everyone = frozenset(range(count))
    metric = data.spec.headline
    rows = 0

    def run(off: dict[str, Coalition]) -> float:
        nonlocal rows
        with switched_off(sites, off):
            found = evaluate(built.attached, data, device, batch_size)
        rows = len(found.row)
        if progress is not None:
            progress(1)
        value = found.metrics[metric]
        if not math.isfinite(value):
            raise RequestError(f"{metric} is undefined on this split; nothing can be attributed.")
        return float(value)

    known: dict[Coalition, float] = {}

    def value(coalition: Coalition) -> float:
        if coalition not in known:
            known[coalition] = run(dict.fromkeys(sites, everyone - coalition))
        return known[coalition]

    whole, empty = value(everyone), value(frozenset())
    alone = np.array([whole - value(everyone - {k}) for k in range(count)])
    layers = {}
    if per_layer:
        layers = {
            site: np.array([whole - run({site: frozenset({k})}) for k in range(count)])
            for site in sites
        }
    found = shapley_values(count, value, orders=orders, seed=seed) if shapley else None
    return Attribution(metric, data.encoded.name, whole, empty, alone, found, layers, rows)


def passes_needed(count: int, *, shapley: bool, per_layer: bool, layers: int, orders: int) -> int:
    """Passes over the split at most; sampled orders share some coalitions."""
    needed = count + 2 + (count * layers if per_layer else 0)
    if shapley:
        needed += 2**count - count - 2 if count <= EXACT else 2 * orders * (count - 1)
    return max(needed, count + 2)


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


def shapley_values(count: int, value: Value, *, orders: int = 32, seed: int = 0) -> Shapley:
    """Shapley values of ``count`` players under ``value``, exact up to :data:`EXACT` players.

    ``value`` is called once per coalition that is needed; it may remember.
    """
    seen: set[Coalition] = set()

    def look(coalition: Coalition) -> float:
        seen.add(coalition)
        return value(coalition)

    if count <= EXACT:
        return Shapley(_exact(count, look), None, len(seen), True)
    values, errors = _sampled(count, look, orders, seed)
    return Shapley(values, errors, len(seen), False)


def _exact(count: int, value: Value) -> np.ndarray:
    found = np.zeros(count)
    for size in range(count):
        weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
        for members in combinations(range(count), size):
            coalition = frozenset(members)
            base = value(coalition)
            for player in range(count):
                if player not in coalition:
                    found[player] += weight * (value(coalition | {player}) - base)
    return found


def _sampled(count: int, value: Value, orders: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over pairs of an order and its reverse; the standard error is over the pairs."""
    if orders < 2:
        raise RequestError(f"--orders {orders}: an error needs at least 2 random orders.")
    rng = np.random.default_rng(seed)
    pairs = np.zeros((orders, count))
    for number in range(orders):
        order = rng.permutation(count)
        pairs[number] = (_walk(order, value) + _walk(order[::-1], value)) / 2
    return pairs.mean(0), pairs.std(0, ddof=1) / math.sqrt(orders)


def _walk(order: Sequence[Any] | np.ndarray, value: Value) -> np.ndarray:
    """Each player's gain on entering, in this order."""
    found = np.zeros(len(order))
    coalition: Coalition = frozenset()
    last = value(coalition)
    for player in map(int, order):
        coalition = coalition | {player}
        now = value(coalition)
        found[player] = now - last
        last = now
    return found


def to_dict(found: Attribution, entry: Entry) -> dict[str, Any]:
    """An attribution as JSON, by source."""
    tasks = [parent["task"] for parent in entry.manifest.parents]

    def named(values: np.ndarray) -> dict[str, float]:
        return {task: float(value) for task, value in zip(tasks, values, strict=True)}

    shapley = found.shapley
    return {
        "metric": found.metric,
        "split": found.split,
        "n": found.n,
        "whole": found.whole,
        "empty": found.empty,
        "leave_one_out": named(found.leave_one_out),
        "layers": {layer: named(values) for layer, values in found.layers.items()},
        "shapley": None
        if shapley is None
        else {
            "values": named(shapley.values),
            "errors": None if shapley.errors is None else named(shapley.errors),
            "exact": shapley.exact,
            "passes": shapley.passes,
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
        common = {
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
            items.append(
                Evidence(
                    method=f"{manifest.method} shapley",
                    value=value,
                    low=None if half is None else value - half,
                    high=None if half is None else value + half,
                    dev=value if found.split == "dev" else None,
                    **common,
                )
            )
    return f"attribute-{entry.digest[:16]}-{found.split}", items
