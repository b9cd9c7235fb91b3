"""What is searched over: ``lr=1e-4..1e-2:log``, ``bottleneck=8,24,48``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from mtl.engine.settings import RunSettings
from mtl.errors import RequestError, did_you_mean
from mtl.runs.settings import Trainable, cast_value

FORM = (
    "--over takes KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C (KEY=A|B where a value has a comma "
    "of its own), for one method METHOD:KEY=…; for example lr=1e-4..1e-2:log."
)


@dataclass(frozen=True)
class Dimension:
    """One setting, and the values it may take: a range, or ``choices`` where there are some.

    Attributes:
        key: setting of the method or of the run.
        low, high: bounds, both included.
        log: drawn evenly in the logarithm.
        whole: whole numbers only.
    """

    key: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    def ends(self) -> list[Any]:
        """The values at its edges, or all choices: what is checked before anything is tried."""
        if self.choices:
            return list(self.choices)
        return [int(end) if self.whole else end for end in (self.low, self.high)]

    def distribution(self) -> Any:
        """As Optuna knows it."""
        from optuna.distributions import (
            CategoricalDistribution,
            FloatDistribution,
            IntDistribution,
        )

        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(self.low, self.high, log=self.log)

    def __str__(self) -> str:
        if self.choices:
            return f"{self.key}={'|'.join(map(str, self.choices))}"
        low, high = map(_exactly, (self.low, self.high))
        return f"{self.key}={low}..{high}{':log' if self.log else ''}"


def _exactly(end: float) -> str:
    """As short as it can be: searches are told apart by it."""
    short = f"{end:g}"
    return short if float(short) == end else repr(end).removesuffix(".0")


def read_space(
    items: Sequence[str], method: Trainable, said: str = "--over"
) -> tuple[Dimension, ...]:
    """What ``items`` say of ``method``: those without a method, and its own over them.

    Args:
        said: where, for messages.

    Raises:
        RequestError: no item for it, a wrong form, an unknown setting, values that do not fit.
    """
    found: dict[str, Dimension] = {}
    for own in (False, True):
        for item in items:
            owner, key, text = parts(item)
            if (owner == method.name) if own else not owner:
                found[key] = _dimension(f"{said} {item!r}", key, text, method)
    if not found:
        raise RequestError(f"{said} names no setting of method {method.name!r}. {_form(said)}")
    return tuple(found.values())


def owners(items: Sequence[str]) -> set[str]:
    """The methods that items are for alone. Raises RequestError for a wrong form."""
    return {owner for owner, _, _ in map(parts, items) if owner}


def size(space: Sequence[Dimension]) -> float:
    """How many settings there are: infinite with a range of real numbers."""
    sizes = [
        len(item.choices) or (item.high - item.low + 1 if item.whole else math.inf)
        for item in space
    ]
    return math.prod(sizes)


def parts(item: str) -> tuple[str, str, str]:
    """Method (or ""), key and values of an item. Raises RequestError for a wrong form."""
    name, equals, text = item.partition("=")
    owner, colon, key = name.rpartition(":")
    if not equals or not key.strip() or not text.strip() or (colon and not owner):
        raise RequestError(f"--over {item!r}: {FORM}")
    return owner.strip(), key.strip(), text.strip()


def _form(said: str) -> str:
    """How it is written on a command line; a file says it in its own way."""
    return FORM if said.startswith("--over") else ""


def _dimension(said: str, key: str, text: str, method: Trainable) -> Dimension:
    kind = setting_types(method).get(key)
    if kind is None:
        known = sorted(setting_types(method))
        raise RequestError(
            f"{said}: method {method.name!r} and the run have no setting {key!r}."
            f"{did_you_mean(key, known)} A setting of one method of several is METHOD:{key}=…."
        )
    if ".." not in text:
        values = text.split("|") if "|" in text else text.split(",")
        choices = tuple(_value(said, key, value.strip(), kind) for value in values)
        if len(set(choices)) != len(choices):
            raise RequestError(f"{said} names a value twice.")
        return Dimension(key, choices=choices)
    ends, _, form = text.partition(":")
    if form not in {"", "log"} or kind not in {int, float, int | str, float | str}:
        raise RequestError(f"{said}: {key} takes no such range. {_form(said)}")
    numeric = int if kind in {int, int | str} else float
    low, high = (_value(said, key, end.strip(), numeric) for end in ends.split("..", 1))
    if not low < high or (form == "log" and low <= 0):
        raise RequestError(f"{said}: the range must go up{', from above 0' * bool(form)}.")
    return Dimension(key, float(low), float(high), form == "log", numeric is int)


def _value(said: str, key: str, text: str, kind: Any) -> Any:
    import yaml

    try:
        return cast_value(key, yaml.safe_load(text) if text else "", kind, "the search")
    except (RequestError, yaml.YAMLError) as error:
        raise RequestError(f"{said}: {error}") from error


def setting_types(method: Trainable) -> Mapping[str, Any]:
    """Setting → its type, of the method and the run; ``run.`` and ``method.`` forms, too."""
    found: dict[str, Any] = {}
    twice: set[str] = set()
    for prefix, owner in (("run", RunSettings), ("method", method.settings)):
        hints = get_type_hints(owner)
        for item in fields(owner):
            if item.name in found:
                twice.add(item.name)
            found[item.name] = found[f"{prefix}.{item.name}"] = hints[item.name]
    return {key: kind for key, kind in found.items() if key not in twice}
