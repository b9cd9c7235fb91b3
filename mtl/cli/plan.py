"""Planned runs as data: what they share, what differs, what is there of them already.

What :mod:`mtl.cli.tell` says before anything trains, and what ``--json`` holds under ``plan``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from mtl.cli.grid import Point
from mtl.data.unseen import unseen_labels
from mtl.engine.folder import RunFolder
from mtl.engine.hardware import cpu_has_bf16, device_name, resolve_precision
from mtl.methods.method import settings_dict
from mtl.runs.running import find_done
from mtl.words import counted

if TYPE_CHECKING:
    from mtl.runs import Run, Workspace
    from mtl.runs.context import Context

DEFAULT = "default"
Planned = Sequence[tuple[Point, Sequence["Run"]]]
"""The runs of every combination of settings."""


@dataclass(frozen=True)
class State:
    """A planned run beside zoo and run folders: ``done``, ``interrupted`` or ``missing``.

    Attributes:
        step: at which an interrupted one goes on.
        ref: of the entry of a run that is done.
    """

    name: str
    step: int | None = None
    ref: str | None = None


def state(run: Run, workspace: Workspace) -> State:
    """What there is of a run already."""
    done = find_done(run, workspace)
    if done is not None:
        return State("done", ref=done.ref)
    folder = RunFolder(workspace.runs / run.runhash)
    return State("interrupted", folder.point_step()) if folder.point.is_file() else State("missing")


@dataclass(frozen=True)
class Plan:
    """Planned runs, with what is to be told of them.

    Attributes:
        context: of the request; planned: its runs.
        origins: of every run, setting → where its value comes from.
    """

    context: Context
    runs: list[Run]
    origins: list[Mapping[str, str]]
    states: list[State]

    def rows(self) -> list[dict[str, Any]]:
        """One row per planned run, for ``--json``."""
        rows = plan_rows(self.runs, self.context.workspace, self.states)
        for row, run_state, own in zip(rows, self.states, self._differing(), strict=True):
            row |= {"step": run_state.step} if run_state.step is not None else {}
            row |= {"settings": own} if own else {}
        return rows

    def to_dict(self) -> dict[str, Any]:
        """As JSON: what all runs share, and per variant what differs."""
        common, by_method = self._settings()
        base, device = self.context.backbone.base, device_name()
        precisions = sorted({resolve_precision(r.settings.precision) for r in self.runs})
        emulated = device == "cpu" and "bf16" in precisions and not cpu_has_bf16()
        found = {
            "base": {"model": self.context.model, "id": base.id, "fingerprint": base.fingerprint},
            "device": device,
            "precision": precisions,
            **({"emulated": ["bf16"]} if emulated else {}),
            "recipe": self.context.recipe.name,
            "tasks": self._tasks(),
            "settings": common,
            "by_method": by_method,
            "differing": self._origins_that_differ(),
            "sources": [list(map(source_name, own)) for own in self._sources()],
            "variants": self._variants(),
            "runs": {
                name: sum(one.name == name for one in self.states)
                for name in ("done", "interrupted", "missing")
            },
        }
        with self.context.workspace.zoo.one_look():
            return found | self._expected()

    def _sources(self) -> list[tuple[Any, ...]]:
        """The different sets of sources that runs have."""
        return list({_parents(run): tuple(run.parents) for run in self.runs}.values())

    def _tasks(self) -> list[dict[str, Any]]:
        """Every task of the runs and the rows of each split; once per number of rows."""
        found = {
            (task, data.fingerprint): {
                "task": task,
                "protocol": data.protocol,
                "rows": {split: int(size) for split, size in data.sizes.items()},
                "notes": [*data.notes, *unseen_labels(data)],
            }
            for run in self.runs
            for task, data in run.datas.items()
        }
        return list(found.values())

    def _settings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Setting → value and origin, of what all runs share; and method → of all runs of it."""
        differing = self._keys_that_differ()
        by_method: dict[str, dict[str, Any]] = {}
        for run, origins in zip(self.runs, self.origins, strict=True):
            own = by_method.setdefault(run.method, {})
            for key, value in _values(run).items():
                origin = origins.get(key, DEFAULT)
                if key in differing[run.method]:
                    continue
                known = own.setdefault(key, {"value": value, "from": origin})
                if origin not in known["from"].split("; "):
                    known["from"] += f"; {origin}"
        shared = [
            key
            for key, item in next(iter(by_method.values()), {}).items()
            if all(other.get(key) == item for other in by_method.values())
        ]
        common = {_plain(key): next(iter(by_method.values()))[key] for key in shared}
        rest = {
            method: {_plain(key): item for key, item in own.items() if key not in shared}
            for method, own in by_method.items()
        }
        return common, {name: own for name, own in rest.items() if own}

    def _keys_that_differ(self) -> dict[str, list[str]]:
        """Method → the settings in which its runs differ."""
        found: dict[str, list[str]] = {}
        for method in dict.fromkeys(run.method for run in self.runs):
            values = [_values(run, whole=True) for run in self.runs if run.method == method]
            keys = dict.fromkeys(key for own in values for key in own)
            found[method] = [k for k in keys if any(v.get(k) != values[0].get(k) for v in values)]
        return found

    def _origins_that_differ(self) -> dict[str, list[str]]:
        """Setting in which runs of a method differ → where its values come from."""
        found: dict[str, list[str]] = {}
        keys = self._keys_that_differ()
        for run, origins in zip(self.runs, self.origins, strict=True):
            for key in keys[run.method]:
                places = found.setdefault(_plain(key), [])
                if origins.get(key, DEFAULT) not in places:
                    places.append(origins.get(key, DEFAULT))
        return found

    def _differing(self) -> list[dict[str, Any]]:
        """Per run the settings that other runs of its method have otherwise."""
        keys = self._keys_that_differ()
        whole = [_values(run, whole=True) for run in self.runs]
        return [
            {_plain(key): own.get(key) for key in keys[run.method]}
            for run, own in zip(self.runs, whole, strict=True)
        ]

    def _variants(self) -> list[dict[str, Any]]:
        """Runs that differ in their seed only, together."""
        found: dict[Any, dict[str, Any]] = {}
        for run, own, there in zip(self.runs, self._differing(), self.states, strict=True):
            key = (run.task_id, run.data.fingerprint, run.method, str(own), _parents(run))
            row = found.setdefault(
                key,
                {
                    "task": run.task_id,
                    "method": run.method,
                    "settings": own,
                    "rows": {
                        split: sum(int(data.sizes.get(split, 0)) for data in run.datas.values())
                        for split in run.data.sizes
                    },
                    "sources": [source_name(parent) for parent in run.parents],
                    "steps": run.planned_steps,
                    "seeds": [],
                    "done": 0,
                    "interrupted": 0,
                    "missing": 0,
                },
            )
            row["seeds"].append(run.seed)
            row[there.name] += 1
        return list(found.values())

    def _expected(self) -> dict[str, Any]:
        """Steps and seconds that are ahead, and what trains, as far as finished runs tell."""
        from mtl.engine.hardware import no_gpu
        from mtl.runs.beside import goes_beside
        from mtl.runs.expected import alike, pace, trained_parameters

        asked, on_cpu = self.context.workspace.beside, no_gpu()
        entries: dict[Any, Any] = {}
        parameters: dict[str, set[int | None]] = {}
        steps, seconds, paces, unknown = 0, 0.0, {}, set()
        for run, there in zip(self.runs, self.states, strict=True):
            key = (run.kind, run.method, len(run.parents), run.task_id)
            if key not in entries:
                entries[key] = alike(run, self.context.workspace)
            parameters.setdefault(run.method, set()).add(trained_parameters(run, entries[key]))
            if there.name == "done":
                continue
            ahead = max(0, run.planned_steps - (there.step or 0))
            steps += ahead
            beside = goes_beside(run, asked, on_cpu=on_cpu)
            found = pace(run, entries[key], beside=beside)
            if found is None:
                many = f" of {counted(len(run.parents), 'source')}" if run.parents else ""
                unknown.add(f"{run.method}{many} on {run.task_id}")
            else:
                paces[key] = found
                seconds += ahead * found.seconds
        known = {
            method: " to ".join(f"{n:,}" for n in sorted({min(counts), max(counts)}))
            for method, found in parameters.items()
            if (counts := [n for n in found if n is not None]) and None not in found
        }
        return {
            "parameters": known,
            "steps": steps,
            "seconds": None if unknown else round(seconds, 1),
            "seconds_by": [] if unknown else sorted(
                {f"{counted(p.runs, 'run')} of {key[1]} on {', '.join(p.tasks)}"
                 f"{', side by side,' if p.beside else ''}"
                 for key, p in paces.items()}
            ),
            "seconds_unknown": sorted(unknown),
        }  # fmt: skip


