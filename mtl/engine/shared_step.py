"""One optimiser step of several runs: their rows in common passes, their parameters stacked.

Rows of all runs go through the encoder of the first (:mod:`mtl.backbone.beside`). A run cuts its
batch into pieces of like length as it would alone, since it draws piece by piece; then the rows of
piece j of all runs are cut into passes by length, whoever's they are.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mtl.backbone import Network
from mtl.backbone.beside import Blocks, Draws, Member, Piece, UnfitError
from mtl.backbone.beside_sites import Sites
from mtl.backbone.draws import one_step
from mtl.backbone.network import INPUTS
from mtl.data import cut
from mtl.engine.attached import Attached, full
from mtl.engine.device import Device
from mtl.engine.feed import joined, to_device
from mtl.engine.loop import Job, Step, pieces_of
from mtl.engine.optimise import Optimiser
from mtl.engine.passes import usual_passes
from mtl.engine.stacks import Stacks, alike


def check_fit(job: Job, device: Device) -> None:
    """Raise :class:`UnfitError` where a run needs its steps to itself."""
    attached = job.attached
    if device.world > 1:
        raise UnfitError("several processes")
    if not isinstance(attached, Attached) or not isinstance(attached.network, Network):
        raise UnfitError("a model with a loss of its own")
    if attached.own_loss or attached.plan or attached.after or attached.kept:
        raise UnfitError("a loss, stages, steps or a state of its own")
    if attached.whole_batches:
        raise UnfitError("batches that go through the network whole")
    if attached.network.around is not nullcontext:
        raise UnfitError("gates by groups of rows")


class _Given(nn.Module):
    """A network whose logits are known."""

    def __init__(self) -> None:
        super().__init__()
        self.logits: Tensor | None = None

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        assert self.logits is not None
        return self.logits


@dataclass
class _Batch:
    """A piece of a run's batch, collated.

    Attributes:
        tokens: (n,) of each row. encodings: sequences per row.
        share: of the whole batch's rows.
        more: what its loss wants besides.
    """

    piece: Piece
    batch: dict[str, Any]
    tokens: np.ndarray
    encodings: int
    share: float
    more: dict[str, Any]

    def part(self, rows: np.ndarray) -> tuple[Member, dict[str, Any], float]:
        """Some rows of it, by their places: as a member of a pass, their batch, their share."""
        if len(rows) == len(self.tokens):
            return Member(self.piece), {**self.batch, **self.more}, self.share
        places = torch.from_numpy(np.sort(rows))
        inner = torch.arange(self.encodings)
        sequences = (places[:, None] * self.encodings + inner).flatten()
        longest = int(self.batch["attention_mask"][sequences].sum(1).max())
        part: dict[str, Any] = {}
        for key, value in self.batch.items():
            if key in INPUTS:
                part[key] = value[sequences, :longest]
            else:
                part[key] = value[places] if isinstance(value, Tensor) else value
        share = self.share * len(rows) / len(self.tokens)
        return Member(self.piece, sequences), {**part, **self.more}, share


class SharedStep:
    """Takes steps of runs whose next ones are known; until :meth:`release`.

    Raises:
        UnfitError: the runs' modules or parameters are not alike.
    """

    def __init__(
        self, jobs: Sequence[Job], optimisers: Sequence[Optimiser], device: Device
    ) -> None:
        if not all(alike(optimisers[0], other) for other in optimisers):
            raise UnfitError("parameters that are optimised otherwise")
        self._jobs, self._device = jobs, device
        self._overhead = max(job.overhead for job in jobs)
        self._networks: list[Any] = [job.attached.network for job in jobs]
        self._given = [_Given() for _ in jobs]
        self._told = [
            replace(job.attached, network=given)  # type: ignore[type-var]
            for job, given in zip(jobs, self._given, strict=True)
        ]
        kind = device.torch_device
        self._generators = [torch.Generator(kind) for _ in jobs]
        self._state = f"{device.rank}.{kind.type}"
        self._stacks = Stacks(optimisers)
        try:
            encoders = [network.encoder for network in self._networks]
            self._sites = Sites(encoders, self._stacks.stacked)
        except UnfitError:
            self._stacks.release()
            raise

    def release(self) -> None:
        """Give the modules their own forwards and the parameters their own memory again."""
        self._sites.release()
        self._stacks.release()

    def take(
        self, steps: Sequence[Step], draws: Sequence[Mapping[str, Tensor]]
    ) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        """One step of each run.

        Args:
            draws: torch's generators of each, by :meth:`mtl.engine.device.Device.rng_state`.

        Returns:
            The batches' mean losses, still on the device, and the generators behind the step.
        """
        for generator, state in zip(self._generators, draws, strict=True):
            generator.set_state(state[self._state])
        self._stacks.attach()
        losses = [torch.zeros((), device=self._device.torch_device) for _ in steps]
        pieces = [
            [step.rows[places] for places in pieces_of(job, step.task, step.rows)]
            for job, step in zip(self._jobs, steps, strict=True)
        ]
        with one_step():
            for level in range(max(len(parts) for parts in pieces)):
                batches = [
                    self._collated(run, step, pieces[run][level])
                    for run, step in enumerate(steps)
                    if level < len(pieces[run])
                ]
                for passing in self._passes(batches):
                    self._through(passing, losses)
        clips = [job.settings.clip or 0.0 for job in self._jobs]
        self._stacks.step([step.number for step in steps], clips)
        drawn = [
            {**state, self._state: generator.get_state()}
            for state, generator in zip(draws, self._generators, strict=True)
        ]
        return losses, drawn

    def _collated(self, run: int, step: Step, rows: Any) -> _Batch:
        job = self._jobs[run]
        batch = job.feed.collate(step.task, rows)
        weights = job.class_weights.get(step.task)
        sequences, tokens = batch["input_ids"].shape
        return _Batch(
            Piece(run, self._generators[run], sequences, tokens),
            batch,
            job.feed.tokens(step.task, rows),
            sequences // len(rows),
            len(rows) / len(step.rows),
            {} if weights is None else {"class_weights": weights},
        )

    def _passes(self, batches: Sequence[_Batch]) -> Iterator[list[tuple[_Batch, np.ndarray]]]:
        """Which rows go through the encoder together: those of like length, whoever's they are."""
        owner = np.repeat(np.arange(len(batches)), [len(batch.tokens) for batch in batches])
        place = np.concatenate([np.arange(len(batch.tokens)) for batch in batches])
        tokens = np.concatenate([batch.tokens for batch in batches])
        most = max(job.settings.micro_batch_size for job in self._jobs)
        limit = usual_passes(self._device.torch_device).tokens
        for chosen in cut(tokens, self._overhead, most, limit):
            runs = np.unique(owner[chosen])
            yield [(batches[run], place[chosen[owner[chosen] == run]]) for run in runs]

    def _through(self, passing: Sequence[tuple[_Batch, np.ndarray]], losses: list[Tensor]) -> None:
        """Forward and backward of some rows; their losses are added to their runs'."""
        parts = [batch.part(rows) for batch, rows in passing]
        members = tuple(member for member, _, _ in parts)
        leader, device = self._networks[0], self._device.torch_device
        pad = getattr(leader.encoder.config, "pad_token_id", None) or 0
        together = to_device(joined([batch for _, batch, _ in parts], pad), device)
        blocks = Blocks(members, int(together["input_ids"].shape[1]))
        total = torch.zeros((), device=device)
        draws = Draws(blocks)
        with self._device.autocast():
            with self._sites.passing(blocks, draws):
                output = leader.encode(together)
            states = output.last_hidden_state.split(blocks.rows)
            pooled = states
            if any(self._networks[member.piece.run].head.use_pooler for member in members):
                pooled = output.pooler_output.split(blocks.rows)
            masks = together["attention_mask"].split(blocks.rows)
            for place, (member, batch, share) in enumerate(parts):
                run = member.piece.run
                network = self._networks[run]
                own = (pooled if network.head.use_pooler else states)[place]
                with draws.rows_of(member):
                    self._given[run].logits = network.read(own, masks[place])
                loss = self._told[run].loss(to_device(batch, device))
                summed = torch.stack([full(part) for part in loss.values()]).sum() * share
                losses[run] = losses[run] + summed.detach()
                total = total + summed
        with warnings.catch_warnings():
            # Rows of a stack lie as far apart as the stack is wide, and so do their gradients.
            warnings.filterwarnings("ignore", "grad and param do not obey")
            total.backward()
