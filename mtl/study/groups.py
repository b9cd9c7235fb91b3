"""Which runs of a study a worker takes at once, to train them side by side on one encoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtl.runs.beside import as_many_as_pay, group_key

if TYPE_CHECKING:
    from mtl.study.engines import Engine
    from mtl.study.planning import StudyPlan


@dataclass
class Groups:
    """The runs of a plan by what they may go with.

    Attributes:
        asked: how many at once, 0: as many as pay.
    """

    plan: StudyPlan
    asked: int
    _keys: dict[str, str | None] = field(default_factory=dict)
    _alone: set[str] = field(default_factory=set)
    _unfit: set[str] = field(default_factory=set)

    def kind(self, key: str) -> str | None:
        """Equal for runs that may go together; None: this one goes by itself."""
        if key not in self._keys:
            node = self.plan.nodes[key]
            if node.run is None:  # its sources are not there, or its worker chooses them
                return None
            self._keys[key] = group_key(node.run) if node.cell.search is None else None
        found = self._keys[key]
        return None if key in self._alone or found in self._unfit else found

    def leave_alone(self, key: str, *, its_kind: bool = False) -> None:
        """Let a run, or all that might go with it, go by themselves from now on."""
        if its_kind and (kind := self.kind(key)) is not None:
            self._unfit.add(kind)
        self._alone.add(key)

    def most(self, key: str, *, on_cpu: bool) -> int:
        """How many may go together with a run, itself among them."""
        run = self.plan.nodes[key].run
        if self.asked == 1 or run is None or self.kind(key) is None:
            return 1
        return as_many_as_pay(run.backbone.base.hidden_size, self.asked, on_cpu=on_cpu)

    def first(self, ready: Sequence[str], free: int, engine: Engine) -> list[str]:
        """What the next of ``free`` workers takes of what is ready: the first, and what fits it.

        No more than its share: two workers on two halves are done before one on all.
        """
        if self.asked == 1 or not ready:
            return list(ready[:1])
        most = min(self.most(ready[0], on_cpu=engine.on_cpu), -(-len(ready) // free))
        return self._like(ready, most)

    def _like(self, ready: Sequence[str], most: int) -> list[str]:
        """The first of ``ready`` and those that may go with it, ``most`` in all."""
        kind, chosen = self.kind(ready[0]), [ready[0]]
        for key in ready[1:]:
            if len(chosen) >= most:
                break
            if self.kind(key) == kind:
                chosen.append(key)
        return chosen

    def together(self, ready: Iterable[str], *, on_cpu: bool) -> tuple[int, int]:
        """How many of ``ready`` one worker would train with others, and in how many groups."""
        counts: dict[str, int] = {}
        most: dict[str, int] = {}
        for key in ready:
            if (kind := self.kind(key)) is not None:
                counts[kind] = counts.get(kind, 0) + 1
                most[kind] = self.most(key, on_cpu=on_cpu)
        runs = groups = 0
        for kind, count in counts.items():
            left = count % most[kind] if most[kind] > 1 else count
            runs += count - (left if left == 1 or most[kind] == 1 else 0)
            groups += 0 if most[kind] == 1 else count // most[kind] + (left > 1)
        return runs, groups
