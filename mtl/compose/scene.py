"""Scoring the zoo's candidates for a target: what ``auto`` and ``mtl.graph suggest`` look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtl.compose.features import Extractor
from mtl.compose.halving import in_precision, pays, self_test
from mtl.compose.sources import Wanted, find_candidates, wanted_sources
from mtl.compose.suggest import chosen_scores, score_sources
from mtl.engine import RunSettings, open_device
from mtl.engine.progress import quiet
from mtl.engine.settings import ROW_SETTINGS
from mtl.runs.loading import stored_settings
from mtl.runs.recorded import task_of
from mtl.runs.workspace import load_task_data

if TYPE_CHECKING:
    from mtl.backbone import Backbone
    from mtl.compose.suggest import Suggestion
    from mtl.data import TaskData
    from mtl.runs import Workspace
    from mtl.tasks import Suite, TaskSpec
    from mtl.zoo import Entry

ROWS = 2000
"""Rows per task that are looked at, at most, unless told otherwise."""


@dataclass(frozen=True)
class Scene:
    """A target on a base, with the candidates of a zoo.

    Attributes:
        precision: of the passes behind scores: ``fp32``, ``bf16``, or ``auto``
            (:mod:`mtl.compose.halving`).
    """

    suite: Suite
    spec: TaskSpec
    data: TaskData
    backbone: Backbone
    model: str
    asked_protocol: str | None
    workspace: Workspace
    precision: str = "auto"

    def extractor(self, rows: int = ROWS) -> Extractor:
        """The passes over this scene's base."""
        precision = "fp32" if self.precision == "auto" else self.precision
        device = open_device(precision, hidden_size=self.backbone.base.hidden_size)
        return Extractor(self.backbone, self.workspace, device, limit=rows)

    def look(
        self,
        extractor: Extractor,
        sources: Sequence[str] | Sequence[Wanted],
        scores: Sequence[str],
        *,
        method: str,
        seed: int,
    ) -> Suggestion:
        """Score the zoo's candidates among ``sources`` for the target.

        Raises:
            RequestError: there are none, or no such ones.
        """
        from tqdm import tqdm

        named = [source for source in sources if isinstance(source, str)]
        wanted = [source for source in sources if isinstance(source, Wanted)] or wanted_sources(
            named,
            self.suite,
            self.spec.id,
            own=False,
            method=method,
            protocol=self.asked_protocol,
            zoo=self.workspace.zoo,
        )
        place = (self.data, self.workspace.zoo, self.backbone.base, seed)
        entries, left_out = find_candidates(wanted, *place)
        own, _ = find_candidates([Wanted(self.spec.id, method)], *place)
        chosen = chosen_scores(scores)

        def judge(data: TaskData, passes: Extractor, **more: Any) -> Suggestion:
            mine = own[0] if own else None
            return score_sources(data, entries, self.data_of(), chosen, passes, own=mine, **more)

        tested = None
        if self.precision == "auto" and pays(chosen, extractor, len(self.data.splits["train"])):
            tested = self_test(self.data, judge, extractor)
            extractor = in_precision(extractor, "bf16" if tested.equal else "fp32")
        with tqdm(
            total=len(entries),
            desc=f"score for {self.spec.id}",
            unit="source",
            leave=False,
            disable=True if quiet() else None,
            file=sys.stderr,
        ) as bar:
            told = {"left_out": left_out, "progress": lambda task: bar.update()}
            return replace(judge(self.data, extractor, **told), self_test=tested)

    def data_of(self) -> Callable[[Entry], TaskData]:
        """Entry → the data its task trained on: its spec of today, the entry's split and limit."""

        def find(entry: Entry) -> TaskData:
            spec = task_of(entry, self.workspace, option="--sources FILE …")
            cut = stored_settings(entry)
            rows = RunSettings(**{key: getattr(cut, key) for key in ROW_SETTINGS})
            return load_task_data(spec, self.workspace, str(entry.manifest.data["protocol"]), rows)

        return find
