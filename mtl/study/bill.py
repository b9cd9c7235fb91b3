"""What the runs of a study will cost: steps, seconds and bytes, from finished runs like them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from mtl.engine.hardware import no_gpu, resolve_precision
from mtl.engine.settings import NOT_IN_IDENTITY
from mtl.errors import RequestError
from mtl.methods.method import settings_dict
from mtl.runs.beside import as_many_as_pay
from mtl.runs.expected import trained_as
from mtl.search.space import size
from mtl.study.searches import space_of
from mtl.study.work import plan_cell

if TYPE_CHECKING:
    from mtl.study.planning import Node, StudyPlan
    from mtl.zoo import Entry


@dataclass(frozen=True)
class Cost:
    """What one run costs; None where nothing tells.

    Attributes:
        steps: at most; a run may stop earlier.
        seconds: of training and evaluations during it.
        by: what tells the seconds: ``runs like it`` (other seeds), ``this task``, ``this method``,
            ``probe``; with ``, side by side`` where that run's seconds are its share of a group's.
        size: bytes of its entry.
    """

    steps: int | None = None
    seconds: float | None = None
    by: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Bill:
    """What all that is to be run costs.

    Attributes:
        costs: key → cost, of every run that is to be run.
        runs, unknown: how many there are, and of how many the seconds are not known.
        steps, seconds, size: sums of what is known.
    """

    costs: Mapping[str, Cost]

    @property
    def runs(self) -> int:
        return len(self.costs)

    @property
    def unknown(self) -> int:
        return sum(cost.seconds is None for cost in self.costs.values())

    @property
    def unsized(self) -> int:
        return sum(cost.size is None for cost in self.costs.values())

    @property
    def steps(self) -> int:
        return sum(cost.steps or 0 for cost in self.costs.values())

    @property
    def seconds(self) -> float:
        return sum(cost.seconds or 0.0 for cost in self.costs.values())

    @property
    def size(self) -> int:
        return sum(cost.size or 0 for cost in self.costs.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "runs": self.runs,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "hours": round(self.seconds / 3600, 3),
            "unknown": self.unknown,
            "bytes": self.size,
            "unsized": self.unsized,
        }


def make_bill(
    plan: StudyPlan, probe: Callable[[Node, StudyPlan], float | None] = lambda node, plan: None
) -> Bill:
    """The bill of what is to be run.

    Finished runs of this base on the same sort of device tell it: those that differ by their seed
    alone by their seconds, others of the method by their seconds per step, of the same task first;
    of each those that were trained as this plan trains, one by one or side by side, where there are
    any: what a run takes side by side is its share.

    Args:
        probe: seconds per step of a run of which nothing else tells.
    """
    known = _Known(plan)
    costs = {}
    probed: dict[tuple[str, ...], float | None] = {}
    for key, node in plan.nodes.items():
        if node.state in {"done", "blocked"}:
            continue
        cost = known.cost(node)
        if cost.seconds is None and cost.steps is not None and node.run is not None:
            kind = (str(node.cell.model), node.cell.method, node.cell.task)
            if kind not in probed:
                probed[kind] = probe(node, plan)
            if (step := probed[kind]) is not None:
                cost = Cost(cost.steps, step * cost.steps, "probe", cost.size)
        costs[key] = cost
    return Bill(costs)


_WAYS = {True: ", side by side", False: ""}
"""How the finished runs were trained that tell of another, in words."""


class _Known:
    """What the zoo's entries tell of runs like those of a plan."""

    def __init__(self, plan: StudyPlan) -> None:
        self._plan = plan
        methods = {node.cell.method for node in plan.nodes.values()}
        zoo = plan.desk.workspace.zoo
        listed = [found for found in zoo.summaries() if found.method in methods]
        self._on_cpu = cpu = no_gpu()
        self._entries: dict[tuple[str, str], list[Entry]] = {}
        for entry in zoo.read(listed):
            if (entry.manifest.training["device"] == "cpu") == cpu:
                where = (entry.manifest.base["fingerprint"], entry.manifest.method)
                self._entries.setdefault(where, []).append(entry)

    def cost(self, node: Node) -> Cost:
        """Of a search: that of all its trials, none of which is given up."""
        one = self._of_run(node)
        if (search := node.cell.search) is None:
            return one
        times = (1 + int(min(search.trials, size(space_of(node.cell))))) * len(search.seeds)
        return replace(
            one,
            steps=None if one.steps is None else times * one.steps,
            seconds=None if one.seconds is None else times * one.seconds,
            size=0,
        )

    def _of_run(self, node: Node) -> Cost:
        try:
            steps = planned_steps(node, self._plan)
            base = self._plan.desk.context(node.cell).backbone.base.fingerprint
            beside = self._goes_beside(node)
        except RequestError:
            return Cost()
        alike = self._entries.get((base, node.cell.method), [])
        middle = median(map(_size, alike)) if alike else None
        of_task = [entry for entry in alike if entry.manifest.task["id"] == _task(node)]
        same = [entry for entry in of_task if _settings(entry) == _wanted(node)]
        whole = None if middle is None else int(middle)
        if same:
            chosen, way = trained_as(same, beside=beside)
            seconds = median(entry.manifest.training["seconds"] for entry in chosen)
            return Cost(steps, seconds, f"runs like it{_WAYS[way]}", whole)
        for found, by in ((of_task, "this task"), (alike, "this method")):
            chosen, way = trained_as(found, beside=beside)
            rates = _rates(chosen)
            if rates:
                return Cost(steps, median(rates) * steps, by + _WAYS[way], whole)
        return Cost(steps, None, "", whole)

    def _goes_beside(self, node: Node) -> bool:
        """Whether a run, or the trials of a search, would go with others that fit."""
        if node.cell.kind == "joint" or (node.searches and node.cell.search is None):
            return False
        base = self._plan.desk.context(node.cell).backbone.base
        asked = self._plan.desk.places.beside
        return as_many_as_pay(base.hidden_size, asked, on_cpu=self._on_cpu) > 1


def planned_steps(node: Node, plan: StudyPlan) -> int:
    """Steps of a run's (first) stage; of a composition without needing its sources.

    Of a run that waits for a search, as they are without it.
    """
    if node.run is not None:
        return node.run.planned_steps
    if node.cell.kind == "adapter":
        return plan_cell(node.cell, plan.desk).planned_steps
    from mtl.compose.stage_two import target_in

    context, (spec,) = plan.desk.context(node.cell), plan.desk.specs(node.cell)
    target = target_in(context, spec, node.cell.method)
    settings, rows = target.settings, target.data.sizes["train"]
    return settings.max_steps or settings.epochs * -(-rows // settings.batch_size)


def _task(node: Node) -> str:
    return node.run.task_id if node.run is not None else node.cell.ids[0]


def _wanted(node: Node) -> Any:
    """The settings that decide a run's result, but for its seed."""
    if node.run is None:
        return None
    settings = node.run.settings
    run = {**settings.identity(), "precision": resolve_precision(settings.precision)}
    return settings_dict(node.run.method_settings), run


def _settings(entry: Entry) -> Any:
    """The same of an entry."""
    told = entry.manifest.run_settings
    run = {key: value for key, value in told.items() if key not in NOT_IN_IDENTITY}
    return dict(entry.manifest.method_settings), run


def _rates(entries: Iterable[Entry]) -> list[float]:
    told = [entry.manifest.training for entry in entries]
    return [each["seconds"] / each["steps"] for each in told if each["steps"]]


def _size(entry: Entry) -> int:
    return sum(path.stat().st_size for path in entry.folder.rglob("*") if path.is_file())
