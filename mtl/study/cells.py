"""The cells of a study: single runs as plain data, which go to any worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.runs.context import suite_of
from mtl.tasks import load_member
from mtl.tasks.recipes import OF_THE_RUN
from mtl.tasks.yamls import is_file_name

if TYPE_CHECKING:
    from mtl.study.file import Item, Study
    from mtl.tasks import Suite


@dataclass(frozen=True)
class Searched:
    """What makes of a cell a search: trials of its run with other settings.

    Attributes:
        over, trials, seeds, prune: as :class:`mtl.study.file.Search` has them; of ``over`` what
            the method has.
        users: ids of the tasks that are trained with what is found.
    """

    over: tuple[str, ...]
    trials: int
    seeds: tuple[int, ...]
    prune: str
    users: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cell:
    """One run of a study, as a command line would say it; or a search of settings for some.

    Attributes:
        kind: ``adapter``, ``composition`` or ``joint``.
        suite: name of the suite, None where the tasks say it.
        members: the tasks that are named beside each other, which say the suite.
        tasks: names, as :func:`mtl.tasks.load_member` takes them; one unless the run is joint.
        ids: their ids.
        settings: what is set, as ``--set`` does.
        sources: of a composition, as ``--sources`` takes them; likewise what follows.
        source_seed: a number, since a cell has one seed; None for other kinds.
        source_runs: what sources are chosen among, once they are there: named one by one.
        search: what is tried, where it is a search; its seed is the first of the trials.
        tuned: key of the search whose recipe it takes, or nothing.
        row, where: of the published table, and the place in the file; no part of the run.
    """

    kind: str
    suite: str | None
    members: tuple[str, ...]
    tasks: tuple[str, ...]
    ids: tuple[str, ...]
    method: str
    seed: int
    model: str | None
    recipe: str | None = None
    protocol: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    sources: tuple[str, ...] = ()
    source_method: str = ""
    source_seed: int | None = None
    source_set: Mapping[str, Any] = field(default_factory=dict)
    own: bool = True
    trials: float | None = None
    budget: int | None = None
    min_gain: float | None = None
    control: str | None = None
    source_runs: tuple[str, ...] = ()
    search: Searched | None = None
    tuned: str = ""
    row: str = ""
    where: str = ""

    @cached_property
    def key(self) -> str:
        """Tells cells of a study apart, today and tomorrow, whatever else the study holds."""
        values = asdict(replace(self, row="", where="", members=()))
        said = {key: value for key, value in values.items() if value not in (None, "", (), {})}
        return sha256_json(said)[:16]

    @property
    def task(self) -> str:
        """The id of its task; the suite's joint name of several."""
        return self.ids[0] if self.kind != "joint" else f"{self.ids[0].split('/')[0]}/_joint"

    @property
    def label(self) -> str:
        """How tables and messages call it."""
        return self.called(self.settings)

    def called(self, settings: Mapping[str, Any]) -> str:
        """The same with ``settings`` alone."""
        what = "search" if self.search else f"seed {self.seed}"
        return " ".join(
            [self.task, self.method, what, *(f"{key}={value}" for key, value in settings.items())]
        )

    @property
    def said(self) -> dict[str, Any]:
        """What sets its variant apart from others of its kind and method: for tables and labels.

        Sources are told as the file tells them, before and after each has the hash of its run.
        """
        told = {"model": self.model, **self.settings}
        if self.kind == "composition":
            wanted = ["all"] if "all" in self.sources else map(self._source, self.sources)
            told |= {"sources": ",".join(wanted), "source_method": self.source_method}
            told |= {"own": self.own, "control": self.control}
            told |= {name: getattr(self, name) for name in ("trials", "budget", "min_gain")}
        return told

    def _source(self, name: str) -> str:
        task, _, rest = name.partition(":")
        method = rest.partition("/")[0]
        return task if method in ("", self.source_method) else f"{task}:{method}"

    def words(self) -> list[str]:
        """The command line of this run alone, as manifests record it."""
        suite = ["--suite", self.suite] if self.suite else []
        door, tasks = {
            "adapter": ("mtl.train", ["--task", *self.tasks]),
            "joint": ("mtl.joint", ["--task", *self.tasks]),
            "composition": ("mtl.compose", ["--target", *self.tasks]),
        }[self.kind]
        said: list[str] = []
        if self.kind == "composition":
            named = [name for name in self.sources if name != "all"]
            sources = named if self.members and named else self.sources
            said = ["--sources", *sources, "--source-method", self.source_method]
            said += ["--source-seed", str(self.source_seed)]
            said += [] if self.own else ["--without-own"]
            said += ["--control", self.control] if self.control else []
            for name in ("trials", "budget", "min_gain"):
                value = getattr(self, name)
                said += [] if value is None else [f"--{name.replace('_', '-')}", f"{value:g}"]
        for name in ("model", "recipe", "protocol"):
            value = getattr(self, name)
            said += [f"--{name}", value] if value else []
        chosen = [f"{key}={value}" for key, value in self.settings.items()]
        said += ["--set", *chosen] if chosen else []
        head = ["python", "-m", door, *suite, *tasks, "--method", self.method]
        return [*head, "--seeds", str(self.seed), *said]