def make_plan(planned: Planned, context: Context) -> Plan:
    """What is to be told of planned runs; only folders and manifests are read for it."""
    runs = [run for _, listed in planned for run in listed]
    origins = [_origins(run, point, context) for point, listed in planned for run in listed]
    with context.workspace.zoo.one_look():
        return Plan(context, runs, origins, [state(run, context.workspace) for run in runs])


def _origins(run: Run, point: Point, context: Context) -> Mapping[str, str]:
    """``run.key`` or ``method.key`` → where the run's value comes from."""
    from mtl.compose.composition import COMPOSITIONS
    from mtl.joint import JOINT
    from mtl.methods import METHODS
    from mtl.runs.settings import recipe_layers, trace_settings

    registries: dict[str, Any] = {"adapter": METHODS, "composition": COMPOSITIONS, "joint": JOINT}
    chosen = registries[run.kind].get(run.method)
    if run.joint:
        layers = context.recipe.layers(run.method, next(iter(run.datas)))
    else:
        layers = recipe_layers(context.recipe, run.method, run.task_id, point.overrides)
    found = trace_settings(chosen, layers, point.overrides)
    made = settings_dict(found.method)
    asked = {key.removeprefix("method.") for key in point.overrides.values}
    later = "--probe" if run.method == "probe" else "the sources"  # shares by similarity of texts
    return {
        **found.origins,
        **{
            f"method.{key}": later
            for key, value in settings_dict(run.method_settings).items()
            if made.get(key) != value and key not in asked
        },
    }


