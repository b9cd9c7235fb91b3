"""What ``mtl.study`` prints: plans, bills, what became of a run of it, and its status."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from mtl.fitting import fitted
from mtl.study.planning import STATES
from mtl.words import counted, printable_lines

if TYPE_CHECKING:
    from mtl.study.bill import Bill, Cost
    from mtl.study.cells import Cell
    from mtl.study.driving import Going
    from mtl.study.journal import Journal
    from mtl.study.planning import Node, StudyPlan
    from mtl.study.suggest import Pick, State

SECTIONS = {"adapter": "train", "composition": "compose", "joint": "joint"}


def plan_json(plan: StudyPlan, bill: Bill) -> dict[str, Any]:
    """A plan for ``--json``."""
    return {
        "study": plan.study.name,
        "against": plan.study.against,
        "gaps": dict(plan.study.gaps),
        "states": {state: plan.count(state) for state in STATES},
        "bill": bill.to_dict(),
        "problems": plan.problems(),
        **_together(plan),
        "runs": [_row(key, node, bill.costs.get(key)) for key, node in plan.nodes.items()],
    }


def _row(key: str, node: Node, cost: Cost | None) -> dict[str, Any]:
    cell = node.cell
    return {
        "key": key,
        "kind": "search" if cell.search else cell.kind,
        "task": cell.task,
        "tasks": list(cell.ids),
        "method": cell.method,
        "seed": cell.seed,
        "model": cell.model,
        "settings": dict(cell.settings),
        "row": cell.row or None,
        "state": node.state,
        "runhash": node.runhash,
        "ref": node.entry.ref if node.entry else None,
        "digest": node.entry.digest if node.entry else None,
        "needs": list(node.needs),
        **_searched(node),
        "steps": cost.steps if cost else None,
        "seconds": cost.seconds if cost else None,
        "seconds_by": cost.by if cost else None,
    }


def _searched(node: Node) -> dict[str, Any]:
    """Of a search what it is, of a run that takes its recipe which one; of others nothing."""
    from mtl.study.trials import recipe_digest

    cell = node.cell
    if cell.search is None:
        return {"search": cell.tuned, "recipe": cell.recipe} if cell.tuned else {}
    there = node.trials is not None and node.state == "done"
    return {
        "over": list(cell.search.over),
        "trials": cell.search.trials,
        "trial_seeds": list(cell.search.seeds),
        "recipe": str(node.trials.recipe) if node.trials else None,
        "recipe_sha256": recipe_digest(node.trials.recipe) if there and node.trials else None,
    }


def plan_text(plan: StudyPlan, bill: Bill, *, each: bool) -> str:
    """A plan as a table, and the bill."""
    table = _each(plan, bill) if each else _by_task(plan, bill)
    counts = ", ".join(f"{plan.count(state)} {state}" for state in STATES if plan.count(state))
    parts = [table, "", f"{counted(len(plan.nodes), 'run')}: {counts or 'none'}.", *_bill(bill)]
    parts += _beside(plan, bill)
    parts += _searches(plan)
    problems = plan.problems()
    if problems:
        parts += ["", "These cannot run here:", *(f"  {text}" for text in problems)]
    if plan.study.gaps:
        parts += ["", f"Rows of {plan.study.against} that nothing here fills:"]
        parts += [f"  {row}: {gap_text(why)}" for row, why in plan.study.gaps.items()]
    return printable_lines("\n".join(parts))


def gap_text(why: str) -> str:
    """Why a row cannot be run; the name of a method that cannot be had stands for its reason."""
    from mtl.methods import UNAVAILABLE

    return next((found.reason for found in UNAVAILABLE if found.name == why), why)


def _each(plan: StudyPlan, bill: Bill) -> str:
    rows = []
    for key, node in plan.nodes.items():
        cell, cost = node.cell, bill.costs.get(key)
        rows.append(
            [
                _section(cell),
                cell.task,
                cell.method,
                cell.seed,
                _settings(node, plan),
                node.state,
                (node.runhash or "")[:8],
                _number(cost.steps if cost else None),
                duration(cost.seconds) if cost else "",
            ]
        )
    heads = ["stage", "task", "method", "seed", "settings", "state", "runhash", "steps", "time"]
    return fitted(rows, heads, keys=4)


def _by_task(plan: StudyPlan, bill: Bill) -> str:
    def place(item: tuple[str, Node]) -> tuple[str, ...]:
        cell = item[1].cell
        return (_section(cell), cell.method, _settings(item[1], plan), cell.task)

    rows = []
    for what, found in groupby(plan.nodes.items(), key=place):
        group = list(found)
        states = [node.state for _, node in group]
        costs = [bill.costs[key] for key, _ in group if key in bill.costs]
        unknown = any(cost.seconds is None for cost in costs)
        seconds = sum(cost.seconds or 0 for cost in costs)
        rows.append(
            [
                *(what[0], what[3], what[1], what[2], _seeds([n.cell.seed for _, n in group])),
                *(states.count(state) or "" for state in STATES),
                _number(sum(cost.steps or 0 for cost in costs) or None),
                "" if not costs else "?" if unknown else duration(seconds),
            ]
        )
    heads = ["stage", "task", "method", "settings", "seeds", *STATES, "steps", "time"]
    used = [index for index, head in enumerate(heads) if any(row[index] != "" for row in rows)]
    cells = [[row[index] for index in used] for row in rows]
    return fitted(cells, [heads[index] for index in used], keys=min(3, len(used)))


def _section(cell: Cell) -> str:
    return "search" if cell.search else SECTIONS[cell.kind]


def _searches(plan: StudyPlan) -> list[str]:
    """What is searched for, and the recipes that were found."""
    from mtl.study.trials import recipe_digest

    found = [node for node in plan.nodes.values() if node.cell.search]
    lines = []
    for key, node in plan.nodes.items():
        search, trials = node.cell.search, node.trials
        if search is None:
            continue
        said = f"  {plan.label(key)}: {' '.join(search.over)}"
        if trials is not None and node.state == "done":
            said += f"; recipe {trials.recipe} (sha256 {recipe_digest(trials.recipe)[:12]})"
        lines.append(said)
    if not found or not (search := found[0].cell.search):
        return []
    head = f"Searched first, at most {counted(search.trials, 'trial')} each and the settings "
    head += f"as they are, on dev, seeds {', '.join(map(str, search.seeds))}:"
    return ["", head, *lines]


def _bill(bill: Bill) -> list[str]:
    if not bill.runs:
        return []
    known = bill.runs - bill.unknown
    text = f"To be run: {counted(bill.runs, 'run')}, up to {bill.steps:,} steps"
    if known:
        text += f", {duration(bill.seconds)} of one worker"
    if bill.unknown:
        text += f" and what {counted(bill.unknown, 'run')} take{'s' if bill.unknown == 1 else ''}"
        text += " of which no finished run tells" if not known else ", which no finished run tells"
    if bill.size:
        text += f"; {bill.size / 1e6:,.1f} MB in the zoo"
        text += f" and {counted(bill.unsized, 'entry', 'entries')} more" if bill.unsized else ""
    return [text + "."]


def _together(plan: StudyPlan) -> dict[str, Any]:
    """Of the runs that can begin, how many go side by side, where that was asked for."""
    if plan.desk.places.beside == 1:
        return {}
    from mtl.engine.hardware import no_gpu
    from mtl.study.groups import Groups

    ready = [key for key, node in plan.nodes.items() if node.state in {"missing", "resumable"}]
    groups = Groups(plan, plan.desk.places.beside)
    runs, count = groups.together(ready, on_cpu=no_gpu())
    return {"side_by_side": {"ready": len(ready), "runs": runs, "groups": count}}


def _beside(plan: StudyPlan, bill: Bill) -> list[str]:
    told = _together(plan).get("side_by_side")
    if not told or not told["ready"]:
        return []
    can = f"of {counted(told['ready'], 'run')} that can begin"
    if not told["runs"]:
        return [f"Side by side: {can}, none goes with another."]
    groups = counted(told["groups"], "group")
    text = f"Side by side: {can}, {told['runs']} go with others, in {groups} if one worker has all."
    if any(cost.seconds and not cost.by.endswith("side by side") for cost in bill.costs.values()):
        text += " The time is theirs one by one where no run like them was trained side by side."
    return [text]


def run_json(going: Going) -> dict[str, Any]:
    """What became of a study for ``--json``."""
    plan = going.plan
    rows = []
    for key, node in plan.nodes.items():
        outcome = going.outcomes.get(key)
        rows.append(
            {
                **_row(key, node, None),
                "status": outcome.status if outcome else node.state,
                "error": outcome.error if outcome else "",
                **(outcome.told if outcome else {}),
            }
        )
    return {
        "command": "study run",
        "study": plan.study.name,
        "stopped": going.stopped,
        "runs": rows,
    }


def run_text(going: Going) -> str:
    """The end of a study: what is done, what failed and why, what waits and for whom."""
    plan, statuses = going.plan, [found.status for found in going.outcomes.values()]
    there = plan.count("done")
    parts = [
        f"{plan.study.name}: {counted(len(plan.nodes), 'run')}, {there} done "
        f"({statuses.count('done')} now), {statuses.count('failed')} failed, "
        f"{len(plan.nodes) - there - statuses.count('failed')} not run."
    ]
    parts += _searches(plan)[1:]
    parts += [f"failed: {outcome.error}" for outcome in going.failed()]
    for key, needs in going.waiting().items():
        parts.append(f"waits: {going.label(key)}" + (f", for {'; '.join(needs)}" if needs else ""))
    parts += [going.stopped] if going.stopped else []
    return printable_lines("\n".join(parts))


def status_json(plan: StudyPlan, journal: Journal) -> dict[str, Any]:
    """The status of a study for ``--json``."""
    failed = journal.failed()
    return {
        "study": plan.study.name,
        "states": {state: plan.count(state) for state in STATES},
        "failed": {
            key: failed[key] for key, node in plan.nodes.items() if _failed(key, node, failed)
        },
        "drivers": journal.drivers(),
        "problems": plan.problems(),
    }


def status_text(plan: StudyPlan, journal: Journal) -> str:
    """The status of a study for people."""
    counts = ", ".join(f"{plan.count(state)} {state}" for state in STATES if plan.count(state))
    parts = [f"{plan.study.name}: {counted(len(plan.nodes), 'run')}: {counts}."]
    for driver in journal.drivers():
        parts += _driver(driver)
    failed = journal.failed()
    for key, node in plan.nodes.items():
        if _failed(key, node, failed):
            parts.append(f"failed: {failed[key]}")
    parts += [f"cannot run here: {text}" for text in plan.problems()]
    return printable_lines("\n".join(parts))


def _failed(key: str, node: Node, failed: Any) -> bool:
    return key in failed and node.state != "done"


def _driver(driver: dict[str, Any]) -> Iterable[str]:
    who = f"process {driver.get('pid')} on {driver.get('host')}"
    ago = duration(max(0.0, time.time() - driver["written"]))
    if driver.get("ended"):
        return [f"{who}: ended {ago} ago ({driver['ended']})"]
    if driver.get("gone"):
        return [f"{who}: gone, its last word is {ago} old"]
    lines = [f"{who}: {driver.get('done')} of {driver.get('runs')} done, its word is {ago} old"]
    for run in driver.get("running") or ():
        of = run.get("unit", "steps")
        share = f"{run['step']}/{run['steps']} {of}" if run.get("steps") else "at its beginning"
        since = duration(max(0.0, time.time() - run["since"]))
        beside = run.get("side_by_side")
        text = f", one of {beside} side by side" if beside else ""
        lines.append(f"  worker {run['worker']}: {run['label']}: {share}, for {since}{text}")
    return lines


def suggest_json(plan: StudyPlan, state: State, picks: Sequence[Pick]) -> dict[str, Any]:
    """What to run next for ``--json``."""
    decided, comparisons = state.count()
    rows = [
        {
            "key": pick.key,
            "label": plan.label(pick.key),
            "needs": list(pick.needs),
            "seconds": pick.seconds,
            "worth": pick.worth,
        }
        for pick in picks
    ]
    return {"decided": decided, "comparisons": comparisons, "runs": rows}


def suggest_text(plan: StudyPlan, state: State, picks: Sequence[Pick]) -> str:
    """What to run next, the best first."""
    decided, comparisons = state.count()
    text = f"{counted(comparisons, 'comparison')}, {decided} decided on dev.\n"
    if not picks:
        return text + "No run of it fits into that time, or nothing is left to be run."
    rows = []
    spent = 0.0
    for number, pick in enumerate(picks, start=1):
        spent += pick.seconds
        first = "; ".join(plan.label(need) for need in pick.needs)
        rows.append([number, plan.label(pick.key), first, duration(spent), f"{pick.worth:.3f}"])
    heads = ["", "run", "after", "time so far", "worth"]
    return printable_lines(text + fitted(rows, heads, keys=2))


def outcome_text(going: Going, key: str) -> str:
    """One line on a run that is over."""
    outcome = going.outcomes[key]
    told = outcome.told
    if outcome.status != "done":
        return f"{outcome.status}: {outcome.error}" if outcome.error else outcome.status
    values = " ".join(
        f"{split} {'–' if told[split] is None else format(told[split], '.4f')}"
        for split in ("dev", "test")
    )
    text = f"done, {told['metric']} {values}, {told['steps']} steps, {told['seconds']:.0f} s"
    beside = told.get("side_by_side")
    return text + (f", one of {beside} side by side" if beside else "")


def beside_text(plan: StudyPlan) -> str:
    """How many runs go side by side, where several may."""
    asked = plan.desk.places.beside
    if asked == 1:
        return ""
    return f", up to {asked} side by side" if asked else ", side by side as many as pay"


def duration(seconds: float | None) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``4.2 days``; ``?`` for None."""
    if seconds is None:
        return "?"
    for limit, unit, size in ((100, "s", 1), (6000, "min", 60), (360_000, "h", 3600)):
        if seconds < limit:
            value = seconds / size
            return f"{value:.0f} {unit}" if value >= 10 or unit == "s" else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


def _settings(node: Node, plan: StudyPlan) -> str:
    """What is set, where it is not the same for all."""
    return " ".join(f"{name}={value}" for name, value in plan.differing(node.cell).items())


def _seeds(seeds: Sequence[int]) -> str:
    """``0-4, 7``."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"
