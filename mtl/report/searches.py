"""Searches of settings behind the runs of a report: what ``<runs>/search/*/trials.json`` tell.

A search belongs to a report where a run of it, of the search's method and base, was trained with
what was found: the settings that were searched over have the best trial's values.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mtl.engine.recorded import all_settings
from mtl.errors import ZooError
from mtl.untrusted import load_json
from mtl.words import printable
from mtl.zoo import Entry

FILE = "trials.json"
"""Beside the journal of a search; written when it ends, or was made longer."""
_LOG = logging.getLogger("mtl.report")
Value = float | int | str | bool | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Axis(_Strict):
    """A setting that was searched over: a range, or ``choices``."""

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    choices: list[Value] = Field(default_factory=list)


class Tried(_Strict):
    """A trial; number 0 is what would run without the search."""

    number: int
    values: dict[str, Value]
    dev: float | None
    stderr: float | None
    state: str
    steps: int


class Trials(_Strict):
    """All trials of one method."""

    method: str
    task: str
    base: str
    by: str
    rows: int
    seeds: list[int]
    axes: list[Axis] = Field(min_length=1)
    tried: list[Tried] = Field(min_length=1)
    best: Tried

    @property
    def scored(self) -> list[float]:
        """The dev scores of those that ended."""
        return [item.dev for item in self.tried if item.dev is not None]


@dataclass(frozen=True)
class Used:
    """A search, and the runs that were trained with what it found."""

    trials: Trials
    entries: Sequence[Entry]


def searches_of(entries: Sequence[Entry], runs: Path) -> list[Used]:
    """The searches below ``runs`` that ``entries`` took their settings from.

    What cannot be read is left out with a warning.
    """
    found = []
    for path in sorted((runs / "search").glob(f"*/{FILE}")):
        try:
            trials = Trials.model_validate(load_json(path, str(path)))
        except (OSError, ValueError, ZooError) as error:
            _LOG.warning("left out: %s: %s", path, printable(str(error).splitlines()[0]))
            continue
        used = [entry for entry in entries if _took(entry, trials)]
        if used and trials.scored:
            found.append(Used(trials, used))
    return sorted(found, key=lambda item: (item.trials.task, item.trials.method))


def _took(entry: Entry, trials: Trials) -> bool:
    manifest = entry.manifest
    if (manifest.method, manifest.base["fingerprint"]) != (trials.method, trials.base):
        return False
    settings: Mapping[str, Any] = all_settings(manifest)
    of = {"run": manifest.run_settings, "method": manifest.method_settings}
    for axis in trials.axes:
        prefix, _, name = axis.key.rpartition(".")
        own = of.get(prefix, settings)
        if name not in own or own[name] != trials.best.values.get(axis.key):
            return False
    return True
