"""Resume points: everything the loop knows, so that a killed run goes on as if unbroken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtl.engine.device import Device
from mtl.engine.optimise import Optimiser
from mtl.errors import RunError

if TYPE_CHECKING:
    from mtl.engine.loop import Job


@dataclass
class RunState:
    """Where a run is: everything but tensors."""

    identity: str
    stage: int = 0
    stage_step: int = 0
    step: int = 0
    epoch: int = 0
    batch: int = 0
    best_value: float | None = None
    best_step: int = 0
    waiting: int = 0
    improved: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    stopped: str = ""
    extra: dict[str, Any] = field(default_factory=dict)


def save_point(
    job: Job,
    progress: RunState,
    trainable: Mapping[str, nn.Parameter],
    best: Mapping[str, torch.Tensor],
    optimiser: Optimiser | None,
    device: Device,
) -> None:
    extra, progress.extra = job.attached.state()
    groups: dict[str, Mapping[str, torch.Tensor]] = {
        "train": {name: parameter.detach() for name, parameter in trainable.items()},
        "best": best,
        "optimiser": optimiser.state() if optimiser else {},
        "extra": extra,
        "rng": device.rng_state(),
    }
    if device.main:
        tensors = {
            f"{kind}:{name}": tensor
            for kind, part in groups.items()
            for name, tensor in part.items()
        }
        job.folder.save_point(tensors, asdict(progress))


def load_point(
    job: Job, trainable: Mapping[str, nn.Parameter], device: Device
) -> tuple[RunState, dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
    """Restore the resume point, if there is one: (progress, best state, optimiser state)."""
    loaded = job.folder.load_point()
    if loaded is None:
        if device.main:
            job.folder.keep_events(-1)
        return None
    tensors, values = loaded
    kinds: dict[str, dict[str, torch.Tensor]] = {
        kind: {} for kind in ("train", "best", "optimiser", "extra", "rng")
    }
    try:
        progress = RunState(**values)
        for key, tensor in tensors.items():
            kind, _, name = key.partition(":")
            kinds[kind][name] = tensor
    except (TypeError, KeyError) as error:
        raise RunError(
            f"The resume point in {job.folder.path} was written by another version of mtl "
            f"({error}). Delete that folder and run the same command again: the run then starts "
            "anew."
        ) from error
    processes = len({name.partition(".")[0] for name in kinds["rng"]})
    if processes != device.world or not device.has_rng_state(kinds["rng"]):
        raise RunError(
            f"The resume point in {job.folder.path} was made by {processes} process(es) with "
            f"generators {', '.join(sorted(kinds['rng'])) or 'none'}; here are {device.world} on "
            f"{device.torch_device.type}, which would draw other numbers. Go on as it was started, "
            "or delete that folder to start anew."
        )
    if progress.identity != job.identity or set(kinds["train"]) != set(trainable):
        raise RunError(
            f"The resume point in {job.folder.path} belongs to another run "
            f"({progress.identity[:8]}, this is {job.identity[:8]}). Delete that folder."
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(kinds["train"][name])
    job.attached.load_state(kinds["extra"], progress.extra)
    device.set_rng_state(kinds["rng"])
    if device.main:
        job.folder.keep_events(progress.step)
    best = {name: tensor.to(device.torch_device) for name, tensor in kinds["best"].items()}
    return progress, best, kinds["optimiser"]
