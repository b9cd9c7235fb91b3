"""The folder of a run: its config, its events, its resume point, its result.

::

    runs/<runhash>/
        config.json               what runs, resolved
        events.jsonl              one line per evaluation; the source of truth for curves
        state/point.safetensors   the resume point: tensors, and JSON in the file's metadata
        result.json               what came out, once it is in the zoo
        lock, lock.owner          one process at a time

The resume point is one file, so that replacing it is one rename: tensors and the numbers that
belong to them cannot get out of step.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.errors import RunError, ZooError
from mtl.files import finite, locked, read_safetensors, user_path, write_json, write_safetensors
from mtl.untrusted import parse_json

if TYPE_CHECKING:
    import torch


TRIAL = "trial.json"
"""What a run that was only tried leaves (:mod:`mtl.runs.trial`)."""


def runs_folder(runs: str | Path | None) -> Path:
    """``--runs``, else ``MTL_RUNS``, else ``./runs``."""
    return user_path(runs or os.environ.get("MTL_RUNS") or "runs", "--runs or MTL_RUNS")


@dataclass(frozen=True)
class RunFolder:
    """Files of one run below ``path``; nothing is made before something is written."""

    path: Path

    @property
    def point(self) -> Path:
        return self.path / "state" / "point.safetensors"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def lock(self, doing: str, *, wait: bool = False) -> AbstractContextManager[None]:
        """Hold the run for the block. Raises as :func:`mtl.files.locked`, HeldError among it."""
        return locked(self.path / "lock", doing, wait=wait)

    def write_config(self, config: dict[str, Any]) -> None:
        write_json(self.path / "config.json", finite(config))

    def write_result(self, result: dict[str, Any]) -> None:
        write_json(self.path / "result.json", finite(result))

    def save_point(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Replace the resume point, atomically."""
        text = json.dumps(values, allow_nan=False)
        write_safetensors(self.point, tensors, {"values": text, "sha256": _hash(tensors, text)})

    def load_point(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
        """The resume point, or None where there is none.

        Raises:
            RunError: a damaged file, which atomic writing never leaves: the disk or a person did.
        """
        if not self.point.is_file():
            return None
        try:
            tensors, metadata = read_safetensors(self.point)
            if metadata["sha256"] != _hash(tensors, metadata["values"]):
                raise ZooError("its content does not have the sha256 it was written with")
            return tensors, json.loads(metadata["values"])
        except (ZooError, KeyError, json.JSONDecodeError) as error:
            raise RunError(
                f"The resume point {self.point} is damaged ({error}). Delete {self.path} and run "
                "the same command again: the run then starts anew."
            ) from error

    def point_step(self) -> int | None:
        """The step of the resume point, whose tensors are not read; None where none can be had."""
        from mtl.untrusted import read_header

        try:
            metadata = read_header(self.point, self.point.name, follow=True).metadata
            return int(json.loads(metadata["values"])["step"])
        except (ZooError, OSError, KeyError, TypeError, ValueError):
            return None

    def add_event(self, event: dict[str, Any]) -> None:
        """Append one line to the events and flush it."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with self.events.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(finite(event), allow_nan=False) + "\n")
                stream.flush()
        except OSError as error:
            raise RunError(
                f"Cannot write {self.events}: {error.strerror or error}. Free the space or choose "
                "another --runs folder, then run the same command again."
            ) from error

    def read_events(self) -> list[dict[str, Any]]:
        """All whole lines of the events; what is no event (cut by a kill, damaged) is left out."""
        if not self.events.is_file():
            return []
        found = []
        for line in self.events.read_bytes().splitlines():
            with contextlib.suppress(ZooError):
                event = parse_json(line, self.events.name)
                if isinstance(event, dict) and type(event.get("step")) is int:
                    found.append(event)
        return found

    def keep_events(self, step: int) -> None:
        """Drop the events after ``step``: a resumed run writes them again."""
        from mtl.files import write_text

        kept = [event for event in self.read_events() if event["step"] <= step]
        if self.events.is_file():
            write_text(self.events, "".join(json.dumps(event) + "\n" for event in kept))

    def clear_state(self) -> None:
        """Remove the resume point: the run is finished and in the zoo."""
        shutil.rmtree(self.path / "state", ignore_errors=True)


def _hash(tensors: dict[str, torch.Tensor], text: str) -> str:
    """sha256 over names, shapes, bytes and numbers: safetensors itself has no checksum."""
    import torch

    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
