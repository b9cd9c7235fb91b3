"""What compositions have over their controls: the part of a gain that the sources' knowledge made.

A control (:mod:`mtl.compose.control`) belongs to the composition that is the same but for its
twins: task, base, rows, method, settings and sources. Where sources and their use were searched for
(``--sources best``) it belongs to what was searched for on the same rows, among the same sources,
by the same means and settings (of entries of before, which do not tell these, whatever they were):
the search among twins may have come to other sources, another method or start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.report.stats import Interval, paired_gain
from mtl.zoo.settings import reading_of

if TYPE_CHECKING:
    from mtl.zoo import Entry
    from mtl.zoo.manifest import Manifest


class Controls:
    """The controls among all runs, found by the composition that they belong to.

    Args:
        groups: runs that differ in their seed only, together.
    """

    def __init__(self, groups: Iterable[Sequence[Entry]]) -> None:
        self._alike: dict[Any, list[tuple[str, Sequence[Entry]]]] = {}
        self._searched: dict[Any, list[tuple[str, Sequence[Entry]]]] = {}
        for runs in groups:
            first = runs[0].manifest
            if first.control:
                choice = _choice(first)
                where = self._alike if choice is None else self._searched
                key = _key(first, _exactly(first) if choice is None else choice)
                where.setdefault(key, []).append((first.control, runs))

    def of(self, real: Manifest) -> list[tuple[str, Sequence[Entry]]]:
        """Which twins, and their runs; those of its search, where it has one, come last."""
        choice = _choice(real)
        found = [] if choice is None else self._searched.get(_key(real, choice), [])
        searched = [(how, runs) for how, runs in found if _alike(runs[0].manifest, real)]
        return [*self._alike.get(_key(real, _exactly(real)), []), *searched]


def gains_over_controls(entries: Sequence[Entry], controls: Controls) -> dict[str, Interval]:
    """Which twins → what ``entries`` have over them, paired by seed; only of seeds that both have.

    Args:
        entries: runs of a composition that differ in their seed only.
    """
    first = entries[0].manifest
    found: dict[str, Interval] = {}
    if not first.composes:
        return found
    ours = scores_by_seed(entries)
    for how, runs in controls.of(first):
        gain = paired_gain(scores_by_seed(runs), ours)
        if gain is not None:
            found[how] = gain
    return dict(sorted(found.items()))


def gain_over(twins: Sequence[Entry], groups: Mapping[Any, Sequence[Entry]]) -> Interval | None:
    """What the composition of a control has over it, paired by seed; None where it is not there.

    Args:
        twins: runs of a control that differ in their seed only.
        groups: all runs, such as these together.
    """
    control = Controls([twins])
    for runs in groups.values():
        first = runs[0].manifest
        if first.composes and control.of(first):
            gain = paired_gain(scores_by_seed(twins), scores_by_seed(runs))
            if gain is not None:
                return gain
    return None


def scores_by_seed(entries: Iterable[Entry]) -> dict[int, float]:
    """Seed → headline metric on the test split, of the runs that have one."""
    found = {}
    for entry in entries:
        test = entry.manifest.headline()
        if test is not None and test["value"] is not None:
            found[entry.manifest.seed] = float(test["value"])
    return found


def _key(manifest: Manifest, what: Any) -> Any:
    return _hashable((_common(manifest), what))


def _hashable(value: Any) -> Any:
    """JSON as something that is equal where the JSON is, and can be a key."""
    if isinstance(value, Mapping):
        return frozenset((key, _hashable(item)) for key, item in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _common(manifest: Manifest) -> tuple[Any, ...]:
    return (
        manifest.task["id"],
        manifest.task["headline"],
        manifest.base["fingerprint"],
        manifest.data["fingerprint"],
    )


def _exactly(manifest: Manifest) -> tuple[Any, ...]:
    settings = {key: value for key, value in manifest.run_settings.items() if key != "control"}
    return (
        manifest.method,
        manifest.method_settings,
        settings,
        reading_of(manifest),
        [parent["digest"] for parent in manifest.parents],
    )


def _alike(control: Manifest, real: Manifest) -> bool:
    """Whether both were searched for among the same sources, used by the same settings."""
    told = [manifest.training["choice"].get("among") for manifest in (control, real)]
    return told[0] == told[1] or None in told


def _choice(manifest: Manifest) -> tuple[Any, ...] | None:
    """What was searched among, by what budget; None where nothing was, or it does not say."""
    found = manifest.training.get("choice")
    if not isinstance(found, dict):
        return None
    try:
        candidates = [item["candidate"] for item in found["tried"]]
        tasks = {task for candidate in candidates for task in candidate["sources"]}
        methods = {candidate["method"] for candidate in candidates}
        return sorted(tasks), sorted(methods), found["budget"], found["by"]
    except (KeyError, TypeError):  # a stranger's
        return None
