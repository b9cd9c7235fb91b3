"""A run's evaluations in TensorBoard, W&B, MLflow or Trackio, by ``accelerate``'s own trackers.

Tracking is no part of a run: its hash does not know of it, and a tracker that fails while a run
trains is warned of and left alone.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from mtl.errors import RequestError, unknown

TRACKERS = {
    "tensorboard": "tensorboard",
    "wandb": "wandb",
    "mlflow": "mlflow",
    # alone it would bring a huggingface_hub that transformers 4 does not work with
    "trackio": "trackio 'huggingface_hub<1'",
}
"""Names of ``--track``, those of ``accelerate`` and of the packages → what pip installs."""
SEVERAL = ("tensorboard",)
"""Those of them that take several runs of one process at once; the others have one active run."""
PROJECT = "mtl"
"""What runs stand under where a tracker has projects or experiments, and they have no group."""
_LOG = logging.getLogger("mtl")


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that cannot be used; imports nothing.

    Raises:
        RequestError: unknown, or its package is not installed; says how to install it.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise unknown("tracker", name, TRACKERS)
    if find_spec(name) is None:
        raise RequestError(
            f"--track {name} needs the package {name}, which is not installed: "
            f"pip install {TRACKERS[name]}"
        )


class GivenUpError(Exception):
    """What a listener raises to end its run: what it has seen of it is enough."""


class Listener(Protocol):
    """What the loop tells of a run, in the first process.

    It may raise :class:`GivenUpError`, which ends this run and no other.
    """

    def begin(self, step: int) -> None:
        """Training begins, or goes on, at ``step``."""

    def log(self, event: Mapping[str, Any]) -> None:
        """An evaluation, as ``events.jsonl`` has it."""


@dataclass
class Tracker:
    """What the loop tells of a run.

    Attributes:
        tool: ``accelerate``'s tracker, not started yet; None once it has failed.
        name: of the tracker, for messages.
        settings: of the run, recorded where it starts.
        started: whether it has.
    """

    tool: Any
    name: str
    settings: Mapping[str, Any]
    started: bool = False

    def begin(self, step: int) -> None:
        """Start it; ``step`` have been done before, where the run is resumed.

        Raises:
            RequestError: it does not start.
        """
        if self.name == "tensorboard":  # what an interrupted run said beyond its resume point
            self.tool.init_kwargs["purge_step"] = step + 1
        try:
            self.tool.start()
            self.tool.store_init_configuration(dict(self.settings))
        except Exception as error:  # a service's client may fail in any way
            raise RequestError(
                f"Tracker {self.name} does not start: {_short(error)}. Repair what it says, or "
                "leave --track out: the run is the same without it."
            ) from error
        self.started = True

    def log(self, event: Mapping[str, Any]) -> None:
        """Record an evaluation: losses, dev metrics, learning rate."""
        found = {
            "train/loss": event["train_loss"],
            "dev/loss": event["dev_loss"],
            **{f"dev/{name}": value for name, value in event["metrics"].items()},
            "lr": event["lr"],
            "epoch": event["epoch"],
        }
        # an undefined metric (a constant prediction's Pearson) has no point in a curve
        self._do("log", {k: v for k, v in found.items() if math.isfinite(v)}, step=event["step"])

    def end(self) -> None:
        """Close it."""
        self._do("finish")

    def _do(self, what: str, *values: Any, **named: Any) -> None:
        if self.tool is None or not self.started:
            return
        try:
            getattr(self.tool, what)(*values, **named)
        except Exception as error:
            self.tool = None
            _LOG.warning(
                "tracker %s failed, the run goes on without it: %s", self.name, _short(error)
            )


@contextmanager
def tracking(
    name: str | None,
    folder: Path,
    ref: str,
    runhash: str,
    settings: Mapping[str, Any],
    group: str = "",
) -> Iterator[Tracker | None]:
    """The tracker of a run while it trains; None without a ``name``.

    Args:
        folder: of all runs; TensorBoard's files go to ``tensorboard`` in it, those of W&B beside.
        ref: how the run is called there.
        settings: nested ones are recorded by dotted names.
        group: what the run belongs to, such as a study: its project or experiment, and a folder of
            TensorBoard's.
    """
    if name is None:
        yield None
        return
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    make, project = LOGGER_TYPE_TO_CLASS[name], group or PROJECT
    if name == "tensorboard":
        tool = make(ref, folder / "tensorboard" / group)
    elif name == "mlflow":
        tool = make(project, run_name=ref, tags={"runhash": runhash})
    elif name == "wandb":
        folder.mkdir(parents=True, exist_ok=True)
        tool = make(project, name=ref, id=runhash[:32], resume="allow", dir=str(folder))
    else:
        tool = make(project, name=ref, resume="allow")
    tracker = Tracker(tool, name, {"runhash": runhash, **_flat(settings)})
    try:
        yield tracker
    finally:
        tracker.end()


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{key}.")
        elif value is not None:
            plain = isinstance(value, bool | int | float | str)
            found[f"{before}{key}"] = value if plain else str(value)
    return found


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())[:300].rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
