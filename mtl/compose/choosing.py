"""``--sources best`` on a zoo: trials of compositions of its adapters, and what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mtl.compose.best import BUDGET, PLAIN, Choice, Tried, check_judged, search
from mtl.compose.composition import COMPOSITIONS
from mtl.compose.judging import FEW, as_chosen, judge_for
from mtl.compose.stage_two import Target, resolve_target
from mtl.engine.settings import RunSettings
from mtl.errors import RequestError
from mtl.files import sha256_json
from mtl.methods.method import settings_dict
from mtl.runs.beside import at_once
from mtl.runs.settings import Overrides

if TYPE_CHECKING:
    from mtl.runs.context import Context
    from mtl.tasks import Suite
    from mtl.zoo import Entry


def choose_best(
    entries: Sequence[Entry],
    target: Target,
    context: Context,
    *,
    suite: Suite,
    budget: float | None,
    minutes: float | None,
    suggested: Sequence[Sequence[str]],
    tell: Callable[[Tried], object],
) -> Choice:
    """Search among the sources ``entries`` for the best use; no test row is read.

    Args:
        suggested: sets of tasks to try beside those that the search makes.

    Raises:
        RequestError: a budget that is too small.
        RunError: a trial failed.
    """
    by_task = _by_task(entries)
    targets = _targets(target, context)
    width, workspace = context.backbone.base.hidden_size, context.workspace
    most = at_once(target.settings, width, workspace)
    found = search(
        list(by_task),
        list(targets),
        judge_for(targets, target.method, by_task, suite, context, at_once=most),
        budget=BUDGET if budget is None else budget,
        seconds=60 * (minutes or 0.0),
        starts={
            name: float(each.method_settings.init_scale)
            for name, each in targets.items()
            if _has_start(each)
        },
        suggested=suggested,
        tell=tell,
    )
    found.among = _among(entries, targets)
    return found


def check_choice(
    entries: Sequence[Entry],
    target: Target,
    context: Context,
    *,
    suite: Suite,
    budget: float | None,
) -> None:
    """Refuse what :func:`choose_best` would: a budget too small. Raises RequestError."""
    by_task, targets = _by_task(entries), _targets(target, context)
    judge = judge_for(targets, target.method, by_task, suite, context)
    check_judged(BUDGET if budget is None else budget, judge, list(by_task), list(targets))


def _by_task(entries: Sequence[Entry]) -> dict[str, Entry]:
    return {str(entry.manifest.task["id"]): entry for entry in entries}


def _among(entries: Sequence[Entry], targets: Mapping[str, Target]) -> str:
    """Which sources, and how they may be used: all that decides a search but for twins and budget.

    Trials among twins are another search by the same means.
    """
    uses = {
        method: [
            each.data.fingerprint,
            settings_dict(each.method_settings),
            each.settings.identity(),
        ]
        for method, each in targets.items()
    }
    return sha256_json([sorted(entry.digest for entry in entries), uses])


def chosen_target(target: Target, choice: Choice, context: Context) -> Target:
    """``target`` by the composition and from the start that were chosen."""
    assert choice.chosen is not None
    return as_chosen(_targets(target, context)[choice.chosen.method], choice.chosen)


def few_rows(choice: Choice) -> str:
    """A warning where dev is too small to choose by; or nothing."""
    if choice.rows >= FEW or choice.judge.by != "dev":
        return ""
    return (
        f"warning: the choice was made on {choice.rows} dev rows, which tell differences of a few "
        "points from chance badly; where rows can be had, give dev more of them."
    )


def above_choice(choice: Choice, entries: Sequence[Entry], target: Target) -> str:
    """A warning where the own adapter, as it is, has more on dev than what was chosen."""
    metric = target.data.spec.headline
    if choice.judge.by != "dev":
        return ""  # other rows
    reached = choice.best_trial().value
    for entry in entries:
        if entry.manifest.task["id"] != target.data.spec.id:
            continue
        own = entry.manifest.metrics["dev"][metric]["value"]
        if own is not None and own > reached:
            return (
                f"warning: the own adapter {entry.ref} by itself has dev {metric} {own:.4f}, the "
                f"choice {reached:.4f}; its state was selected on these rows, which flatters "
                "it, but compare both on test."
            )
    return ""


def _targets(target: Target, context: Context) -> dict[str, Target]:
    """The compositions to choose between, the one that judges sets first."""
    found: dict[str, Target] = {}
    if target.method != PLAIN:
        run = {item.name for item in fields(RunSettings)}
        values = {
            key: value
            for key, value in context.overrides.values.items()
            if key.removeprefix("run.") in run
        }
        with suppress(RequestError):  # where the recipe does not say how it is trained
            found[PLAIN] = resolve_target(
                target.data.spec,
                method=PLAIN,
                recipe=context.recipe,
                protocol=target.data.protocol,
                overrides=Overrides(values),
                workspace=context.workspace,
                control=target.control,
            )
    return {**found, target.method: target}


def _has_start(target: Target) -> bool:
    settings: Any = target.method_settings
    learns = getattr(settings, "learn", False)
    return learns and "init_scale" in {item.name for item in fields(settings)}


def check_composition(method: str) -> None:
    """Refuse compositions that are no candidates. Raises RequestError."""
    if method in {"probe", "soup"} or COMPOSITIONS.get(method).per_source:
        raise RequestError(
            f"--sources best chooses between compositions that weigh sources by themselves; "
            f"{method!r} takes fixed weights. Name the sources, or another --method."
        )
