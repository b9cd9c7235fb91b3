"""``mtl.zoo ls``: the entries of the zoo, filtered and sorted."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mtl.errors import RequestError, did_you_mean
from mtl.fitting import fitted
from mtl.words import counted
from mtl.zoo.homes import Homes
from mtl.zoo.place import zoo_option

if TYPE_CHECKING:
    from mtl.zoo import Zoo
    from mtl.zoo.summary import Summary

SORTS = ("ref", "metric", "created", "parameters")


def add_ls(add: Callable[[str, str], Any]) -> None:
    """Add the subcommand to the parser of ``mtl.zoo``."""
    ls = add("ls", "list entries")
    ls.add_argument("--task", help="task id or name; also joint entries with it")
    ls.add_argument("--suite", help="suite of the runs; its file: all runs of its tasks")
    ls.add_argument("--method", help="method or composition")
    ls.add_argument("--base", help="id of the base, or 8 digits or more of its fingerprint")
    ls.add_argument("--seed", type=int)
    ls.add_argument("--kind", choices=("adapter", "composition", "joint", "control"))
    ls.add_argument("--sort", choices=SORTS, default="ref", help="metric: best first, by task")
    ls.add_argument("--limit", type=int, help="only the first N")


def ls(zoo: Zoo, options: Namespace) -> int:
    """List what the options choose; near-duplicates are named below the table."""
    from mtl.zoo.twins import twins

    if options.limit is not None and options.limit < 1:
        raise RequestError(f"--limit {options.limit} must be at least 1.")
    listed, homes = zoo.summaries(), Homes()
    chosen = [summary for summary in listed if _wanted(summary, options, homes)]
    _sort(chosen, options.sort)
    chosen = chosen[: options.limit]
    shown = {summary.ref for summary in chosen}
    near = [twin for twin in twins(listed) if twin.ref in shown]
    if options.json:
        print(json.dumps(_json(zoo, chosen, {twin.ref: twin for twin in near})))
        return 0
    rows = [_row(summary) for summary in chosen]
    if rows:
        print(fitted(rows, HEADERS) + _caveats(chosen))
    for twin in near[:10]:
        print(f"note: {twin}")
    if len(near) > 10:
        print(f"note: {counted(len(near) - 10, 'more near-duplicate')}; --json names all")
    if zoo.problems:
        said = "place was" if len(zoo.problems) == 1 else "places were"
        zoo_is = zoo_option(zoo.root)
        print(f"{len(zoo.problems)} {said} skipped; 'python -m mtl.zoo fsck{zoo_is}' says why")
    found = counted(len(chosen), "entry", "entries")
    print(f"{found} in {zoo.root}{_hint(listed, chosen, options)}")
    return 0


def _wanted(summary: Summary, options: Namespace, homes: Homes) -> bool:
    base = options.base
    return (
        (options.task is None or summary.covers(options.task))
        and (options.suite is None or homes.has(options.suite, summary))
        and options.method in (None, summary.method)
        and options.seed in (None, summary.seed)
        and options.kind in (None, "control" if summary.control else summary.kind)
        and (
            base in (None, summary.base)
            or (len(base) >= 8 and summary.fingerprint.startswith(base))
        )
    )


def _sort(chosen: list[Summary], by: str) -> None:
    if by == "created":
        chosen.sort(key=lambda summary: summary.created)
    elif by == "parameters":
        chosen.sort(key=lambda summary: summary.parameters)
    elif by == "metric":
        chosen.sort(
            key=lambda summary: (
                summary.task,
                float("inf") if summary.value is None else -float(summary.value),
            )
        )


def _json(zoo: Zoo, chosen: list[Summary], near: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for summary in chosen:
        twin = near.get(summary.ref)
        rows.append(
            {
                "ref": summary.ref,
                "digest": summary.digest,
                "kind": summary.kind,
                "control": summary.control or None,
                "task": summary.task,
                "suite": summary.suite,
                "method": summary.method,
                "seed": summary.seed,
                "base": summary.base,
                "metric": summary.metric,
                "dev": summary.dev,
                "test": summary.value,
                "stderr": summary.stderr,
                "n": summary.n,
                "caveat": summary.caveat,
                "parameters": summary.parameters,
                "verified": summary.verified,
                "created": summary.created,
                "same_as": {"ref": twin.other, "how": twin.how} if twin else None,
            }
        )
    return {"zoo": str(zoo.root), "entries": rows, "skipped": len(zoo.problems)}


HEADERS = [
    "entry", "task", "method", "seed", "metric", "test ± se", "trained", "verified", "created",
]  # fmt: skip


def _caveats(chosen: list[Summary]) -> str:
    from mtl.zoo.caveats import footnotes

    return footnotes((f"{summary.metric} of {summary.ref}", summary.caveat) for summary in chosen)


def _row(summary: Summary) -> list[str]:
    from mtl.words import printable
    from mtl.zoo.caveats import error_text

    cells = [
        summary.ref,
        summary.task,
        summary.method + (f" (control: {summary.control})" if summary.control else ""),
        summary.seed,
        summary.metric or "–",
        error_text({key: getattr(summary, key) for key in ("value", "stderr", "caveat")}),
        f"{summary.parameters:,}",
        "yes" if summary.verified else "no",
        summary.created[:16].replace("T", " "),
    ]
    return [printable(cell) for cell in cells]


def _hint(listed: list[Summary], chosen: list[Summary], options: Namespace) -> str:
    """A guess at a filter that matches nothing although there are entries."""
    if chosen or not listed:
        return ""
    for name in ("task", "method", "suite", "base"):
        value = getattr(options, name)
        known = {getattr(summary, name) for summary in listed}
        if name == "task":
            known |= {summary.name for summary in listed}
            known |= {task for summary in listed for task in summary.tasks}
        if value is not None and value not in known:
            return f" of {len(listed)}: none has --{name} {value}.{did_you_mean(value, known)}"
    return f" of {len(listed)}"
