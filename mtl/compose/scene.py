"""Scoring the zoo's candidates for a target: what ``auto`` and ``mtl.graph suggest`` look at."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.compose.features import Extractor
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
    """A target on a base, with the candidates of a zoo."""

    suite: Suite
    spec: TaskSpec
    data: TaskData
    backbone: Backbone
    model: str
    asked_protocol: str | None
    workspace: Workspace

    def extractor(self, rows: int = ROWS) -> Extractor:
        """The passes over this scene's base."""
        device = open_device("fp32", hidden_size=self.backbone.base.hidden_size)
        return Extractor(self.backbone, self.workspace, device, limit=rows)

    def look(
        self,
        extractor: Extractor,
        sources: Sequence[str],
        scores: Sequence[str],
        *,
        method: str,
        seed: int,
    ) -> Suggestion:
        """Score the zoo's candidates among ``sources`` for the target."""
        from tqdm import tqdm

        wanted = wanted_sources(
            sources,
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
        with tqdm(
            total=len(entries),
            desc=f"score for {self.spec.id}",
            unit="source",
            leave=False,
            disable=True if quiet() else None,
            file=sys.stderr,
        ) as bar:
            return score_sources(
                self.data,
                entries,
                self.data_of(),
                chosen_scores(scores),
                extractor,
                own=own[0] if own else None,
                left_out=left_out,
                progress=lambda task: bar.update(),
            )

    def data_of(self) -> Callable[[Entry], TaskData]:
        """Entry → the data its task trained on: its spec of today, the entry's split and limit."""

        def find(entry: Entry) -> TaskData:
            spec = task_of(entry, self.workspace, option="--sources FILE …")
            cut = stored_settings(entry)
            rows = RunSettings(**{key: getattr(cut, key) for key in ROW_SETTINGS})
            return load_task_data(spec, self.workspace, str(entry.manifest.data["protocol"]), rows)

        return find
