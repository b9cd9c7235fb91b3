"""Which task each batch of a joint run is of, and which of its examples are in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mtl.data import Encoded


@dataclass(frozen=True)
class Sampling:
    """How batches are drawn from the tasks; part of every joint method's settings.

    Attributes:
        temperature: a batch is of task t with probability n_t^(1/temperature) / Σ, n_t its training
            rows: 1 is proportional to size, a high one uniform.
        sampler_seed: of the draws, the same ones for every seed of the run as in the reference; -1
            for the run's own seed.
        unselected: ids of tasks, joined by commas, whose dev splits do not pick the best state
            (ReCoRD in the reference); names that are not in the run are passed over.
    """

    temperature: float = 1.0
    sampler_seed: int = 0
    unselected: str = ""

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise RequestError(f"temperature={self.temperature} must be above 0.")
        if self.sampler_seed < -1:
            raise RequestError(
                f"sampler_seed={self.sampler_seed} must be -1 (the run's) or not negative."
            )


def task_weights(sizes: Sequence[int], temperature: float) -> torch.Tensor:
    """p_t = n_t^(1/temperature) / Σ_s n_s^(1/temperature), (T,) in fp64."""
    import torch

    powers = torch.tensor(sizes, dtype=torch.float64) ** (1 / temperature)
    return powers / powers.sum()


def draw(
    sizes: Sequence[int], batch_size: int, temperature: float, seed: int, epoch: int
) -> list[tuple[int, np.ndarray]]:
    """The batches of one epoch as (task, rows): ceil(Σn / B) of them, a pure function.

    One generator, seeded ``seed + epoch``, draws in this order: a permutation of each task's rows,
    the tasks of all batches, then B places per batch, *with replacement*, which the task's
    permutation maps to rows (docs/methods.md#joint-runs). Every batch has B rows.
    """
    import torch

    generator = torch.Generator().manual_seed(seed + epoch)
    permutations = [torch.randperm(size, generator=generator) for size in sizes]
    batches = -(-sum(sizes) // batch_size)
    tasks = torch.multinomial(
        task_weights(sizes, temperature), batches, replacement=True, generator=generator
    ).tolist()
    found = []
    for task in tasks:
        places = torch.randint(sizes[task], (batch_size,), generator=generator)
        found.append((task, permutations[task][places].numpy()))
    return found


@dataclass(frozen=True)
class JointFeed:
    """Batches of several tasks, one task each, drawn by :func:`draw`.

    Attributes:
        encoded: task id → its training split, in the order of the run (draws depend on it).
    """

    encoded: Mapping[str, Encoded]
    batch_size: int
    temperature: float
    seed: int

    def order(self, epoch: int) -> Sequence[tuple[str, np.ndarray]]:
        names = list(self.encoded)
        sizes = [len(item) for item in self.encoded.values()]
        drawn = draw(sizes, self.batch_size, self.temperature, self.seed, epoch)
        return [(names[task], rows) for task, rows in drawn]

    def tokens(self, task: str, rows: np.ndarray) -> np.ndarray:
        return self.encoded[task].tokens_per_row[rows]

    def collate(self, task: str, rows: np.ndarray) -> dict[str, Any]:
        from mtl.engine.feed import collate

        return collate(task, self.encoded[task], rows)
