"""Own adapter against compositions: one row per task, base and method, with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtl.engine.recorded import all_settings
from mtl.errors import RequestError, unknown
from mtl.report.beside import baselines_of, findings_of
from mtl.report.controls import Controls, gains_over_controls, scores_by_seed
from mtl.report.picking import BEST_DEV, best_by_dev, dev_of
from mtl.report.resampling import gain_over_examples
from mtl.report.stats import Interval, mean_interval, paired_gain
from mtl.zoo.caveats import headline
from mtl.zoo.merged import once
from mtl.zoo.settings import differing, reading_of

if TYPE_CHECKING:
    from mtl.zoo import Entry, Zoo
    from mtl.zoo.manifest import Manifest

ORDER = ("adapter", "composition", "control")
READING = 7
"""Place of what :func:`mtl.zoo.settings.reading_of` says in a key of :func:`group_of`."""


@dataclass(frozen=True)
class Row:
    """What one method reached on one task, over seeds.

    Attributes:
        kind: ``adapter``, ``composition``, or ``control`` of a composition with twins as sources.
        sources: how many sources a composition used, 0 for an own adapter.
        test: headline metric on the test split; None where no run has a value of it.
        dev: the same on dev, over the seeds that have it.
        gain: composed − own adapter, paired by seed; None where there is nothing to compare.
        gain_examples: bootstrap interval of the same gain over test examples.
        seeds, compared: seeds behind ``test``, and those behind ``gain``.
        selected_by: what picked the states: ``dev loss``, ``last step``, …; None where unknown.
        caveats, gain_caveats: why ``test``, and ``gain``, say less than they seem: a score that is
            undefined or degenerate in one of the runs (:mod:`mtl.tasks.caveats`).
        control: which twins a control has as sources; empty for other rows.
        controls: which twins → composed − control, paired by seed: what the composition has from
            what its sources know (:mod:`mtl.compose.control`).
        baselines: name → value on test, and ``train``, the rows that it learned from
            (:mod:`mtl.zoo.quality`); empty for entries of before.
        findings: what is to be said of its runs, each with the seeds.
        picked: among how many variants dev picked it; 0 where nothing was picked.
        settings: what sets the row apart from others of the same task, base, method and number
            of sources; empty where there are none.
        scores: seed → value on test, those behind ``test``.
        train: rows that its runs were trained on.
    """

    task: str
    base: str
    kind: str
    method: str
    metric: str
    sources: int
    parameters: int
    test: Interval | None
    seeds: list[int]
    examples: int | None
    gain: Interval | None = None
    gain_examples: tuple[float, float] | None = None
    compared: list[int] = field(default_factory=list)
    selected_by: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    caveats: list[str] = field(default_factory=list)
    gain_caveats: list[str] = field(default_factory=list)
    dev: Interval | None = None
    picked: int = 0
    control: str = ""
    controls: dict[str, Interval] = field(default_factory=dict)
    baselines: dict[str, Any] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    train: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "dev": self.dev.to_dict() if self.dev else None,
            "test": self.test.to_dict() if self.test else None,
            "gain": self.gain.to_dict() if self.gain else None,
            "controls": {how: gain.to_dict() for how, gain in self.controls.items()},
        }


def results(
    entries: Sequence[Entry], *, pick: str | None = None, beside: Sequence[Entry] = ()
) -> list[Row]:
    """The rows of :func:`rows_and_runs`."""
    return [row for row, _ in rows_and_runs(entries, pick=pick, beside=beside)]


def rows_and_runs(
    entries: Sequence[Entry], *, pick: str | None = None, beside: Sequence[Entry] = ()
) -> list[tuple[Row, list[Entry]]]:
    """One row per (task, base, training rows, method, settings, sources), own adapters first,
    and its runs.

    Runs belong together when everything but the seed is the same. A composition is compared with
    adapters of the method of its sources that trained on the same rows of its task, and with its
    controls: those of ``entries`` and ``beside`` (:func:`compared_with`), which have no rows. Joint
    models have no one task and are left out: see :func:`mtl.report.suite_tables`.
    """
    groups = by_group(entry for entry in entries if entry.manifest.kind != "joint")
    shown = _picked(groups) if pick == BEST_DEV else dict.fromkeys(groups, 0)
    apart = settings_apart([groups[key][0].manifest for key in shown])
    bases = base_names(entries)
    around = by_group([*entries, *beside]) if beside else groups
    adapters, controls = adapters_of(around), Controls(around.values())
    rows = []
    for (key, count), settings in zip(shown.items(), apart, strict=True):
        found = groups[key]
        composed = found[0].manifest.kind == "composition"
        own = own_adapters(found[0], adapters) if composed else []
        row = replace(
            row_of(found, own, settings, bases),
            picked=count,
            controls=gains_over_controls(found, controls),
        )
        rows.append((key, row))
    rows.sort(
        key=lambda item: (
            *(item[1].task, item[1].base, ORDER.index(item[1].kind)),
            *(item[1].method, item[1].train or 0, item[0]),  # a learning curve in its order
        )
    )
    return [(row, groups[key]) for key, row in rows]


def compared_with(entries: Sequence[Entry], zoo: Zoo) -> list[Entry]:
    """What compositions among ``entries`` are compared with and a choice of entries left out.

    A suite, or settings, say which results are shown; the target's own adapter and the control are
    not of that suite or at these settings, and a gain is over them all the same.
    """
    composed = [entry.manifest for entry in entries if entry.manifest.kind == "composition"]
    known = {entry.ref for entry in entries}
    return [
        entry
        for task in sorted({manifest.task["id"] for manifest in composed})
        for entry in zoo.entries(task=task)
        if entry.ref not in known
        and (entry.manifest.kind == "adapter" or entry.manifest.control)
        and entry.manifest.task["id"] == task
    ]


def base_names(entries: Sequence[Entry]) -> dict[str, str]:
    """Fingerprint → how tables call the base: what its newest entry calls it, and 8 digits."""
    newest = sorted(entries, key=lambda entry: entry.manifest.created)
    bases = [entry.manifest.base for entry in newest]
    return {base["fingerprint"]: f"{base['id']} {base['fingerprint'][:8]}" for base in bases}


def _label_of(manifest: Manifest) -> tuple[Any, ...]:
    """What rows have in common that differ only in settings, data or sources."""
    return (
        manifest.task["id"],
        manifest.base["fingerprint"],
        manifest.kind,
        manifest.method,
        len(manifest.parents),
        manifest.control,
    )


def _picked(groups: Mapping[tuple[Any, ...], Sequence[Entry]]) -> dict[tuple[Any, ...], int]:
    """The groups that are shown, each with the number of variants that dev picked it from."""
    labels: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for key, found in groups.items():
        labels.setdefault(_label_of(found[0].manifest), []).append(key)
    shown = {}
    for keys in labels.values():
        best = best_by_dev([[dev_of(entry) for entry in groups[key]] for key in keys])
        if len(keys) > 1 and best is not None:
            shown[keys[best]] = len(keys)
        else:
            shown |= dict.fromkeys(keys, 0)
    return shown


def group_of(entry: Entry) -> tuple[Any, ...]:
    """What runs that differ only in their seed have in common."""
    from mtl.files import canonical_json

    manifest = entry.manifest
    return (
        (manifest.task["id"], manifest.task["headline"]),
        manifest.base["fingerprint"],
        manifest.data["fingerprint"],
        manifest.kind,
        manifest.method,
        canonical_json(manifest.method_settings),
        canonical_json(manifest.run_settings),
        canonical_json(reading_of(manifest)),
        tuple(parent["digest"] for parent in manifest.parents),
    )


def by_group(entries: Iterable[Entry]) -> dict[tuple[Any, ...], list[Entry]]:
    """Runs that differ only in their seed, together, by :func:`group_of`; each run once.

    Entries of before do not tell how their task is read. They join the runs of the same data, which
    are the same texts and labels, and settings, where these were all read in one way and none is of
    a seed of theirs.
    """
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in once(entries):
        groups.setdefault(group_of(entry), []).append(entry)
    untold = {key for key, runs in groups.items() if not runs[0].manifest.task.get("spec")}
    for key in sorted(untold):
        alike = [
            other for other in groups.keys() - untold if _but_reading(other) == _but_reading(key)
        ]
        if len(alike) == 1:
            seeds = [{run.manifest.seed for run in groups[other]} for other in (key, alike[0])]
            if not seeds[0] & seeds[1]:
                groups[alike[0]] += groups.pop(key)
    return groups


def _but_reading(key: tuple[Any, ...]) -> tuple[Any, ...]:
    """A key of :func:`group_of` without how the task is read; its metric stands in front."""
    return (*key[:READING], *key[READING + 1 :])


def settings_apart(manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
    """For each group, by a manifest of it: the settings in which groups of its label differ.

    The cap ``max_train_samples`` is left out: how many rows there were says more. Where nothing
    else tells two groups apart, the first digits of their data's fingerprint do.
    """
    from mtl.files import canonical_json

    labels = [_label_of(manifest) for manifest in manifests]
    settings = [
        {
            **reading_of(m),
            **all_settings(m),
            "train rows": m.data["sizes"].get("train"),
            "sources": ", ".join(parent["ref"].rpartition("-")[2] for parent in m.parents),
            "results": ", ".join(parent["digest"][:8] for parent in m.parents),
            "data": m.data["fingerprint"][:8],
        }
        for m in manifests
    ]
    for own in settings:
        own.pop("max_train_samples", None)
    apart = differing(labels, settings)
    for own, manifest in zip(apart, manifests, strict=True):
        for key in own.keys() - manifest.run_settings.keys():  # then the task's is what was used
            if own.get(f"task.{key}") is not None:
                own[key] = own[f"task.{key}"]
        for key in ["metric", *(f"task.{key}" for key in own)]:  # stand beside it
            own.pop(key, None)
        # of runs without a limit, which have none
        if own.get("sample", "") is None:
            del own["sample"]
        if "sources" in own:  # the runs say which; of one run on several machines the results do
            own.pop("results", None)
    data = [own.pop("data", None) for own in apart]
    names = [canonical_json([label, own]) for label, own in zip(labels, apart, strict=True)]
    several: dict[str, set[str | None]] = {}
    for name, mark in zip(names, data, strict=True):
        several.setdefault(name, set()).add(mark)
    for own, name, mark in zip(apart, names, data, strict=True):
        if len(several[name]) > 1:
            own["data"] = mark
    return apart


def having(entries: Sequence[Entry], wanted: Sequence[str]) -> list[Entry]:
    """The entries whose settings of run and method are all ``KEY=VALUE`` of ``wanted``.

    An entry whose method has no such setting is left out; joint baselines and compositions of one
    zoo differ in what they have.

    Raises:
        RequestError: a text is not KEY=VALUE, or no entry has a setting of that name.
    """
    found = list(entries)
    known = {key for entry in entries for key in all_settings(entry.manifest)}
    for text in wanted:
        key, equals, value = text.partition("=")
        if not equals:
            raise RequestError(f"--where takes KEY=VALUE, not {text!r}.")
        if known and key not in known:
            raise unknown("setting", key, sorted(known))
        found = [entry for entry in found if _is(all_settings(entry.manifest).get(key), value)]
    return found


def _is(stored: Any, text: str) -> bool:
    """Whether a stored setting is what a user wrote: 3e-3 is 0.003, true is True."""
    if isinstance(stored, bool) or stored is None:
        return str(stored).lower() == text.lower()
    if isinstance(stored, int | float):
        try:
            return float(text) == stored
        except ValueError:
            return False
    return str(stored) == text


Adapters = Mapping[tuple[Any, ...], Sequence[Sequence["Entry"]]]
"""Task and metric, base and rows → the groups of own adapters trained on them."""


def adapters_of(groups: Mapping[tuple[Any, ...], Sequence[Entry]]) -> Adapters:
    """The groups of own adapters among ``groups``, which have the keys of :func:`group_of`."""
    found: dict[tuple[Any, ...], list[Sequence[Entry]]] = {}
    for key, runs in groups.items():
        if key[3] == "adapter":
            found.setdefault(key[:3], []).append(runs)
    return found


def own_adapters(composition: Entry, adapters: Adapters) -> Sequence[Entry]:
    """The group of the target's own adapters: the one its own source is in, else the largest."""
    manifest = composition.manifest
    methods = {parent["method"] for parent in manifest.parents}
    digests = {parent["digest"] for parent in manifest.parents}
    fitting = [
        found
        for found in adapters.get(group_of(composition)[:3], ())
        if found[0].manifest.method in methods
    ]
    with_source = [found for found in fitting if any(e.digest in digests for e in found)]
    plain = [found for found in fitting if not found[0].manifest.run_settings.get("init_from")]
    candidates = with_source or plain or fitting
    return max(candidates, key=len) if candidates else []


