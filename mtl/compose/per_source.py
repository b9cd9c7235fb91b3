"""Settings with one value per source (``weights`` of a soup, ``scales`` of a probe), by name.

A composition orders its sources (the target's own last), so values by place would go to whatever
stands there. What is written is ``flip:0.3,foo:0.7``; what is stored has this form, too, in the
order of the sources, and says in manifest and report which source got what. Entries of before hold
numbers alone, in the order of their parents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mtl.compose.composition import COMPOSITIONS
from mtl.errors import RequestError, unknown
from mtl.words import counted


def split_values(text: str) -> list[tuple[str, str]]:
    """``(name or "", value)`` of every part; ``foo:lora:0.7`` is ``("foo:lora", "0.7")``."""
    parts = [part.strip().rpartition(":") for part in text.split(",")]
    return [(name.strip(), value.strip()) for name, _, value in parts]


def values_of(text: str, field: str, example: str) -> list[float]:
    """The values alone, in the order in which they stand.

    Raises:
        RequestError: something in it is no number, or some have names and some have none.
    """
    parts = split_values(text)
    try:
        found = [float(value) for _, value in parts]
    except ValueError as error:
        raise RequestError(
            f"{field}={text!r} must be numbers with commas between them, as {example}, or by the "
            f"names of the sources, as TASK:{example.replace(',', ',OTHER:')}."
        ) from error
    if len({bool(name) for name, _ in parts}) > 1:
        raise RequestError(
            f"{field}={text!r}: name the source of every value, or of none, as "
            f"TASK:{example.replace(',', ',OTHER:')}."
        )
    return found


def by_name(settings: Any, method: str, tasks: Sequence[str], typed: Sequence[str] | None) -> Any:
    """``settings`` with every source's value under its task, in the order of ``tasks``.

    Args:
        tasks: ids of the sources' tasks, as the composition orders them.
        typed: the same as the user wrote them, which is what numbers without names mean; None where
            nobody wrote them one by one (``all``, ``auto``, ``graph:…``): then several numbers
            need names.

    Raises:
        RequestError: a source without a value or a value without a source; names that are unknown,
            or needed.
    """
    field = COMPOSITIONS.get(method).per_source
    text = getattr(settings, field) if field else ""
    if not text:
        return settings
    parts = split_values(text)
    example = ",".join(f"{task}:{value}" for task, (_, value) in zip(tasks, parts, strict=False))
    way_out = f"Say which source gets which, as --set {field}={example}."
    if any(name for name, _ in parts):
        found: dict[str, str] = {}
        for name, value in parts:
            task = _task_of(name, tasks, field)
            if task in found:
                raise RequestError(f"{field}={text!r} names {task} twice.")
            found[task] = value
        lacking = [task for task in tasks if task not in found]
        if lacking:
            raise RequestError(f"{field}={text!r} says nothing of {', '.join(lacking)}.")
    elif len(parts) == 1 and (len(tasks) == 1 or method == "probe"):
        found = dict.fromkeys(tasks, parts[0][1])
    elif typed is None:
        raise RequestError(
            f"{field}={text!r}: the {counted(len(tasks), 'source')} were not named one by one, so "
            f"numbers have no order to follow ({', '.join(tasks)}). {way_out}"
        )
    elif len(parts) != len(tasks) or sorted(typed) != sorted(tasks):
        raise RequestError(
            f"{field}={text!r} are {len(parts)} for {counted(len(tasks), 'source')} "
            f"({', '.join(tasks)}). {way_out}"
        )
    else:
        found = {task: value for task, (_, value) in zip(typed, parts, strict=True)}
    placed = ",".join(f"{task}:{float(found[task]):.12g}" for task in tasks)
    return replace(settings, **{field: placed})


def _task_of(name: str, tasks: Sequence[str], field: str) -> str:
    """The source that ``name`` means: its task's id, or the end of it; a method may follow."""
    wanted = name.partition(":")[0]
    exact = [task for task in tasks if task == wanted]
    found = exact or [task for task in tasks if task.rpartition("/")[2] == wanted]
    if len(found) > 1:
        raise RequestError(f"--set {field}: {name!r} may be {' or '.join(found)}.")
    if not found:
        raise unknown(f"source of --set {field}", name, tasks)
    return found[0]


def told(settings: Any, method: str) -> str:
    """``weights by source: foo 0.7, flip 0.3``; empty for other methods."""
    field = COMPOSITIONS.get(method).per_source
    text = getattr(settings, field) if field else ""
    if not text:
        return ""
    return f"{field} by source: " + ", ".join(" ".join(part) for part in split_values(text))
