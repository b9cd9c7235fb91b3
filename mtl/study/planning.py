"""The plan of a study: its runs as a graph, what there is of them, and what they wait for.

Stage one and joint runs are known at once. A composition's hash holds the digests of its sources,
so it is known when they are there; until then it is a node that waits for theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtl.backbone.reference import resolve_model
from mtl.engine.folder import RunFolder
from mtl.engine.settings import LIMITS, ROW_SETTINGS
from mtl.errors import RequestError, unknown
from mtl.report.published import load_published
from mtl.runs.context import chosen_model
from mtl.study.cells import Cell, cells_of, task_files
from mtl.study.searches import space_of, with_searches
from mtl.study.trials import Trials, plan_trials
from mtl.study.work import Desk, Places, among, check_settings, method_of, plan_cell
from mtl.tasks.looking import one_look
from mtl.zoo.merged import plain

if TYPE_CHECKING:
    import networkx as nx

    from mtl.compose.sources import Wanted
    from mtl.runs import Run
    from mtl.study.file import Study
    from mtl.zoo.summary import Summary

STATES = ("done", "resumable", "missing", "waiting", "blocked")


@dataclass
class Node:
    """A run of the study.

    Attributes:
        cell: with its sources named one by one, once they are there.
        run: None until it is known, or where it cannot be.
        state: ``done``, ``resumable``, ``missing``, ``waiting`` (for its sources), or ``blocked``:
            its base or its data cannot be had here.
        why: of a blocked one.
        needs: keys of the runs that make its sources, and of the search for its settings.
        trials: of a search, once it is known what it tries; its run is the one without the search.
        among: what its sources are chosen among, where they are (:func:`mtl.study.work.among`).
    """

    cell: Cell
    run: Run | None = None
    state: str = "missing"
    why: str = ""
    needs: tuple[str, ...] = ()
    runhash: str | None = None
    entry: Summary | None = None
    trials: Trials | None = None
    among: str = ""

    @property
    def searches(self) -> bool:
        """Whether its sources are chosen by the worker, among those that are there."""
        return chooses(self.cell)


@dataclass
class StudyPlan:
    """The nodes of a study by key, in the order of the file, sources before what uses them."""

    study: Study
    desk: Desk
    nodes: dict[str, Node] = field(default_factory=dict)

    def graph(self) -> nx.DiGraph:
        """Edges from sources to what uses them."""
        import networkx as nx

        found = nx.DiGraph()
        found.add_nodes_from(self.nodes)
        found.add_edges_from((need, key) for key, node in self.nodes.items() for need in node.needs)
        return found

    def count(self, state: str) -> int:
        """How many nodes are in a state."""
        return sum(node.state == state for node in self.nodes.values())

    def label(self, key: str) -> str:
        """How messages call a run: with what is set, where it is not the same for all."""
        cell = self.nodes[key].cell
        return cell.called(self.differing(cell))

    def differing(self, cell: Cell) -> dict[str, Any]:
        """What is said of a cell, where it is not the same for all of its kind."""
        return {
            name: value
            for name, value in cell.said.items()
            if (cell.kind, name) in self._differing and value is not None
        }

    @cached_property
    def _differing(self) -> set[tuple[str, str]]:
        """(kind, setting) that the cells of a kind do not have in common."""
        said: dict[tuple[str, str], dict[str, int]] = {}
        counts: dict[str, int] = {}
        for cell in (node.cell for node in self.nodes.values() if node.cell.search is None):
            counts[cell.kind] = counts.get(cell.kind, 0) + 1
            for name, value in cell.said.items():
                values = said.setdefault((cell.kind, name), {})
                values[repr(value)] = values.get(repr(value), 0) + 1
        return {key for key, values in said.items() if counts[key[0]] not in values.values()}

    def problems(self) -> list[str]:
        """Why runs are blocked, each reason once."""
        return list(dict.fromkeys(node.why for node in self.nodes.values() if node.why))

    def resolve(self, key: str, stored: Mapping[str, Summary] | None = None) -> Node:
        """The node with its run, if all that it needs is there by now. Raises RequestError."""
        node = self.nodes[key]
        if node.run is None and all(self.nodes[need].state == "done" for need in node.needs):
            node.cell = bound(node.cell, [self.nodes[need] for need in node.needs])
            if node.searches:
                node.state, node.among = "missing", among(node.cell, self.desk)
                if "best" in node.cell.sources:
                    plan_cell(node.cell, self.desk)  # refuses trials that cannot be paid
                return node
            if node.cell.search is not None:
                node.trials = plan_trials(node.cell, self.desk)
                node.run = node.trials.plain
            else:
                node.run = plan_cell(node.cell, self.desk)
            self.look(node, stored)
        return node

    def look(self, node: Node, stored: Mapping[str, Summary] | None = None) -> None:
        """Set the state of a node whose run is known."""
        assert node.run is not None
        if node.trials is not None:
            node.runhash, node.state = node.trials.identity, node.trials.state
            return
        node.runhash = node.run.runhash
        zoo = self.desk.workspace.zoo
        if stored is None:
            stored = {found.runhash: found for found in zoo.summaries(runhash=node.runhash)}
        node.entry = stored.get(node.runhash)
        point = RunFolder(self.desk.workspace.runs / node.runhash).point
        node.state = "done" if node.entry else "resumable" if point.is_file() else "missing"


@one_look()
def plan_study(
    study: Study,
    places: Places,
    resolved: Mapping[str, tuple[str, str]] | None = None,
    *,
    merge: bool = False,
) -> StudyPlan:
    """Check everything that can be checked, and say of every run what there is.

    Args:
        resolved: key → runhash of runs whose sources were chosen when they ran, and among what.
        merge: take runs that come to the same for one, instead of refusing them.

    Raises:
        RequestError: something in the file is wrong: one message, before anything is loaded.
    """
    _check_table(study)
    cells = with_searches(study, cells_of(study))
    desk = Desk(replace(places, tasks=(*places.tasks, *task_files(cells))))
    _check(cells, desk)
    plan = StudyPlan(study, desk, {cell.key: Node(cell) for cell in cells})
    by_task: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.kind == "adapter" and cell.search is None:
            by_task.setdefault((cell.ids[0], cell.method), []).append(cell)
    for node in plan.nodes.values():
        if node.cell.kind == "composition":
            node.needs = tuple(cell.key for cell in _sources(node.cell, by_task, desk))
        if node.cell.tuned:
            node.needs = (*node.needs, node.cell.tuned)
    stored = {found.runhash: found for found in desk.workspace.zoo.summaries()}
    _plan_runs(plan, stored, merge=merge)
    _plan_compositions(plan, stored, resolved or {})
    return plan


def _check(cells: Sequence[Cell], desk: Desk) -> None:
    seen: set[tuple[Any, ...]] = set()
    for cell in cells:
        what = (
            *(cell.kind, cell.suite, cell.ids, cell.method, cell.recipe, cell.model),
            *(tuple(_said(cell.settings)), cell.sources, cell.source_method, cell.own),
            cell.search,
        )
        if what in seen:
            continue
        seen.add(what)
        try:
            method_of(cell)
            check_settings(cell, desk)
            for dimension in space_of(cell) if cell.search else ():
                for end in dimension.ends():
                    values = {**cell.settings, dimension.key: end}
                    check_settings(replace(cell, settings=values), desk)
            resolve_model(chosen_model(cell.model, desk.suite(cell)))
        except RequestError as error:
            text = str(error)
            raise RequestError(
                text if text.startswith(cell.where) else f"{cell.where}: {text}"
            ) from error
    for cell in cells:
        if cell.kind == "joint" and len(cell.ids) < 2:
            raise RequestError(f"{cell.where}: a joint run needs at least two tasks.")


def _check_table(study: Study) -> None:
    """Refuse rows and gaps that the published table does not have. Raises RequestError."""
    rows = {(item.where, row) for item in study.items for row in item.rows.values()}
    rows |= {(f"{study.path.name}, gaps", row) for row in study.gaps}
    if study.against is None:
        if rows:
            raise RequestError(f"{study.path.name} names rows of a table; name it with against.")
        return
    known = [row.name for row in load_published(study.against).rows]
    for where, row in sorted(rows):
        if row not in known:
            raise RequestError(f"{where}: {unknown(f'row of {study.against}', row, known)}")


def _said(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value!r}" for key, value in sorted(values.items())]


def _plan_runs(plan: StudyPlan, stored: Mapping[str, Summary], *, merge: bool) -> None:
    """Runs of stage one and joint ones, and their states; their searches before them."""
    for key, node in plan.nodes.items():
        if node.cell.kind != "composition":
            _plan_one(plan, key, stored)
    made: dict[str, str] = {}
    same: dict[str, str] = {}
    for key, node in plan.nodes.items():
        if node.runhash is None or (other := made.setdefault(node.runhash, key)) == key:
            continue
        first = plan.nodes[other].cell
        if first.suite == node.cell.suite and not merge:
            raise RequestError(
                f"{node.cell.where} and {first.where} both name the run {node.cell.label}: the "
                "settings come to the same. Name it once."
            )
        same[key] = other  # a task of two suites
    for key in same:
        del plan.nodes[key]
    for node in plan.nodes.values():
        node.needs = tuple(same.get(need, need) for need in node.needs)


def _plan_compositions(
    plan: StudyPlan, stored: Mapping[str, Summary], resolved: Mapping[str, tuple[str, str]]
) -> None:
    for key, node in plan.nodes.items():
        if node.cell.kind != "composition":
            continue
        _plan_one(plan, key, stored)
        runhash, chosen_among = resolved.get(key, ("", ""))
        entry = stored.get(runhash)
        if not node.searches or node.state != "missing" or entry is None:
            continue
        if chosen_among == node.among if chosen_among else _uses(entry, plan, node):
            node.runhash, node.entry, node.state = runhash, entry, "done"


def _uses(entry: Summary, plan: StudyPlan, node: Node) -> bool:
    """Whether all sources of an entry are among those that ``node`` waited for."""
    there = [str(plan.nodes[need].runhash) for need in node.needs]
    used = [plain(ref).rpartition("-")[2] for _, ref in entry.parents]
    return all(any(runhash.startswith(name) for runhash in there) for name in used)


def _plan_one(plan: StudyPlan, key: str, stored: Mapping[str, Summary]) -> None:
    """The state of a run whose needs have theirs."""
    node = plan.nodes[key]
    needs = [plan.nodes[need] for need in node.needs]
    blocked = [need.why for need in needs if need.state == "blocked"]
    if blocked:
        node.state, node.why = "blocked", blocked[0]
    elif any(need.state != "done" for need in needs):
        node.state = "waiting"
    else:
        try:
            plan.resolve(key, stored)
        except RequestError as error:
            node.state, node.why = "blocked", str(error)


def chooses(cell: Cell) -> bool:
    """Whether sources are searched for or picked, not named."""
    return any(name in {"best", "auto"} or name.startswith("graph:") for name in cell.sources)


def _sources(cell: Cell, by_task: Mapping[tuple[str, str], list[Cell]], desk: Desk) -> list[Cell]:
    """The cells that make the sources of ``cell``.

    Raises:
        RequestError: none does, or it is not said which.
    """
    found: list[Cell] = []
    lost: list[Wanted] = []
    for wanted in desk.wanted(cell):
        there = [
            other
            for other in by_task.get((wanted.task, wanted.method), ())
            if other.model == cell.model
            and other.seed == (wanted.run.seed if wanted.run else cell.source_seed)
            and other.protocol == cell.protocol
        ]
        there = [other for other in there if other.suite == cell.suite] or there
        rows = {key: cell.settings.get(key) for key in ROW_SETTINGS}
        if wanted.task == cell.ids[0]:
            there = [o for o in there if {k: o.settings.get(k) for k in ROW_SETTINGS} == rows]
        else:
            there = [o for o in there if not any(o.settings.get(k) for k in LIMITS)] or [
                o
                for o in there
                if not (o.settings.get("shots") or o.settings.get("shots_per_class"))
            ]
        chosen = [o for o in there if cell.source_set.items() <= o.settings.items()]
        if len(chosen) > 1:
            raise RequestError(
                f"{cell.where}: the source {wanted} of {cell.label} is made {len(chosen)} times: "
                + "; ".join(" ".join(_said(other.settings)) or "as it is" for other in chosen)
                + ". Say which with source_set: {KEY: VALUE}."
            )
        found += chosen
        lost += [] if chosen else [wanted]
    if lost:
        names = ", ".join(map(str, lost))
        few = f", own rows of shots={cell.settings['shots']}" if "shots" in cell.settings else ""
        raise RequestError(
            f"{cell.where}: {cell.label} asks for the sources {names} of seed {cell.source_seed}"
            f"{few}, and no train of this study makes them. Add them to train (with these seeds; "
            "shots: 0 for all rows), or name other sources."
        )
    return found


def bound(cell: Cell, needs: Iterable[Node]) -> Cell:
    """``cell`` with the recipe of its search, and every source named by the hash of its run.

    Where sources are chosen, it is among these, whatever others the zoo holds.
    """
    sources = []
    for need in needs:
        if need.trials is not None:
            cell = replace(cell, recipe=str(need.trials.recipe))
        else:
            sources.append(need)
    if cell.kind != "composition":
        return cell
    names = [
        f"{need.cell.tasks[0]}:{need.cell.method}/seed{need.cell.seed}-{need.runhash}"
        for need in sources
    ]
    if chooses(cell):
        return replace(cell, source_runs=tuple(names))
    if "all" in cell.sources:
        return replace(cell, sources=("all", *names))
    return replace(cell, sources=tuple(names))
