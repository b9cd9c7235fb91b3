"""Evidence about an edge source → target, in one file per run.

A run (a composition, a ``suggest``, an ``attribute``) writes one file of its own name, whole or not
at all. So any number of runs may end at once and none loses another's evidence; the graph is put
together from all files by whoever wants it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, StrictInt, StrictStr, model_validator
from pydantic.dataclasses import dataclass

from mtl.errors import ZooError
from mtl.files import TEMPORARY, read_json, safe_part, user_path, write_json
from mtl.typed import graph_places
from mtl.zoo.models import List, Model, Table, by, check, only_known

SCHEMA_VERSION = 1
Kind = Literal["measured", "reliance", "predicted", "attribution"]
KINDS = get_args(Kind)
"""``measured``: metric of a composition of the source alone minus the target's own adapter.
``reliance``: the source's share of what a trained composition weighs (of the mixture, of omega's
mass, of the attention).
``predicted``: a transferability score, computed without training.
``attribution``: what a trained composition loses or gains by the source."""

LARGEST = 1e30
"""No metric, share or score is beyond it, and sums of such numbers are finite."""
Number = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-LARGEST, le=LARGEST)]
Text = Annotated[StrictStr, Field(min_length=1)]


class _Place(Model):
    ref: str = ""
    digest: str = ""


class _Provenance(Model):
    """What is read back of it is of the type that readers take it for; the rest is any JSON."""

    entry: _Place = _Place()
    own: _Place = _Place()
    source: _Place = _Place()
    command: str = ""
    created: str = ""
    settings: str = ""
    sources: int = 0
    metric: str | None = None
    caveat: str | None = None
    composition: str = ""
    split: str = ""


Provenance = Annotated[dict[str, Any], by(lambda value: check(_Provenance, value, "it"))]
_LOG = logging.getLogger("mtl.graph")


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Evidence:
    """One finding about one edge; checked when it is made (pydantic's ``ValidationError``).

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

    source: Text
    target: Text
    kind: Kind
    method: Text
    value: Number
    low: Number | None = None
    high: Number | None = None
    dev: Number | None = None
    n: StrictInt | None = None
    seeds: Annotated[tuple[StrictInt, ...], Field(fail_fast=True)] = ()
    base: StrictStr = ""
    rows: StrictStr = ""
    layers: Table[Number] = field(default_factory=dict)
    provenance: Provenance = field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _only_known(cls, value: Any) -> Any:
        return only_known(value, {item.name for item in fields(cls)})

    def to_dict(self) -> dict[str, Any]:
        """As the file stores it."""
        return {**asdict(self), "seeds": list(self.seeds)}


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
            f"'python -m mtl.graph build{graph_places()}' makes what the zoo can tell anew."
        )
    try:
        return check(List[Evidence], stored["evidence"], "evidence")
    except ZooError as error:
        raise ZooError(f"{path} is damaged: {error} Remove it.") from error


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