def _values(run: Run, *, whole: bool = False) -> dict[str, Any]:
    """``run.key`` and ``method.key`` → value: of those that manifests record, or all of them."""
    own = asdict(run.settings) if whole else run.settings.to_dict()
    method = asdict(run.method_settings) if whole else settings_dict(run.method_settings)
    return {
        **{f"run.{key}": value for key, value in own.items()},
        **{f"method.{key}": value for key, value in method.items()},
    }


def _plain(key: str) -> str:
    return key.partition(".")[2]


def _parents(run: Run) -> tuple[str, ...]:
    return tuple(str(parent["digest"]) for parent in run.parents)


def source_name(parent: Mapping[str, Any]) -> str:
    """A source of a run as ``--sources`` takes it."""
    return f"{parent['task']}:{parent['method']}/{str(parent['ref']).rpartition('/')[2]}"


def plan_rows(
    plans: Sequence[Run], workspace: Workspace, states: Sequence[State] = ()
) -> list[dict[str, Any]]:
    """One row per planned run; their states are looked up unless given."""
    states = states or [state(run, workspace) for run in plans]
    return [
        {
            "task": plan.task_id,
            "method": plan.method,
            "seed": plan.seed,
            "state": there.name,
            "runhash": plan.runhash[:8],
            "train": sum(data.sizes["train"] for data in plan.datas.values()),
            "ref": there.ref or plan.ref(workspace.zoo),
        }
        for plan, there in zip(plans, states, strict=True)
    ]
