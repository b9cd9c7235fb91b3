"""Random frames, and frames that differ from a given one in a few parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from demo_world.frames import Event, Frame, State, Trait, Who, pick
from demo_world.lexicon import (
    ANY_OBJECT,
    COLOURS,
    LEAF_NOUNS,
    NAMES,
    NOUNS,
    OBJECTS_FOR,
    PERSON,
    PLACES,
    SCALE_WORDS,
    SCALES_OF,
    VERBS,
    Concept,
)

_PEOPLE = [c for c in NOUNS if c.group == "person"]
_LEAF_PEOPLE = [c for c in LEAF_NOUNS if c.group == "person"]
_VERBS_FOR = {
    "person": VERBS[:0],
    **{
        group: [verb for verb in VERBS if any(n.group == group for n in OBJECTS_FOR[verb.group])]
        for group in ("animal", "food", "thing")
    },
}


def _near(concept: Concept, options: Sequence[Concept]) -> list[Concept]:
    """Other concepts of ``options`` that overlap with ``concept``: its hypernyms and hyponyms."""
    return [c for c in options if c is not concept and c.meaning & concept.meaning]


def _related(rng: Random, concept: Concept, options: Sequence[Concept]) -> Concept:
    """A hypernym or hyponym of ``concept`` (mostly), else any other of ``options``."""
    near = _near(concept, options)
    return pick(rng, near) if near and rng.random() < 0.6 else pick(rng, options)


# --------------------------------------------------------------------------- new frames


def random_who(rng: Random, *, events: bool = False) -> Who:
    """Somebody, or (not for events) something."""
    draw = rng.random()
    if draw < 0.5:
        return Who("name", pick(rng, NAMES))
    if draw < 0.75:
        return Who("the", pick(rng, _LEAF_PEOPLE if events else LEAF_NOUNS))
    if events:
        return Who("some", PERSON if rng.random() < 0.4 else pick(rng, _PEOPLE))
    noun = PERSON if rng.random() < 0.15 else pick(rng, NOUNS)
    return Who("every" if draw < 0.87 else "some", noun)


def random_trait(rng: Random, who: Who, avoid: Sequence[str] = ()) -> Trait:
    """A trait on a scale that fits ``who`` and is not in ``avoid``."""
    scale = pick(rng, [scale for scale in SCALES_OF[who.group] if scale not in avoid])
    return Trait(pick(rng, SCALE_WORDS[scale]), rng.random() < 0.65)


def random_state(rng: Random, *, traits: int = 1) -> State:
    """A state; ``traits`` 2 makes it speak of one member."""
    who = random_who(rng)
    while traits > 1 and who.sort in ("every", "some"):
        who = random_who(rng)
    first = random_trait(rng, who)
    if traits == 1:
        return State(who, (first,))
    return State(who, (first, random_trait(rng, who, (first.concept.group,))))


def random_event(rng: Random) -> Event:
    """An event that happened, or did not."""
    verb = pick(rng, VERBS)
    thing = pick(rng, OBJECTS_FOR[verb.group])
    if rng.random() < 0.06:
        thing = ANY_OBJECT
    coloured = thing.group == "thing" and thing is not ANY_OBJECT and rng.random() < 0.3
    return Event(
        random_who(rng, events=True),
        verb,
        thing,
        pick(rng, COLOURS) if coloured else None,
        pick(rng, SCALE_WORDS["place"]) if rng.random() < 0.4 else None,
        rng.random() < 0.6,
    )


def random_frame(rng: Random, *, traits: int = 1) -> Frame:
    """A state or an event."""
    return random_state(rng, traits=traits) if rng.random() < 0.8 else random_event(rng)


# --------------------------------------------------------------------------- changed frames


def _other_who(rng: Random, who: Who, *, events: bool) -> Who:
    people = who.group == "person"
    draw = rng.random()
    if draw < 0.25:  # somebody or something else of the class, spoken of singly
        if people and rng.random() < 0.6:
            return Who("name", pick(rng, NAMES))
        options = _LEAF_PEOPLE if people else [c for c in LEAF_NOUNS if c.group == who.group]
        return Who("the", pick(rng, options))
    # one of the kinds that it is among, or that are among it
    nouns = [c for c in NOUNS if c.group == who.group and c.meaning & who.kinds]
    if draw < 0.5:
        names = [name for name in NAMES if name.kind & who.kinds]
        leaves = [c for c in nouns if c.leaf]
        if names and rng.random() < 0.6:
            return Who("name", pick(rng, names))
        if leaves:
            return Who("the", pick(rng, leaves))
    sort = "some" if events or draw < 0.75 else "every"
    return Who(sort, pick(rng, nouns))


def _vary_state(rng: Random, state: State) -> State:
    index = int(rng.random() * len(state.traits))
    trait = state.traits[index]
    draw = rng.random()
    if draw < 0.35:
        who = _other_who(rng, state.who, events=False)
        traits = state.traits if who.sort in ("name", "the") else state.traits[:1]
        return State(who, traits)
    if draw < 0.65:
        scale = trait.concept.group
        changed = Trait(_related(rng, trait.concept, SCALE_WORDS[scale]), trait.positive)
    elif draw < 0.9:
        changed = Trait(trait.concept, not trait.positive)
    else:
        avoid = [other.concept.group for other in state.traits]
        changed = random_trait(rng, state.who, avoid)
    traits = (*state.traits[:index], changed, *state.traits[index + 1 :])
    return State(state.who, traits)


def _vary_event(rng: Random, event: Event) -> Event:
    part = pick(rng, ("who", "who", "verb", "thing", "thing", "place", "colour", "flip", "flip"))
    if part == "who":
        return event._replace(who=_other_who(rng, event.who, events=True))
    if part == "verb":
        options = _VERBS_FOR[event.thing.group]
        if event.thing is ANY_OBJECT:
            options = [verb for verb in VERBS if verb.group == "object"]
        return event._replace(verb=_related(rng, event.verb, options))
    if part == "thing":
        options = OBJECTS_FOR[event.verb.group]
        thing = ANY_OBJECT if rng.random() < 0.06 else _related(rng, event.thing, options)
        if thing is ANY_OBJECT and event.verb.group != "object":
            thing = pick(rng, options)
        keep = thing.group == "thing" and thing is not ANY_OBJECT
        return event._replace(thing=thing, colour=event.colour if keep else None)
    if part == "place":
        if event.place and rng.random() < 0.5:
            return event._replace(place=None)
        places = SCALE_WORDS["place"]
        place = _related(rng, event.place, places) if event.place else pick(rng, PLACES)
        return event._replace(place=place)
    if part == "colour" and event.thing.group == "thing" and event.thing is not ANY_OBJECT:
        if event.colour and rng.random() < 0.5:
            return event._replace(colour=None)
        colour = _related(rng, event.colour, COLOURS) if event.colour else pick(rng, COLOURS)
        return event._replace(colour=colour)
    return event._replace(happened=not event.happened)


def vary(rng: Random, frame: Frame, changes: int) -> Frame:
    """``frame`` with ``changes`` of its parts drawn anew, mostly for related ones."""
    for _ in range(changes):
        frame = _vary_state(rng, frame) if isinstance(frame, State) else _vary_event(rng, frame)
    return frame


Sampler = Callable[[Random], Frame]
