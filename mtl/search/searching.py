"""The search itself: Optuna proposes settings, trials judge them on dev, a journal keeps both.

One study per method; all methods get the same number of trials, so that none looks better for
having been tuned longer. The settings without the search are tried first, as number 0. A finite
space that is not larger than the number of trials is tried as a whole, in order.

The journal ``<runs>/search/<hash>/journal.log`` is a study of one space over one run: its hash is
that of the run, the space and the pruner. The same search goes on where it was killed, with the
proposals that an unbroken one would have made: every proposal is drawn from a seed of its own.

Where the workspace says so, N proposals are drawn at once and tried side by side, trials 0 to
N - 1, N to 2N - 1, and so on. The sampler then takes those whose figures are not known yet for bad
ones (``constant_liar``), so that it does not propose the same N times, and the pruner compares with
what had ended before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import filterwarnings

from mtl.errors import RequestError, RunError, unknown
from mtl.files import locked, sha256_json, write_json
from mtl.report.searches import FILE
from mtl.runs.beside import at_once
from mtl.search.space import Dimension, size
from mtl.search.trying import Open, Tried, attempt, groups

if TYPE_CHECKING:
    from mtl.runs import Run, Workspace

SEED = 100
"""Of the trials: none of those that runs are usually shown with."""
PRUNERS = ("median", "hyperband", "none")
TRIALS = 20
"""Of every method, where nobody says how many."""


@dataclass(frozen=True)
class Found:
    """What a search of one method found.

    Attributes:
        method, metric: searched, and compared by.
        space: what was searched over.
        seeds: of every trial.
        rows: of dev.
        tried: all trials in their order.
        best: the one with the highest dev metric; of equals the first.
        folder: of the journal.
    """

    method: str
    metric: str
    space: tuple[Dimension, ...]
    seeds: tuple[int, ...]
    rows: int
    tried: tuple[Tried, ...]
    best: Tried
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        told = [
            {
                "number": item.number,
                "values": dict(item.values),
                "dev": item.dev,
                "stderr": item.stderr,
                "state": item.state,
                "steps": item.steps,
                "seconds": round(item.seconds, 2),
                "reason": item.reason or None,
                **({"side_by_side": item.side_by_side} if item.side_by_side > 1 else {}),
            }
            for item in self.tried
        ]
        return {
            "method": self.method,
            "by": f"dev {self.metric}",
            "rows": self.rows,
            "seeds": list(self.seeds),
            "space": [str(item) for item in self.space],
            "best": told[self.tried.index(self.best)],
            "tried": told,
        }


Make = Callable[[Mapping[str, Any]], "list[Run]"]
"""Settings → the runs of a trial, one per seed."""


def search_settings(
    method: str,
    make: Make,
    space: Sequence[Dimension],
    trials: int,
    workspace: Workspace,
    *,
    prune: str = "median",
    tell: Callable[[Tried], object] = lambda tried: None,
) -> Found:
    """Search ``space`` for what serves ``method`` best on dev, by ``trials`` trials and number 0.

    Args:
        make: the runs of a trial; only train and dev of their task are read.
        prune: gives up trials that fall behind: ``median`` (of the others after as many
            evaluations), ``hyperband`` or ``none``.
        tell: called with every trial, those of an earlier command first.

    Raises:
        RequestError: no trials, an unknown pruner, Optuna is not installed, or another process
            searches here.
        RunError: number 0 and all trials failed.
    """
    if trials < 1:
        raise RequestError(f"--trials {trials}: at least one is needed.")
    if prune not in PRUNERS:
        raise unknown("pruner", prune, PRUNERS)
    optuna = _optuna()
    plain = make({})
    spec, seeds = plain[0].data.spec, tuple(run.seed for run in plain)
    folder = search_folder(method, plain, space, prune, workspace)
    with locked(folder / "lock", f"the search of {method} for {spec.id}"):
        study = _open(optuna, folder, prune)
        if not study.trials:
            _write_about(folder, method, plain, space, prune)
        given = [trial.params for trial in _left(optuna, study)]
        finished = _finished(optuna, study)
        known = [item.values for item in finished]
        first = Open(0, _values(plain[0], space), plain, None)
        most = at_once(plain[0].settings, plain[0].backbone.base.hidden_size, workspace)
        tried = attempt([first], workspace) if finished or most == 1 else []
        tried += finished
        for item in tried:
            tell(item)
        if size(space) <= trials:
            given = [values for values in _all_of(space) if values not in known]
            trials = len(known) + len(given)
        numbers = sorted({*range(trials + 1)} - {item.number for item in tried})
        for some in groups(numbers, most):
            going = [first] if 0 in some else []
            for number in some[len(going) :]:
                study.sampler = _sampler(optuna, seeds[0], number, several=len(some) > 1)
                if given:
                    study.enqueue_trial(given.pop(0))
                trial = study.ask({item.key: item.distribution() for item in space})
                trial.set_user_attr("number", number)
                going.append(Open(number, trial.params, make(trial.params), trial))
            for each, item in zip(going, attempt(going, workspace), strict=True):
                if each.trial is not None:
                    each.trial.set_user_attr("told", _told(item))
                    _end(optuna, study, each.trial.number, item)
                tried.append(item)
                tell(item)
        tried.sort(key=lambda item: item.number)
    judged = [item for item in tried if item.state == "done" and item.dev is not None]
    if not judged:
        raise RunError(f"None of {len(tried)} trials of {method} came to an end: {tried[0].reason}")
    best = max(judged, key=lambda item: (item.dev, -item.number))
    rows = int(plain[0].data.sizes["dev"])
    found = Found(method, spec.headline, tuple(space), seeds, rows, tuple(tried), best, folder)
    base = plain[0].backbone.base.fingerprint
    write_json(
        folder / FILE,
        {**found.to_dict(), "task": spec.id, "base": base, "axes": [asdict(i) for i in space]},
    )
    return found


def search_folder(
    method: str, plain: Sequence[Run], space: Sequence[Dimension], prune: str, workspace: Workspace
) -> Path:
    """Where a search keeps its journal, whatever its number of trials.

    Args:
        plain: the runs without the search, one per seed.
    """
    return workspace.runs / "search" / _hash(method, plain, space, prune)


def _values(run: Run, space: Sequence[Dimension]) -> dict[str, Any]:
    """What the searched settings are in ``run``."""
    owners = {"method": run.method_settings, "run": run.settings}
    found = {}
    for item in space:
        prefix, _, name = item.key.rpartition(".")
        asked = [owners[prefix]] if prefix else owners.values()
        (found[item.key],) = (getattr(owner, name) for owner in asked if hasattr(owner, name))
    return found


def at_an_edge(found: Found) -> list[Dimension]:
    """The ranges at whose ends the best setting lies: better ones may lie outside."""
    if found.best.number == 0:
        return []
    return [
        item
        for item in found.space
        if not item.choices and _near(found.best.values[item.key], item)
    ]


def _near(value: float, item: Dimension) -> bool:
    """Within a twentieth of the range of an end."""
    low, high, at = (math.log(v) if item.log else v for v in (item.low, item.high, value))
    return min(at - low, high - at) <= 0.05 * (high - low)


def check_optuna() -> None:
    """Refuse to search without Optuna; imports nothing. Raises RequestError."""
    if find_spec("optuna") is None:
        raise RequestError("Searching needs Optuna: pip install optuna.")


def _optuna() -> Any:
    check_optuna()
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _open(optuna: Any, folder: Path, prune: str) -> Any:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    pruners = {
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=4),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1000),
        "none": optuna.pruners.NopPruner,
    }
    return optuna.create_study(
        study_name="settings",
        storage=JournalStorage(JournalFileBackend(str(folder / "journal.log"))),
        direction="maximize",
        pruner=pruners[prune](),
        load_if_exists=True,
    )


def _sampler(optuna: Any, seed: int, number: int, *, several: bool) -> Any:
    """Draws proposal ``number`` from a seed of its own: a killed search goes on the same.

    Args:
        several: others are being tried whose figures are not known.
    """
    more = {}
    if several:
        filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        more = {"constant_liar": True}
    return optuna.samplers.TPESampler(seed=1000 * seed + number, n_startup_trials=8, **more)


def _left(optuna: Any, study: Any) -> list[Any]:
    """Trials that a process began and did not end: given up, to be tried again."""
    states = optuna.trial.TrialState
    left = [item for item in study.trials if item.state in {states.RUNNING, states.WAITING}]
    for item in left:
        if "told" in item.user_attrs:  # it had ended, but for the last line of the journal
            _end(optuna, study, item.number, Tried(**item.user_attrs["told"]))
        else:
            study.tell(item.number, state=states.FAIL)
    return [item for item in left if item.params and "told" not in item.user_attrs]


def _end(optuna: Any, study: Any, number: int, item: Tried) -> None:
    if item.state == "done":
        study.tell(number, item.dev)
    else:  # what diverged is as bad as what fell behind: the sampler keeps away from it
        study.tell(number, state=optuna.trial.TrialState.PRUNED)


def _finished(optuna: Any, study: Any) -> list[Tried]:
    ended = (item for item in study.trials if "told" in item.user_attrs)
    return [Tried(**item.user_attrs["told"]) for item in ended]


def _told(item: Tried) -> dict[str, Any]:
    told = {**item.__dict__, "values": dict(item.values)}
    if item.side_by_side == 1:
        del told["side_by_side"]
    return told


def _all_of(space: Sequence[Dimension]) -> Any:
    """Every setting of a finite space."""
    axes = [
        item.choices or range(int(item.low), int(item.high) + 1)  # whole numbers: it is finite
        for item in space
    ]
    keys = [item.key for item in space]
    return (dict(zip(keys, values, strict=True)) for values in product(*axes))


def _hash(method: str, runs: Sequence[Run], space: Sequence[Dimension], prune: str) -> str:
    told = [method, [run.runhash for run in runs], [str(item) for item in space], prune]
    return sha256_json(told)[:16]


def _write_about(
    folder: Path, method: str, runs: Sequence[Run], space: Sequence[Dimension], prune: str
) -> None:
    write_json(
        folder / "search.json",
        {
            "method": method,
            "task": runs[0].task_id,
            "base": runs[0].backbone.base.slug,
            "seeds": [run.seed for run in runs],
            "runhashes": [run.runhash for run in runs],
            "space": [str(item) for item in space],
            "prune": prune,
        },
    )