def expand_grid(settings: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of each setting, the last one changing fastest."""
    return [dict(zip(settings, values, strict=True)) for values in product(*settings.values())]


def cells_of(study: Study) -> list[Cell]:
    """The cells of ``study``, stage by stage in the order of the file.

    Raises:
        RequestError: an unknown suite or task, or the same run twice.
    """
    found: dict[str, Cell] = {}
    for item in study.items:
        for cell in _named(item, study):
            other = found.setdefault(cell.key, cell)
            if other is not cell:
                raise RequestError(
                    f"{cell.where} and {other.where} both name the run {cell.label}; name it once."
                )
    return list(found.values())


def _named(item: Item, study: Study) -> list[Cell]:
    try:
        return list(_cells(item, study))
    except RequestError as error:
        text = str(error)
        raise RequestError(
            text if text.startswith(item.where) else f"{item.where}: {text}"
        ) from error


def suites_of(study: Study) -> list[tuple[str | None, Suite]]:
    """The study's suites by the names that find them again."""
    if not study.suites:
        return [(None, suite_of(None, study.tasks))]
    return [(name, suite_of(name, study.tasks)) for name in study.suites]


def _cells(item: Item, study: Study) -> Iterator[Cell]:
    suites = suites_of(study)
    asked = item.tasks or study.tasks
    named: set[str] = set()
    seeds_of = _seeds_of(item, suites)
    for name, suite in suites:
        tasks = _tasks_in(asked, suite, alone=len(suites) == 1)
        named |= {*tasks}
        if not tasks:
            continue
        ids = {task: load_member(task, suite).id for task in tasks}
        twice = sorted({i for i in ids.values() if [*ids.values()].count(i) > 1})
        if twice:
            raise RequestError(f"{item.where} names {', '.join(twice)} twice.")
        for model, method, settings in product(
            item.models, item.methods, expand_grid(item.settings)
        ):
            cell = Cell(
                kind=item.kind,
                suite=name,
                members=study.tasks,
                tasks=tuple(tasks),
                ids=tuple(ids.values()),
                method=method,
                seed=0,
                model=model,
                recipe=item.recipe,
                protocol=item.protocol,
                settings=settings,
                row=item.rows.get(method, ""),
                where=item.where,
            )
            of_all = _source_seed(item, suite, method) if item.kind == "composition" else None
            if item.kind == "joint":
                yield from (replace(cell, seed=seed) for seed in item.seeds)
                continue
            for task, rows in product(tasks, _shots(item)):
                one = replace(cell, tasks=(task,), ids=(ids[task],), settings={**settings, **rows})
                for seed in seeds_of.get(ids[task], item.seeds):
                    run = replace(one, seed=seed)
                    if item.kind == "composition":
                        run = _composed(run, item, seed if of_all is None else of_all)
                    yield run
    lost = [task for task in asked if task not in named]
    if lost:
        raise RequestError(f"{item.where} names {', '.join(lost)}, which no suite of it has.")


def _tasks_in(asked: Sequence[str], suite: Suite, *, alone: bool) -> list[str]:
    """The names of ``asked`` that belong to ``suite``; of one suite alone, all are looked up."""
    if not asked:
        return list(suite.tasks)
    if alone:
        for name in asked:
            load_member(name, suite)
        return list(asked)
    known = {*suite.tasks, *(task.split("/")[1] for task in suite.tasks), *suite.aliases}
    return [name for name in asked if name in known]


def _seeds_of(item: Item, suites: Sequence[tuple[str | None, Suite]]) -> dict[str, tuple[int, ...]]:
    found = {}
    for name, seeds in item.seeds_of.items():
        (_, suite), *others = suites
        for _, other in others:
            if name in other.tasks or name in {task.split("/")[1] for task in other.tasks}:
                suite = other
        found[load_member(name, suite).id] = seeds
    return found


def _shots(item: Item) -> list[dict[str, int]]:
    """What is set for every few-shot draw; nothing for all rows, of which there is one draw."""
    found: list[dict[str, int]] = []
    for shots in item.shots:
        if not shots:
            found.append({})
            continue
        for draw in item.shot_draws:
            found.append({"shots": shots, **({"shot_draw": draw} if draw else {})})
    return found


def _composed(cell: Cell, item: Item, source_seed: int) -> Cell:
    return replace(
        cell,
        sources=item.sources,
        source_method=item.source_method,
        source_seed=source_seed,
        source_set=item.source_set,
        own=item.own,
        trials=item.trials,
        budget=item.budget,
        min_gain=item.min_gain,
        control=item.control,
    )


def _source_seed(item: Item, suite: Suite, method: str) -> int | None:
    """The seed of all sources; None for that of each run."""
    from mtl.tasks import load_recipe

    recipe = load_recipe(item.recipe or suite.recipe, suite.name)
    chosen = item.source_seeds or recipe.source_seeds.get(method, "0")
    return None if chosen == OF_THE_RUN else int(chosen)


def task_files(cells: Sequence[Cell]) -> list[str]:
    """The task files that cells name; by them entries find their task again."""
    names = [task for cell in cells for task in (*cell.tasks, *cell.members)]
    return list(dict.fromkeys(name for name in names if is_file_name(name)))
