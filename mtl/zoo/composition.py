"""What the files of a composition mean: names, shapes, normalisation, shares of the sources.

A **site** is a layer (``3``), a location or a linear module in one (``3.mh_adapter``, ``3.q``), or
what several layers have in common (``2-3``, ``shared``, ``shared.q``). With K sources in the order
of the manifest's parents, ``composition.safetensors`` holds what was trained or fixed:

====================  ==========  ==================================================================
``omega.<site>``      (K,D|1)     ScaLearn family: the scales as trained, before normalisation
``fusion.<site>.…``   (D,D), (D)  AdapterFusion: query, key, value, as stock BertFusion names them
``soup.weights``      (K,)        AdapterSoup: the weights of the average, which add up to 1
``gates.groups``      (G,K)       gates by group (:mod:`mtl.compose.groups`): what omega is
                                  multiplied by for rows of each group, in the order of the names
``attention.<site>``  (K,)        only in fusions of before ``shares.safetensors``: the mean
                                  attention over the real tokens of the test split
====================  ==========  ==================================================================

omega enters the sum normalised where the composition's settings say so (:func:`normalised`).

``shares.safetensors``, written when a composition is stored, holds ``<kind>.<site>`` (3,K) float32.
With w_k (D,) or (1,) what source k is multiplied by at the site, its rows are

====  ===========  =================================================================================
0     share        m_k / Σ_j m_j of the magnitudes m below; 1/K where all of them are 0
1     mean         mean_d w_kd, with its sign: scales of opposite sign cancel
2     magnitude    m_k = mean_d |w_kd|
====  ===========  =================================================================================

The kind is ``omega`` or ``soup``, the same for every input; any other (``attention``) depends on it
and is w averaged over the real tokens of all rows of the dev split, as the stored model gives it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import ZooError
from mtl.files import write_bytes
from mtl.untrusted import read_header
from mtl.zoo.arrays import read_arrays
from mtl.zoo.names import SHARES, show

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.manifest import Manifest

FILE = "composition.safetensors"
NORMALISE = ("none", "mean", "softmax")
"""How omega enters the sum: as it is, divided by its sum over the sources, or softmaxed over
them (the paper's ablations)."""
OMEGA, ATTENTION, SOUP, FUSION = "omega", "attention", "soup", "fusion"
GATES = "gates.groups"
SOUP_WEIGHTS = f"{SOUP}.weights"
CONSTANT = (OMEGA, SOUP)
"""Kinds of weights that are the same for every input."""
SITES_PER_LAYER = 32
"""A layer has so many places for sources at most; more were written to hurt."""
_KIND = re.compile(r"[a-z][a-z0-9_\-]{0,39}")
_SITE = re.compile(r"(shared|[0-9]{1,6}(?:-[0-9]{1,6})?)(?:\.[A-Za-z0-9_]{1,60})?")
_LAYER = re.compile(rf"(?:{OMEGA}|{FUSION})\.([0-9]+)")

Array = NDArray[np.float64]
Shape = tuple[str, tuple[int, ...]]
"""Type of a tensor, as safetensors calls it, and its shape."""


@dataclass(frozen=True)
class SourceWeights:
    """How much a composition uses each of its K sources at its S sites.

    Attributes:
        kind: ``omega``, ``attention``, ``soup``; a composition of others has a word of its own.
        rows: the split over whose rows weights that depend on the input are averaged, else "".
        sites: their names, bottom up, one location after the other.
        share, mean, magnitude: (K,S), as the head of this file defines them.
    """

    kind: str
    rows: str
    sites: tuple[str, ...]
    share: Array
    mean: Array
    magnitude: Array

    @property
    def cancels(self) -> bool:
        """Whether scales of both signs, or negative ones, make mean and magnitude differ."""
        return not np.allclose(self.mean, self.magnitude, rtol=1e-4, atol=1e-6)


def weigh(kind: str, used: Mapping[str, Any], rows: str = "") -> SourceWeights:
    """The weights of a composition from what its sources are multiplied by.

    Args:
        used: site → (K,D), (K,1) or (K,), as it enters the sum.
        rows: as in :class:`SourceWeights`.

    Raises:
        ZooError: a weight is not finite.
    """
    parts = []
    for site in (sites := tuple(sorted(used, key=site_order))):
        value = np.asarray(used[site], np.float64)
        value = value.reshape(len(value), -1)
        if not np.isfinite(value).all():
            raise ZooError(f"{show(f'{kind}.{site}')} holds weights that are not finite.")
        mass = np.abs(value).mean(1)
        total = mass.sum()
        share = mass / total if total > 0 else np.full(len(mass), 1 / len(mass))
        parts.append((share, value.mean(1), mass))
    share, mean, magnitude = (np.stack(column, axis=1) for column in zip(*parts, strict=True))
    return SourceWeights(kind, rows, sites, share, mean, magnitude)


def write_shares(folder: Path, weights: SourceWeights) -> None:
    """Write ``shares.safetensors`` into the folder of an entry that is about to be stored.

    Raises:
        RunError: the system refuses.
    """
    from safetensors.numpy import save

    table = np.stack([weights.share, weights.mean, weights.magnitude]).astype(np.float32)
    arrays = {
        f"{weights.kind}.{site}": np.ascontiguousarray(table[:, :, number])
        for number, site in enumerate(weights.sites)
    }
    write_bytes(folder / SHARES, save(arrays))


def source_weights(entry: Entry) -> SourceWeights | None:
    """How much a stored composition uses each source; None where nothing in it says so.

    From ``shares.safetensors``; of an entry of before there was one, from what it weighs by.

    Raises:
        ZooError: they are damaged, not one per source, or not finite (also after normalisation:
            an omega that sums to 0 over the sources cannot be divided by that).
    """
    try:
        if SHARES in entry.files:
            return _stored(entry.folder, entry.manifest)
        found = _used(entry.folder, entry.manifest)
        return weigh(*found) if found else None
    except FileNotFoundError as error:
        missing = SHARES if SHARES in entry.files else FILE
        raise ZooError(f"{entry.ref}: {missing} is missing.") from error
    except ZooError as error:
        raise ZooError(f"{entry.ref}: {error}") from error


def used_weights(entry: Entry) -> dict[str, Array] | None:
    """Site → (K,D), (K,1): what each source is multiplied by; None where that depends on the input.

    Of a soup what its sources' weights were multiplied by. Raises as :func:`source_weights`.
    """
    try:
        found = _used(entry.folder, entry.manifest)
    except FileNotFoundError as error:
        raise ZooError(f"{entry.ref}: {FILE} is missing.") from error
    except ZooError as error:
        raise ZooError(f"{entry.ref}: {error}") from error
    return found[1] if found and found[0] in CONSTANT else None


def check_shares(folder: Path, manifest: Manifest) -> None:
    """Look at the shares in the folder of an entry: in themselves, and beside its weights.

    Raises:
        FileNotFoundError: a file is missing.
        ZooError: says what is wrong.
    """
    stored, used = _stored(folder, manifest), _used(folder, manifest)
    if used is None or used[0] == ATTENTION:
        return  # nothing else in the entry says them
    own = weigh(*used)
    close = (own.kind, own.sites) == (stored.kind, stored.sites) and all(
        np.allclose(getattr(own, key), getattr(stored, key), rtol=1e-4, atol=1e-6)
        for key in ("share", "mean", "magnitude")
    )
    if not close:
        raise ZooError(f"{SHARES} says something else than what {FILE} weighs its sources by.")


def share_problems(shapes: Mapping[str, Shape], manifest: Manifest) -> list[str]:
    """What is wrong with the names, types and shapes in ``shares.safetensors``."""
    sources, layers = len(manifest.parents), manifest.base["layers"]
    if manifest.kind != "composition":
        return [f"belongs to compositions; this entry is of kind {show(manifest.kind)}."]
    found = []
    for name, (dtype, shape) in shapes.items():
        kind, _, site = name.partition(".")
        if not _KIND.fullmatch(kind) or not _is_site(site, layers):
            found.append(f"{show(name)} is no <kind>.<site> of a base with {layers} layers.")
        elif dtype != "F32" or shape != (3, sources):
            found.append(
                f"{show(name)} is {dtype} of shape {shape}; shares are F32 of shape {(3, sources)} "
                f"where there are {sources} parents."
            )
    kinds = {name.partition(".")[0] for name in shapes}
    if len(kinds) != 1:
        found.append(f"it holds {len(kinds)} kinds of weights ({show(sorted(kinds))}), not one.")
    if len(shapes) > SITES_PER_LAYER * layers:
        found.append(f"it names {len(shapes)} sites; the base has {layers} layers.")
    return found


def weight_problem(name: str, shape: tuple[int, ...], manifest: Manifest) -> str | None:
    """What is wrong with the tensor ``name`` of :data:`FILE` if it holds weights per source."""
    sources = len(manifest.parents)
    if name == GATES and shape[1:] != (sources,):
        return (
            f"{show(name)} has the shape {shape}; a group has a gate for each of {sources} parents."
        )
    if name.partition(".")[0] in {OMEGA, ATTENTION, SOUP} and shape[:1] != (sources,):
        return f"{show(name)} has the shape {shape}; there are {sources} parents."
    return None


def as_used(arrays: Mapping[str, NDArray[Any]], manifest: Manifest) -> dict[str, NDArray[Any]]:
    """The tensors of :data:`FILE` as they are used: omega normalised, without what was measured.

    Raises:
        ZooError: ``normalise`` of the settings is unknown.
    """
    return {
        name: normalised(value.astype(np.float64), normalisation(manifest))
        if is_of(OMEGA, name)
        else value
        for name, value in arrays.items()
        if is_weight(name)
    }


def is_weight(name: str) -> bool:
    """Whether the tensor ``name`` of :data:`FILE` is used, and not only measured."""
    return not is_of(ATTENTION, name)


def layer_of(name: str) -> int | None:
    """The (first) layer of a tensor of :data:`FILE`; None where it is of all, or of none."""
    found = _LAYER.match(name)
    return int(found[1]) if found else None


def normalised(omega: Array, how: str) -> Array:
    """omega (K,D) as it enters the sum; the same as ``ScaLearnSite.effective`` in evaluation."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):  # found not to be finite
        if how == "softmax":
            raised = np.exp(omega - omega.max(0, keepdims=True))
            return raised / raised.sum(0, keepdims=True)
        if how == "mean":
            return omega / omega.sum(0, keepdims=True)
    return omega


def normalisation(manifest: Manifest) -> str:
    """One of :data:`NORMALISE`: that of the entry's settings; ``none`` where they name none.

    Raises:
        ZooError: it is something else.
    """
    how = manifest.method_settings.get("normalise", "none")
    if how not in NORMALISE:
        raise ZooError(f"normalise={show(how)} is none of {', '.join(NORMALISE)}.")
    return str(how)


def gate_column(settings: Mapping[str, Any]) -> str:
    """The column that an entry with these settings gates its sources by, empty for none."""
    column = settings.get("gate", "")
    return column if isinstance(column, str) and "grouping" in settings else ""


def is_of(kind: str, name: str) -> bool:
    """Whether the tensor ``name`` is one of ``omega``, ``attention``, …"""
    return name.startswith(f"{kind}.")


def site_order(key: str) -> tuple[str, int]:
    """Sort key of sites: bottom up, one location after the other."""
    number, _, location = key.partition(".")
    first = number.partition("-")[0]  # of a group of layers, 2-3
    return location, int(first) if first.isascii() and first.isdigit() else -1


def _is_site(site: str, layers: int) -> bool:
    found = _SITE.fullmatch(site)
    numbers = [] if found is None or found[1] == "shared" else found[1].split("-")
    return found is not None and all(int(number) < layers for number in numbers)


def _used(folder: Path, manifest: Manifest) -> tuple[str, dict[str, Array], str] | None:
    """Kind, site → (K,D), and the split that they were measured on, from :data:`FILE`."""
    arrays = read_arrays(folder / FILE)
    if SOUP_WEIGHTS in arrays:
        value = _per_source(SOUP_WEIGHTS, arrays[SOUP_WEIGHTS], manifest)
        return SOUP, {"shared": value}, ""
    for kind, rows in ((OMEGA, ""), (ATTENTION, "test")):
        named = sorted(
            (n for n in arrays if is_of(kind, n)), key=lambda n: site_order(n[len(kind) + 1 :])
        )
        if len(named) > SITES_PER_LAYER * manifest.base["layers"]:
            raise ZooError(
                f"{FILE} names {len(named)} sites; the base has {manifest.base['layers']} layers."
            )
        sites = {
            name.partition(".")[2]: _per_source(name, arrays[name], manifest) for name in named
        }
        if kind == OMEGA and sites:
            how = normalisation(manifest)
            sites = {site: normalised(value, how) for site, value in sites.items()}
        if sites:
            return kind, sites, rows
    return None


def _per_source(name: str, stored: NDArray[Any], manifest: Manifest) -> Array:
    sources = len(manifest.parents)
    if not sources or stored.shape[:1] != (sources,) or not stored.size:
        raise ZooError(
            f"{show(name)} of shape {stored.shape} holds no weights per source; there are "
            f"{sources}."
        )
    return stored.astype(np.float64).reshape(sources, -1)


def _stored(folder: Path, manifest: Manifest) -> SourceWeights:
    """What ``shares.safetensors`` says; its header is looked at before its values are read."""
    header = read_header(folder / SHARES, SHARES)
    shapes = {name: (info.dtype, info.shape) for name, info in header.tensors.items()}
    for problem in share_problems(shapes, manifest):
        raise ZooError(f"{SHARES}: {problem}")
    arrays = read_arrays(folder / SHARES)
    (kind,) = {name.partition(".")[0] for name in arrays}
    by_site = {name.partition(".")[2]: value for name, value in arrays.items()}
    sites = tuple(sorted(by_site, key=site_order))
    share, mean, magnitude = np.stack([by_site[site] for site in sites], axis=2).astype(np.float64)
    table = np.stack([share, mean, magnitude])
    if not np.isfinite(table).all():
        raise ZooError(f"{SHARES} holds values that are not finite.")
    total = magnitude.sum(0)
    even = np.full_like(share, 1 / len(share))
    wanted = np.divide(magnitude, total, out=even, where=total > 0)
    if (
        (magnitude < np.abs(mean) * (1 - 1e-4) - 1e-6).any()
        or not np.allclose(share, wanted, rtol=1e-3, atol=1e-4)
    ):  # fmt: skip
        raise ZooError(
            f"{SHARES} contradicts itself: shares are those of the magnitudes and add up to 1 at "
            "every site, and no mean is larger than its magnitude."
        )
    return SourceWeights(kind, "" if kind in CONSTANT else "dev", sites, share, mean, magnitude)
