"""What sentences of the demo world say, and when one follows from others.

Worlds. Every kind of thing has members: those that are spoken of (``anna``, ``the dog``) and at
least one more. Each member has exactly one value of each scale. Besides, events have happened: an
event has one agent, verb, object kind, colour and place; any set of events is possible.

Facts. ``Member`` speaks of one member, ``Every`` and ``Some`` of all or at least one member of
some kinds, ``Did`` says that an event of a sort happened or that none did. Sets are bits of an
int (see :mod:`demo_world.lexicon`). Each fact's negation is a fact again, so

* premises contradict a hypothesis if no world satisfies all of them together,
* premises entail a hypothesis if no world satisfies them and the negation of it,

and :func:`satisfiable` decides that exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import NamedTuple

from demo_world.lexicon import FULL


class Member(NamedTuple):
    """The value of ``scale`` of member ``who`` (one of kind ``kind``) is among ``values``."""

    who: str
    kind: int
    scale: str
    values: int


class Every(NamedTuple):
    """Every member of every kind in ``kinds`` has a value of ``scale`` among ``values``."""

    kinds: int
    scale: str
    values: int


class Some(NamedTuple):
    """At least one member of a kind in ``kinds`` has a value of ``scale`` among ``values``."""

    kinds: int
    scale: str
    values: int


class Did(NamedTuple):
    """An event of this sort happened (``happened``), or none of this sort did.

    ``agents``: bits of :data:`demo_world.frames.AGENTS`; the others as in the lexicon.
    """

    agents: int
    verbs: int
    objects: int
    colours: int
    places: int
    happened: bool


Fact = Member | Every | Some | Did


def negation(fact: Fact) -> Fact:
    """The fact that holds in exactly the worlds where ``fact`` does not."""
    if isinstance(fact, Did):
        return fact._replace(happened=not fact.happened)
    others = FULL[fact.scale] & ~fact.values
    if isinstance(fact, Member):
        return fact._replace(values=others)
    if isinstance(fact, Every):
        return Some(fact.kinds, fact.scale, others)
    return Every(fact.kinds, fact.scale, others)


def _bits(mask: int) -> Iterable[int]:
    while mask:
        low = mask & -mask
        yield low
        mask ^= low


def _states_possible(facts: Sequence[Member | Every | Some]) -> bool:
    """Whether some world satisfies facts about one scale.

    A kind's members may take any value that all ``Every`` facts about the kind allow; there must
    be one, as the kind has members. A spoken-of member takes one of those, too. ``Some`` facts
    can each be met by a member of its own, so they do not disturb each other.
    """
    full = FULL[facts[0].scale]
    every = [fact for fact in facts if isinstance(fact, Every)]

    def allowed(kind: int) -> int:
        values = full
        for fact in every:
            if fact.kinds & kind:
                values &= fact.values
        return values

    for fact in every:
        if not all(allowed(kind) for kind in _bits(fact.kinds)):
            return False
    members: dict[str, int] = {}
    for other in facts:
        if isinstance(other, Member):
            members[other.who] = members.get(other.who, allowed(other.kind)) & other.values
        elif isinstance(other, Some) and not any(
            allowed(kind) & other.values for kind in _bits(other.kinds)
        ):
            return False
    return all(members.values())


def _covered(sort: Did, none: Sequence[Did]) -> bool:
    """Whether each event of ``sort`` is of one of the sorts ``none``.

    Each of the five sets is cut into classes that the sorts treat alike; one representative of
    each class is enough.
    """
    parts = []
    for axis in range(5):
        classes = {}
        for bit in _bits(sort[axis]):
            classes[tuple(bool(bit & other[axis]) for other in none)] = bit
        parts.append(list(classes))
    return all(
        any(all(part[index] for part in event) for index in range(len(none)))
        for event in product(*parts)
    )


def satisfiable(facts: Sequence[Fact]) -> bool:
    """Whether some world satisfies all ``facts``."""
    scales: dict[str, list[Member | Every | Some]] = {}
    none = []
    for fact in facts:
        if not isinstance(fact, Did):
            scales.setdefault(fact.scale, []).append(fact)
        elif not fact.happened:
            none.append(fact)
    if not all(_states_possible(group) for group in scales.values()):
        return False
    for fact in facts:
        if isinstance(fact, Did) and fact.happened and none and _covered(fact, none):
            return False
    return True


def relation(premises: Sequence[Fact], hypothesis: Sequence[Fact]) -> str:
    """``entailment``, ``contradiction`` or ``neutral``.

    Both sides are read as conjunctions. Premises that contradict themselves entail everything;
    callers keep them consistent.
    """
    if not satisfiable([*premises, *hypothesis]):
        return "contradiction"
    if all(not satisfiable([*premises, negation(fact)]) for fact in hypothesis):
        return "entailment"
    return "neutral"
