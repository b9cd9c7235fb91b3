"""What the stored weights of a composition mean: their names, their shapes, their normalisation.

``composition.safetensors`` holds one tensor per layer (or per site: ``<layer>.<location>``, of
low-rank sources ``<layer>.<module>``; ``2-3`` for a group of layers, ``shared`` for all of them):

========================  ==========  ==============================================================
``omega.<site>``          (K,D|1)     ScaLearn family: the scales as trained, before normalisation
``attention.<site>``      (K,)        AdapterFusion: mean attention over the test split's tokens
========================  ==========  ==============================================================

and what a loader alone needs (``fusion.<site>.…``, ``soup.weights``). omega enters the sum
normalised where the composition's settings say so (:func:`normalised`), and whoever shows, compares
or draws it takes :func:`source_weights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mtl.errors import ZooError
from mtl.zoo.arrays import read_arrays
from mtl.zoo.schema import show

if TYPE_CHECKING:
    from mtl.zoo.entry import Entry
    from mtl.zoo.manifest import Manifest

FILE = "composition.safetensors"
NORMALISE = ("none", "mean", "softmax")
"""How omega enters the sum: as it is, divided by its sum over the sources, or softmaxed over
them (the paper's ablations)."""
OMEGA, ATTENTION = "omega", "attention"


@dataclass(frozen=True)
class SourceWeights:
    """The weights of a composition as they are used.

    Attributes:
        kind: ``omega`` or ``attention``.
        sites: site → (K,D), (K,1): what each source is multiplied by; bottom up, one location
            after the other.
    """

    kind: str
    sites: Mapping[str, NDArray[np.float64]]

    def means(self) -> NDArray[np.float64]:
        """(K,L): the mean over D of every source at every site."""
        return np.stack([value.mean(1) for value in self.sites.values()], axis=1)

    def shares(self) -> NDArray[np.float64]:
        """(K,L): ``m_k / Σ_j m_j`` with the mass ``m_k = mean_d |w_kd|``; 1/K where all are 0."""
        columns = []
        for value in self.sites.values():
            mass = np.abs(value).mean(1)
            total = mass.sum()
            columns.append(mass / total if total > 0 else np.full(len(mass), 1 / len(mass)))
        return np.stack(columns, axis=1)


def source_weights(entry: Entry) -> SourceWeights | None:
    """What a stored composition weighs its sources by; None where it stores no such weights.

    Raises:
        ZooError: they are damaged, not one per source, or not finite (also after normalisation:
            an omega that sums to 0 over the sources cannot be divided by that).
    """
    try:
        arrays = read_arrays(entry.folder / FILE)
    except FileNotFoundError as error:
        raise ZooError(f"{entry.ref}: {FILE} is missing.") from error
    except ZooError as error:
        raise ZooError(f"{entry.ref}: {error}") from error
    for kind in (OMEGA, ATTENTION):
        named = {key.partition(".")[2]: key for key in arrays if is_of(kind, key)}
        if named:
            return SourceWeights(
                kind,
                {
                    site: _used(entry, named[site], arrays[named[site]])
                    for site in sorted(named, key=site_order)
                },
            )
    return None


def _used(entry: Entry, name: str, stored: NDArray[Any]) -> NDArray[np.float64]:
    value = stored.astype(np.float64)
    sources = len(entry.manifest.parents)
    if not sources or value.shape[:1] != (sources,) or not value.size:
        raise ZooError(
            f"{entry.ref}: {show(name)} of shape {value.shape} holds no weights per source; there "
            f"are {sources}."
        )
    value = value.reshape(sources, -1)
    if is_of(OMEGA, name):
        value = normalised(value, normalisation(entry.manifest))
    if not np.isfinite(value).all():
        raise ZooError(f"{entry.ref}: {show(name)} holds weights that are not finite.")
    return value


def normalised(omega: NDArray[np.float64], how: str) -> NDArray[np.float64]:
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


def is_of(kind: str, name: str) -> bool:
    """Whether the tensor ``name`` of :data:`FILE` is one of ``omega`` or ``attention``."""
    return name.startswith(f"{kind}.")


def site_order(key: str) -> tuple[str, int]:
    """Sort key of sites: bottom up, one location after the other."""
    number, _, location = key.partition(".")
    first = number.partition("-")[0]  # of a group of layers, 2-3
    return location, int(first) if first.isascii() and first.isdigit() else -1