def row_of(
    entries: Sequence[Entry],
    own: Sequence[Entry],
    settings: dict[str, Any],
    bases: Mapping[str, str],
) -> Row:
    """The row of runs that differ in their seed, beside the own adapters they are compared with."""
    manifest = entries[0].manifest
    scores, base = scores_by_seed(entries), scores_by_seed(own)
    gain = paired_gain(base, scores)
    compared = sorted(scores.keys() & base.keys())
    test = manifest.headline() or {}
    dev = [value for entry in entries if (value := dev_of(entry).value) is not None]
    doubts = _doubts(entries)
    return Row(
        task=manifest.task["id"],
        base=bases[manifest.base["fingerprint"]],
        kind="control" if manifest.control else manifest.kind,
        control=manifest.control,
        method=manifest.method,
        metric=manifest.task["headline"],
        sources=len(manifest.parents),
        parameters=manifest.training["trainable_parameters"],
        test=mean_interval([scores[seed] for seed in sorted(scores)]) if scores else None,
        seeds=sorted(scores),
        examples=test.get("n"),
        dev=mean_interval(dev) if dev else None,
        gain=gain,
        gain_examples=_bootstrap(entries, own, compared) if gain else None,
        compared=compared,
        selected_by=manifest.selected_by(),
        settings=settings,
        caveats=doubts,
        gain_caveats=list(dict.fromkeys([*doubts, *_doubts(own)])) if gain else [],
        baselines=baselines_of(entries),
        findings=findings_of(entries),
        scores=dict(sorted(scores.items())),
        train=manifest.data["sizes"].get("train"),
    )


def _doubts(entries: Sequence[Entry]) -> list[str]:
    """The caveats of their test scores, each with the seeds that have it."""
    found: dict[str, list[int]] = {}
    for entry in entries:
        item = headline(entry) or {}
        if item.get("caveat"):
            found.setdefault(item["caveat"], []).append(entry.manifest.seed)
    return [f"{why} (seed {', '.join(map(str, sorted(s)))})" for why, s in found.items()]


def _bootstrap(
    entries: Sequence[Entry], own: Sequence[Entry], seeds: Sequence[int]
) -> tuple[float, float] | None:
    def by_seed(group: Sequence[Entry]) -> list[Entry]:
        found = {entry.manifest.seed: entry for entry in group}
        return [found[seed] for seed in seeds]

    metric = entries[0].manifest.task["headline"]
    return gain_over_examples(metric, by_seed(own), by_seed(entries))
