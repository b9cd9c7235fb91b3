"""What a study leaves beside its runs, for whoever looks from another terminal or machine.

::

    runs/studies/<name>/
        journal.jsonl         one line per run that ended, of all drivers
        <host>-<pid>.json     what a driver is doing: written again as it goes, and when it ends

States of runs are in the zoo and in the run folders; here is only what these cannot say: who is at
what, how far, why something failed, and which sources were chosen.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import MtlError
from mtl.files import finite, slug, write_json
from mtl.untrusted import load_json, parse_json

if TYPE_CHECKING:
    from mtl.study.work import Outcome

FOLDER = "studies"
BEAT = 2.0
"""Seconds between two looks that a driver lets others have."""
SILENT = 60.0
"""Seconds without a word after which a driver is taken for gone."""
KEPT = 20
"""Drivers that have ended and are still told of."""


class Journal:
    """The folder of a study below that of the runs; nothing is made before something is written."""

    def __init__(self, runs: Path, name: str) -> None:
        self.folder = runs / FOLDER / name
        self._own = self.folder / f"{slug(os.uname().nodename)}-{os.getpid()}.json"
        self._written = 0.0

    def add(self, outcome: Outcome, label: str, worker: str) -> None:
        """Append what became of a run."""
        line = {
            "time": time.time(),
            "key": outcome.key,
            "label": label,
            "status": outcome.status,
            "runhash": outcome.runhash,
            "error": outcome.error,
            **outcome.told,
            "worker": worker,
            "host": os.uname().nodename,
        }
        text = json.dumps(finite(line), allow_nan=False, ensure_ascii=False) + "\n"
        with contextlib.suppress(OSError):  # the entry is there; this is a record of it
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "journal.jsonl").open("a", encoding="utf-8") as stream:
                stream.write(text)
            if outcome.trace:
                with (self.folder / "traces.txt").open("a", encoding="utf-8") as stream:
                    stream.write(f"{label}\n{outcome.trace}\n")

    def beat(self, state: Mapping[str, Any], *, now: bool = False) -> None:
        """Say what this driver is doing, at most every :data:`BEAT` seconds."""
        if not now and time.monotonic() - self._written < BEAT:
            return
        self._written = time.monotonic()
        told = {"host": os.uname().nodename, "pid": os.getpid(), "written": time.time(), **state}
        with contextlib.suppress(MtlError):  # a full disk is said by the runs themselves
            write_json(self._own, finite(told))

    def read(self) -> list[dict[str, Any]]:
        """All lines of the journal; what is none is left out."""
        found = []
        with contextlib.suppress(OSError):
            for line in (self.folder / "journal.jsonl").read_bytes().splitlines():
                with contextlib.suppress(MtlError):
                    value = parse_json(line, "journal.jsonl")
                    if isinstance(value, dict) and isinstance(value.get("key"), str):
                        found.append(value)
        return found

    def resolved(self) -> dict[str, tuple[str, str]]:
        """Key → of the runs that ended in an entry: runhash, and what was chosen among, or "".

        The last one counts.
        """
        return {
            line["key"]: (str(line["runhash"]), str(line.get("among") or ""))
            for line in self.read()
            if line.get("status") in {"done", "skipped"}
        }

    def failed(self) -> dict[str, str]:
        """Key → why it failed the last time that it was tried."""
        last = {line["key"]: line for line in self.read()}
        return {
            key: str(line.get("error"))
            for key, line in last.items()
            if line.get("status") == "failed"
        }

    def drivers(self) -> list[dict[str, Any]]:
        """What drivers say, the latest word first; ``gone`` where one fell silent."""
        found = []
        for path in self.folder.glob("*.json") if self.folder.is_dir() else ():
            with contextlib.suppress(OSError, MtlError):
                value = load_json(path, path.name)
                if isinstance(value, dict) and isinstance(value.get("written"), int | float):
                    silent = time.time() - value["written"] > SILENT
                    found.append({**value, "gone": not value.get("ended") and silent})
        return sorted(found, key=lambda value: -value["written"])

    def tidy(self) -> None:
        """Remove what drivers of long ago left."""
        paths = sorted(self.folder.glob("*.json"), key=lambda path: -path.stat().st_mtime)
        for path in paths[KEPT:]:
            path.unlink(missing_ok=True)
