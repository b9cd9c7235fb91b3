"""From trained compositions of the zoo to evidence: learned reliance and measured transfer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import ZooError
from mtl.files import sha256_json
from mtl.graph.evidence import Evidence, evidence_file, read_file, write_evidence
from mtl.zoo.caveats import headline
from mtl.zoo.composition import SOUP, source_weights
from mtl.zoo.entry import drawn
from mtl.zoo.measured import recall_measured
from mtl.zoo.merged import once
from mtl.zoo.place import option_of

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo

_LOG = logging.getLogger("mtl.graph")
MIXTURE = "mixture"
"""How reliance was found where it was measured."""
DRAWS = 500
"""Bootstrap draws behind the interval of one run's measured transfer."""


@dataclass(frozen=True)
class Collected:
    """What :func:`record` did: files written, files that were right already, and remarks."""

    written: int
    kept: int
    notes: tuple[str, ...]


def record(
    zoo: Zoo,
    folder: Path,
    compositions: Iterable[Entry] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Write the evidence of ``compositions`` (None for all of the zoo), one file each.

    A file that already says the same of the same entries is left as it is.

    Raises:
        RunError: the system refuses to write.
    """
    chosen = once(zoo.entries()) if compositions is None else list(compositions)
    chosen = [entry for entry in chosen if entry.manifest.composes]
    targets = {entry.manifest.task["id"] for entry in chosen}
    adapters: dict[tuple[Any, ...], list[Entry]] = {}
    listed = zoo.summaries(kind="adapter")
    for entry in zoo.read(summary for summary in listed if summary.task in targets):
        adapters.setdefault(_rows_of(entry), []).append(entry)
    written = kept = 0
    notes: list[str] = []
    for done, entry in enumerate(chosen, start=1):
        run = f"compose-{entry.manifest.runhash[:16]}"
        own, note = own_adapter(entry, adapters.get(_rows_of(entry), []))
        if note:
            notes.append(note)
        if _recorded(evidence_file(folder, run), entry, own):
            kept += 1
        else:
            try:
                write_evidence(folder, run, evidence_of(entry, own))
                written += 1
            except ZooError as error:
                notes.append(f"{entry.ref}: no evidence, {error}")
        if progress is not None:
            progress(done, len(chosen))
    for note in notes:
        _LOG.warning("%s", note)
    return Collected(written, kept, tuple(notes))


def stale_files(zoo: Zoo, folder: Path) -> list[Path]:
    """Evidence files of compositions that are not in the zoo (removed, or of another zoo)."""
    digests = {entry.digest for entry in zoo.entries(kind="composition")}
    found = []
    for path in sorted((folder / "evidence").glob("compose-*.json")):
        try:
            items = read_file(path)
        except ZooError:
            continue  # read_evidence names it
        named = {item.provenance.get("entry", {}).get("digest") for item in items}
        if items and not named & digests:
            found.append(path)
    return found


def evidence_of(entry: Entry, own: Entry | None) -> list[Evidence]:
    """What a trained composition says about its sources.

    - K > 1 and weights that were learned: ``reliance`` per source (:func:`reliance`).
    - K = 1, another task's source, and an own adapter to compare with: ``measured`` transfer, the
      headline metric of the composition minus that of ``own`` on the test split; the interval is
      the paired bootstrap over test examples. ``dev`` is the difference on the dev split.

    Probes say nothing here: their scales were set by hand, neither learned nor as they would be.

    Raises:
        ZooError: its weights or predictions are damaged.
    """
    manifest = entry.manifest
    found: list[Evidence] = []
    if manifest.method == "probe":
        return found
    common = {
        "target": manifest.task["id"],
        "seeds": (manifest.seed,),
        "base": manifest.base["fingerprint"],
        "rows": _train_rows(entry),
    }
    parents = manifest.parents
    provenance = {
        "entry": {"ref": entry.ref, "digest": entry.digest},
        "command": manifest.command,
        "created": manifest.created,
        "settings": settings_mark(entry),
        "sources": len(parents),
    }
    shares = reliance(entry) if len(parents) > 1 else None
    if shares is not None:
        how, layers, matrix = shares
        for number, parent in enumerate(parents):
            found.append(
                Evidence(
                    source=parent["task"],
                    kind="reliance",
                    method=how,
                    value=float(matrix[number].mean()),
                    layers={
                        layer: float(value)
                        for layer, value in zip(layers, matrix[number], strict=True)
                    },
                    provenance={**provenance, "composition": manifest.method, "source": parent},
                    **common,
                )
            )
    if len(parents) == 1 and parents[0]["task"] != manifest.task["id"] and own is not None:
        gain = _gain(entry, own)
        if gain is not None:
            value, interval, n = gain
            found.append(
                Evidence(
                    source=parents[0]["task"],
                    kind="measured",
                    method=manifest.method,
                    value=value,
                    low=interval[0] if interval else None,
                    high=interval[1] if interval else None,
                    dev=_dev_gain(entry, own),
                    n=n,
                    provenance={
                        **provenance,
                        "metric": manifest.task["headline"],
                        "caveat": _caveat(entry, own),
                        "source": parents[0],
                        "own": {"ref": own.ref, "digest": own.digest},
                    },
                    **common,
                )
            )
    # A file without findings still says that this run was looked at, and against which adapter.
    return found


def settings_mark(entry: Entry) -> str:
    """What compositions that differ only in their seed have in common: settings and sources."""
    manifest = entry.manifest
    sources = [parent["digest"] for parent in manifest.parents]
    return sha256_json([manifest.method_settings, manifest.run_settings, sources])[:16]


def reliance(entry: Entry) -> tuple[str, list[str], np.ndarray] | None:
    """How much a trained composition weighs each source, per site.

    Where it was measured on this machine (``mtl.zoo show --measure``), the source's share of the
    mixture (:mod:`mtl.zoo.measured`), which says what arrives. Else its stored share: of the mean
    magnitude of omega, which does not know how large a source's outputs are, or of AdapterFusion's
    attention, a mean over tokens. :mod:`mtl.zoo.composition` defines them.

    Returns:
        (``mixture``, ``omega``, ``attention``, …, names of sites, (K,S) shares), or None where
        nothing was learned (``average``, ``soup``) or stored.

    Raises:
        ZooError: the weights are damaged or not finite.
    """
    if entry.manifest.method_settings.get("learn") is False:
        return None
    measured = recall_measured(entry)
    if measured is not None:
        return MIXTURE, list(measured.sites), np.asarray(measured.mixture, np.float64)
    found = source_weights(entry)
    if found is None or found.kind == SOUP:
        return None
    return found.kind, list(found.sites), found.share


def own_adapter(entry: Entry, candidates: Sequence[Entry]) -> tuple[Entry | None, str]:
    """The target's own adapter that a single-source composition is compared with.

    Of the same base, seed and rows of every split, trained by the source's method; of several, the
    one with the composition's own limit on rows.

    Returns:
        The adapter or None, and a remark where the choice would be arbitrary.
    """
    parents = entry.manifest.parents
    if len(parents) != 1 or parents[0]["task"] == entry.manifest.task["id"]:
        return None, ""
    fitting = drawn([e for e in candidates if e.manifest.method == parents[0]["method"]])
    if len(fitting) > 1:  # a limit that cuts nothing is another run on the same rows
        limit = entry.manifest.run_settings.get("max_train_samples")
        alike = [e for e in fitting if e.manifest.run_settings.get("max_train_samples") == limit]
        fitting = alike or fitting
    if len(fitting) > 1:
        refs = ", ".join(item.ref for item in fitting)
        return None, (
            f"{entry.ref}: no measured transfer, {len(fitting)} own adapters fit ({refs}); remove "
            f"those you do not want (python -m mtl.zoo rm REF{option_of(entry)})"
        )
    return (fitting[0] if fitting else None), ""


def _rows_of(entry: Entry) -> tuple[Any, ...]:
    manifest = entry.manifest
    return (
        (manifest.task["id"], manifest.task["headline"]),
        manifest.base["fingerprint"],
        manifest.data["fingerprint"],
        manifest.seed,
    )


def _train_rows(entry: Entry) -> str:
    splits: Mapping[str, Any] = entry.manifest.data.get("splits") or {}
    return str(splits.get("train") or entry.manifest.data["fingerprint"])


def _gain(entry: Entry, own: Entry) -> tuple[float, tuple[float, float] | None, int | None] | None:
    from mtl.report.resampling import paired_bootstrap
    from mtl.zoo import read_predictions

    ours, theirs = entry.manifest.headline(), own.manifest.headline()
    if not ours or not theirs or ours["value"] is None or theirs["value"] is None:
        return None
    interval = paired_bootstrap(
        entry.manifest.task["headline"],
        [read_predictions(own.folder)],
        [read_predictions(entry.folder)],
        draws=DRAWS,
    )
    return float(ours["value"]) - float(theirs["value"]), interval, ours["n"]


def _caveat(entry: Entry, own: Entry) -> str | None:
    """Why the difference says less than it seems: one of the two scores does."""
    for item in (entry, own):
        found = (headline(item) or {}).get("caveat")
        if found:
            return f"{item.manifest.method}: {found}"
    return None


def _dev_gain(entry: Entry, own: Entry) -> float | None:
    """The difference of the headline metric on the dev split."""
    metric = entry.manifest.task["headline"]
    found = []
    for item in (entry, own):
        value = item.manifest.metrics.get("dev", {}).get(metric, {}).get("value")
        if value is None:
            return None
        found.append(float(value))
    return found[0] - found[1]


def _recorded(path: Path, entry: Entry, own: Entry | None) -> bool:
    """Whether the file says what these two entries say: evidence is a function of them."""
    if not path.is_file():
        return False
    try:
        found = read_file(path)
    except ZooError:
        return False
    if not found:  # nothing was learned and nothing could be compared: cheap to look at again
        return False
    measured = [item for item in found if item.kind == "measured"]
    if (own is not None) != bool(measured):
        return False
    mixture = recall_measured(entry) is not None
    for item in found:
        if item.kind == "reliance" and (item.method == MIXTURE) != mixture:
            return False  # measured since then
        if item.provenance.get("entry", {}).get("digest") != entry.digest:
            return False
        if item.provenance.get("settings") != settings_mark(entry):
            return False
    return all(
        item.provenance.get("own", {}).get("digest") == own.digest
        and item.dev == _dev_gain(entry, own)
        for item in measured
        if own
    )
