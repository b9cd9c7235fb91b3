"""What a command tells before it trains: base, rows, settings and their origins, sources, states.

One block, however many runs there are: what they share stands once, what differs in a table with a
row per task, method and settings. ``--dry-run`` prints it with a line per run below.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mtl.cli.plan import DEFAULT, Plan, Planned, State, make_plan
from mtl.engine.launch import launch
from mtl.engine.progress import quiet
from mtl.fitting import fitted_rows
from mtl.words import counted, printable_lines
from mtl.zoo.settings import settings_text

if TYPE_CHECKING:
    from mtl.runs.context import Context

SHOWN = 30
"""Rows of the table, at most."""
NOTES = 8
"""Remarks on which rows are used, at most."""
WIDTH = 110
EMULATED = " (emulated: this processor has neither AVX512-BF16 nor AMX, and fp32 is faster on it)"


def block_text(plan: Plan, *, candidates: bool = False) -> str:
    """The block that people read.

    Args:
        candidates: the runs stand for a search among their sources, and are not run as they are.
    """
    told = plan.to_dict()
    variants, tasks, sources = told["variants"], told["tasks"], told["sources"]
    base, several = told["base"], len(variants) > 1
    name = base["id"] if base["id"] == base["model"] else f"{base['model']} ({base['id']})"
    emulated = EMULATED if told.get("emulated") else ""
    lines = [
        ("base", f"{name} {base['fingerprint'][:8]}, on {told['device']}, "
                 f"{' and '.join(told['precision'])}{emulated}"),
    ]  # fmt: skip
    if len(tasks) == 1 or plan.runs[0].joint:
        lines += [("task" if len(tasks) == 1 else "tasks", _rows_text(task)) for task in tasks]
    noted = [f"{task['task']}: {note}" for task in tasks for note in task["notes"]]
    more = [f"… and {len(noted) - NOTES} more (--json)"] if len(noted) > NOTES else []
    lines += [("rows", text) for text in [*dict.fromkeys(noted[:NOTES]), *more]]
    methods = list(dict.fromkeys(run.method for run in plan.runs))
    counts = told["parameters"]
    trained = [f"{m}, {counts[m]} parameters" if counts.get(m) else m for m in methods]
    lines.append(("method" if len(methods) == 1 else "methods", "; ".join(trained)))
    if len(sources) == 1 and sources[0]:
        name = "among" if candidates else "sources"
        lines.append((name, f"{len(sources[0])}: {', '.join(sources[0])}"))
    lines += [("settings", text) for text in settings_lines(told["settings"])]
    for method, own in told["by_method"].items():
        lines += [(method, text) for text in settings_lines(own)]
    if candidates:
        return printable_lines("\n".join(_block(lines)))
    differing = [f"{key} ({'; '.join(places)})" for key, places in told["differing"].items()]
    if differing:
        lines.append(("differing", ", ".join(differing)))
    if several:
        lines.append(("runs", counted(len(plan.runs), "run") + ":"))
    else:
        lines.append(("runs", _states_text(variants[0], plan.states)))
    lines.append(("time", _time_text(told)))
    block = _block(lines)
    if several:
        at = len(block) - len(_block(lines[-1:]))
        block[at:at] = ["", *_table(variants, tasks, len(methods) > 1, sources), ""]
    return printable_lines("\n".join(block))


def _rows_text(task: Mapping[str, Any]) -> str:
    rows = ", ".join(f"{n:,} {split}" for split, n in task["rows"].items())
    return f"{task['task']}: {rows} rows, split by {task['protocol']}"


def _table(
    variants: Sequence[Mapping[str, Any]],
    tasks: Sequence[Mapping[str, Any]],
    methods: bool,
    sources: Sequence[Sequence[str]],
) -> list[str]:
    several = len(tasks) > 1
    splits = list(dict.fromkeys(split for row in variants for split in row["rows"]))
    rows = [
        {
            **({"task": row["task"]} if several else {}),
            **({split: row["rows"].get(split, "") for split in splits} if several else {}),
            **({"method": row["method"]} if methods else {}),
            **({"settings": settings_text(row["settings"])} if row["settings"] else {}),
            **({"sources": _some(row["sources"])} if len(sources) > 1 else {}),
            "seeds": " ".join(map(str, row["seeds"])),
            "": _counts(row),
        }
        for row in variants[:SHOWN]
    ]
    more = len(variants) - len(rows)
    end = [f"… and {more} more (--dry-run lists every run)"] if more else []
    return [*fitted_rows(rows).splitlines(), *end]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{len(names)}, {names[0]} first"


def settings_lines(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per origin: what the user set first, what nobody set last."""
    by_origin: dict[str, list[str]] = {}
    for key, item in settings.items():
        by_origin.setdefault(item["from"], []).append(f"{key}={item['value']}")

    def rank(origin: str) -> tuple[int, str]:
        return (0 if origin.startswith("--") else 2 if origin == DEFAULT else 1, origin)

    return [f"{origin}: {', '.join(by_origin[origin])}" for origin in sorted(by_origin, key=rank)]


