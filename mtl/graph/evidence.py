"""Evidence about an edge source → target, in one file per run.

A run (a composition, a ``suggest``, an ``attribute``) writes one file of its own name, whole or not
at all. So any number of runs may end at once and none loses another's evidence; the graph is put
together from all files by whoever wants it.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mtl.errors import ZooError
from mtl.files import TEMPORARY, read_json, safe_part, user_path, write_json
from mtl.zoo.schema import NONE, check_section

SCHEMA_VERSION = 1
KINDS = ("measured", "reliance", "predicted", "attribution")
"""``measured``: metric of a composition of the source alone minus the target's own adapter.
``reliance``: the source's share of what a trained composition weighs (omega mass, attention).
``predicted``: a transferability score, computed without training.
``attribution``: what a trained composition loses or gains by the source."""

LARGEST = 1e30
"""No metric, share or score is beyond it, and sums of such numbers are finite."""
_PROVENANCE: dict[str, tuple[type, ...]] = {
    "entry": (dict,),
    "own": (dict,),
    "source": (dict,),
    "command": (str,),
    "created": (str,),
    "settings": (str,),
    "sources": (int,),
    "metric": (str, NONE),
    "caveat": (str, NONE),
    "composition": (str,),
    "split": (str,),
}
_PLACE: dict[str, tuple[type, ...]] = {"ref": (str,), "digest": (str,)}

_LOG = logging.getLogger("mtl.graph")


@dataclass(frozen=True)
class Evidence:
    """One finding about one edge.

    Attributes:
        source, target: ids of tasks; equal for what a target draws from its own adapter.
        kind: one of :data:`KINDS`.
        method: how it was found: a composition's name, ``omega``, ``attention``, a score's name.
        value: in the unit of its method (a metric's difference, a share, a score).
        low, high: 95 % interval, None where there is none.
        dev: the same on the dev split, for evidence that came from the test split (or None): what
            choices may go by, for who picks sources by their test result has seen the test.
        n: examples behind it, None where that says nothing.
        seeds: of the runs behind it.
        base: fingerprint of the base.
        rows: fingerprint of the target's training rows: evidence over other rows is another one.
        layers: value per layer or site, where the method has them.
        provenance: what it was computed from (references and digests of entries, the command, the
            time).
    """

    source: str
    target: str
    kind: str
    method: str
    value: float
    low: float | None = None
    high: float | None = None
    dev: float | None = None
    n: int | None = None
    seeds: tuple[int, ...] = ()
    base: str = ""
    rows: str = ""
    layers: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("source", "target", "kind", "method", "base", "rows"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, not text")
        if not self.source or not self.target or not self.method:
            raise ValueError("source, target and method must be named")
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        numbers = {"value": self.value, **{f"layers.{k}": v for k, v in self.layers.items()}}
        numbers |= {k: v for k in ("low", "high", "dev") if (v := getattr(self, k)) is not None}
        for name, number in numbers.items():
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise ValueError(f"{name} is {number!r}, not a number")
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}")
            if abs(number) > LARGEST:
                raise ValueError(f"{name} is {number:.3g}, beyond {LARGEST:g}")
        whole = [*([] if self.n is None else [self.n]), *self.seeds]
        if any(isinstance(number, bool) or not isinstance(number, int) for number in whole):
            raise ValueError(f"n and seeds are {whole!r:.60}, not whole numbers")
        _check_provenance(self.provenance)

    def to_dict(self) -> dict[str, Any]:
        """As the file stores it."""
        return {**asdict(self), "seeds": list(self.seeds)}

    @classmethod
    def from_dict(cls, value: Any) -> Evidence:
        """Check and view one stored finding.

        Raises:
            ValueError: a key is missing, unknown or of the wrong type; a number is not finite.
        """
        if not isinstance(value, dict):
            raise ValueError(f"{str(value)[:60]!r} is no JSON object")
        strange = value.keys() - {item.name for item in fields(cls)}
        if strange:
            raise ValueError(f"unknown key {sorted(strange)[0]!r}")
        for name in ("layers", "provenance"):
            if not isinstance(value.get(name, {}), dict):
                raise ValueError(f"{name} is no JSON object")
        if not isinstance(value.get("seeds", []), list):
            raise ValueError("seeds are no list")
        try:
            return cls(**{**value, "seeds": tuple(value.get("seeds", []))})
        except TypeError as error:
            raise ValueError(str(error).partition(") ")[2] or str(error)) from error


def _check_provenance(value: Mapping[str, Any]) -> None:
    """What is read back of it is of the type that readers take it for; the rest is any JSON."""
    try:
        check_section(value, _PROVENANCE, "provenance", partial=True)
        for role in ("entry", "own", "source"):
            check_section(value.get(role, {}), _PLACE, f"provenance.{role}", partial=True)
    except ZooError as error:
        raise ValueError(str(error).rstrip(".")) from error


def graph_folder(zoo_root: Path, folder: str | Path | None = None) -> Path:
    """Where evidence lies: ``folder``, else ``$MTL_GRAPH``, else ``<zoo>.graph`` beside the zoo."""
    named = folder or os.environ.get("MTL_GRAPH")
    return (
        user_path(named, "--graph or MTL_GRAPH")
        if named
        else zoo_root.with_name(f"{zoo_root.name}.graph")
    )


def evidence_file(folder: Path, run: str) -> Path:
    """The file of the run called ``run``. Raises RequestError for a name that is no file name."""
    return folder / "evidence" / f"{safe_part(run, 'evidence of run')}.json"


def write_evidence(folder: Path, run: str, found: Sequence[Evidence]) -> Path:
    """Write the evidence of one run, atomically; what the same run wrote before is replaced.

    Raises:
        RunError: the system refuses; nothing was changed.
    """
    path = evidence_file(folder, run)
    items = [item.to_dict() for item in found]
    write_json(path, {"schema_version": SCHEMA_VERSION, "run": run, "evidence": items})
    return path


def read_file(path: Path) -> list[Evidence]:
    """The evidence in one file.

    Raises:
        ZooError: damaged, or not of our schema; the message names the file.
    """
    stored = read_json(path)
    version = stored.get("schema_version") if isinstance(stored, dict) else None
    if version != SCHEMA_VERSION or not isinstance(stored.get("evidence"), list):
        raise ZooError(
            f"{path} is no evidence of schema {SCHEMA_VERSION} (it says {version!r}). Remove it: "
            "'python -m mtl.graph build' makes what the zoo can tell anew."
        )
    try:
        return [Evidence.from_dict(item) for item in stored["evidence"]]
    except ValueError as error:
        raise ZooError(f"{path} is damaged: {error}. Remove it.") from error


def read_evidence(folder: Path) -> tuple[list[Evidence], list[str]]:
    """All evidence below ``folder``, file by file in the order of their names.

    Returns:
        What was found, and the message of every file that had to be skipped (also logged).
    """
    found: list[Evidence] = []
    problems: list[str] = []
    for path in sorted((folder / "evidence").glob("*.json")):
        if path.name.startswith(TEMPORARY):
            continue
        try:
            found += read_file(path)
        except ZooError as error:
            problems.append(str(error))
            _LOG.warning("skipped %s", error)
    return found, problems
