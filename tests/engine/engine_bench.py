"""A toy task for the engine's tests: points in the plane, encoded as token ids, and a small net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mtl.data import Encoded
from mtl.engine import Attached, Device, EvalSet, Group, Job, RunFolder, RunSettings, TaskFeed
from mtl.engine import open_device as open_device
from mtl.engine.device import seed_everything
from mtl.tasks import TaskSpec

VOCABULARY = 12
SPEC = TaskSpec(
    id="toy/count",
    data={"demo": "count"},
    kind="classification",
    inputs=("{text}",),
    metrics=("accuracy",),
    labels=("few", "many"),
)


def encoded(rows: int, seed: int, name: str = "train") -> Encoded:
    """Sequences of 3 to 9 tokens; the label says whether token 5 or above prevails."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 10, rows)
    texts = [rng.integers(2, VOCABULARY, length) for length in lengths]
    labels = np.array([int((text >= 7).mean() > 0.5) for text in texts], dtype=np.int64)
    return Encoded(
        name=name,
        labels=labels,
        row=np.arange(rows, dtype=np.int64),
        choices=1,
        ids=np.concatenate(texts).astype(np.int32),
        types=None,
        start=np.cumsum([0, *lengths]).astype(np.int64),
        lengths=lengths.astype(np.int64),
        truncated=0,
        table={},
        pad_id=1,
        fingerprint=f"{name}{rows}-{seed}",
    )


class Net(nn.Module):
    """A frozen embedding, a trainable layer and head, dropout between: mean of tokens → logits."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.frozen = nn.Embedding(VOCABULARY, 8)
        self.body = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 2)
        self.frozen.requires_grad_(False)

    def forward(self, batch: Any) -> torch.Tensor:
        mask = batch["attention_mask"].unsqueeze(-1).to(self.head.weight.dtype)
        mean = (self.frozen(batch["input_ids"]) * mask).sum(1) / mask.sum(1)
        return self.head(self.dropout(torch.tanh(self.norm(self.body(mean)))))


def attachment(network: Net, **changes: Any) -> Attached:
    body = {f"body.{key}": value for key, value in network.body.named_parameters()}
    norm = {f"norm.{key}": value for key, value in network.norm.named_parameters()}
    head = {f"head.{key}": value for key, value in network.head.named_parameters()}
    groups = [Group("body", {**body, **norm}), Group("head", head, lr_factor=0.5)]
    return Attached(network, {SPEC.id: SPEC}, groups, **changes)


def job(
    folder: Path,
    *,
    seed: int = 0,
    identity: str = "0123456789abcdef",
    dropout: float = 0.1,
    rows: int = 50,
    changes: dict[str, Any] | None = None,
    dtype: torch.dtype = torch.float32,
    wrap: Callable[[Attached], Any] = lambda attached: attached,
    **settings: Any,
) -> Job:
    """A job over the toy task; ``changes`` go into its attachment, ``settings`` into the run's."""
    chosen = RunSettings(**{"lr": 0.02, "epochs": 3, "batch_size": 8, "patience": 0, **settings})
    seed_everything(seed, "init")
    attached = attachment(Net(dropout).to(dtype), **(changes or {}))
    return Job(
        attached=wrap(attached),
        feed=TaskFeed(SPEC.id, encoded(rows, 1), chosen.batch_size, seed),
        dev={SPEC.id: EvalSet(SPEC, encoded(40, 2, "dev"))},
        settings=chosen,
        seed=seed,
        identity=identity,
        folder=RunFolder(folder),
        label="toy",
    )


def state(found: Job) -> dict[str, torch.Tensor]:
    """All tensors of the trained network, copied."""
    return {k: v.detach().clone() for k, v in found.attached.network.state_dict().items()}


def events(found: Job) -> list[dict[str, Any]]:
    """The run's events without their times."""
    return [{k: v for k, v in e.items() if k != "time"} for e in found.folder.read_events()]


def cpu() -> Device:
    """The device the tests compute on."""
    return open_device("fp32")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


def killer(at: int) -> Any:
    def after(step: int) -> None:
        if step == at:
            raise Killed

    return after