def _states_text(row: Mapping[str, Any], states: Sequence[State]) -> str:
    """The runs of one variant: how far each is."""
    if len(row["seeds"]) > 1:
        return f"seeds {' '.join(map(str, row['seeds']))}: {_counts(row)}"
    (only,) = states
    if only.name == "done":
        said = f"already in the zoo, {only.ref}"
    elif only.name == "interrupted":
        said = f"resumed at step {'?' if only.step is None else only.step} of {row['steps']}"
    else:
        said = "new"
    return f"seed {row['seeds'][0]}: {said}"


def _counts(row: Mapping[str, Any]) -> str:
    said = {"done": "already in the zoo", "interrupted": "resumed", "missing": "new"}
    found = [f"{row[name]} {text}" for name, text in said.items() if row[name]]
    return ", ".join(found)


def _time_text(told: Mapping[str, Any]) -> str:
    if not told["steps"]:
        return "nothing to train"
    steps = f"{counted(told['steps'], 'step')} at most"
    if told["seconds"] is None:
        which = ", ".join(told["seconds_unknown"][:3])
        return f"unknown, {steps} (no finished run of {which} with this base, device and batch)"
    seconds = told["seconds"]
    length = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
    length = f"{seconds / 3600:.1f} h" if seconds >= 5400 else length
    return f"about {length}, {steps}, as {'; '.join(told['seconds_by'])} took"


def _block(lines: Iterable[tuple[str, str]]) -> list[str]:
    """Names on the left, each once, and texts beside them, wrapped."""
    listed = list(lines)
    width = max([10, *(len(name) + 2 for name, _ in listed)])
    block: list[str] = []
    before = ""
    for name, text in listed:
        first = "" if name == before else name
        before = name
        block += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=first.ljust(width),
            subsequent_indent=" " * (width + 2),
            break_long_words=False,
            break_on_hyphens=False,
        )
    return block


def tell(planned: Planned, context: Context) -> dict[str, Any]:
    """Say on standard error what is about to run, where anything is said; the same as JSON."""
    plan = make_plan(planned, context)
    if not quiet() and plan.runs and launch().rank == 0:
        print(f"{block_text(plan)}\n", file=sys.stderr, flush=True)
    return plan.to_dict()


def print_dry_run(
    planned: Planned,
    context: Context,
    *,
    as_json: bool,
    candidates: str = "",
    search: Mapping[str, Any] | None = None,
) -> None:
    """What would run, what is there, what was interrupted.

    Args:
        candidates: of a search, what it will do: what is run after it is not known.
        search: the same for ``--json``.
    """
    plan = make_plan(planned, context)
    if as_json:
        rows = [] if candidates else plan.rows()
        told = {"dry_run": True, "runs": rows, "plan": plan.to_dict()}
        print(json.dumps({**told, "search": search} if search else told))
        return
    print(f"{block_text(plan, candidates=bool(candidates))}\n")
    if candidates:
        print(f"{candidates}\n\nNothing was run (--dry-run).")
        return
    rows = [
        {**row, **({"settings": settings_text(row["settings"])} if "settings" in row else {})}
        for row in plan.rows()
    ]
    print(fitted_rows(rows, keys=3))
    states = [one.name for one in plan.states]
    print(
        f"\n{counted(len(states), 'run')}: {states.count('done')} done, "
        f"{states.count('interrupted')} to be resumed, {states.count('missing')} to be run. "
        "Nothing was run (--dry-run)."
    )
