"""What is to be said (frames), the facts a frame states, and the English for it.

A frame is chosen by concept, not by word: the words are drawn when it is said, so that the same
frame said twice gives two paraphrases.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from demo_world.lexicon import (
    ADVERBS,
    ANY_OBJECT,
    FULL,
    KIND_BITS,
    LEAF_NOUNS,
    NAMES,
    PERSON,
    Concept,
    Name,
)
from demo_world.meaning import Did, Every, Fact, Member, Some

T = TypeVar("T")


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of ``items``; only ``rng.random`` is used, whose sequence Python guarantees."""
    return items[int(rng.random() * len(items))]


# --------------------------------------------------------------------------- agents of events

AGENTS: dict[tuple[str, str], int] = {}
"""(sort, word) of every possible agent → its bit: names, "the doctor", another doctor."""
for _name in NAMES:
    AGENTS["name", _name.word] = 1 << len(AGENTS)
for _concept in LEAF_NOUNS:
    if _concept.group == "person":
        for _sort in ("the", "other"):
            AGENTS[_sort, _concept.words[0][0]] = 1 << len(AGENTS)

_AGENTS_OF_KIND: dict[int, int] = {}
for (_sort, _word), _bit in AGENTS.items():
    _kind = (
        next(name.kind for name in NAMES if name.word == _word)
        if _sort == "name"
        else KIND_BITS[_word]
    )
    _AGENTS_OF_KIND[_kind] = _AGENTS_OF_KIND.get(_kind, 0) | _bit


def agents_of(kinds: int) -> int:
    """All possible agents of the given person kinds."""
    return sum(agents for kind, agents in _AGENTS_OF_KIND.items() if kind & kinds)


ALL_COLOURS = FULL["colour"]
ALL_PLACES = FULL["place"]

# --------------------------------------------------------------------------- frames


class Who(NamedTuple):
    """Who or what is spoken of: ``sort`` is ``name``, ``the``, ``every`` or ``some``."""

    sort: str
    noun: Name | Concept

    @property
    def kinds(self) -> int:
        """Kinds covered."""
        return self.noun.kind if isinstance(self.noun, Name) else self.noun.meaning

    @property
    def group(self) -> str:
        """Class of the noun."""
        return "person" if isinstance(self.noun, Name) else self.noun.group

    @property
    def key(self) -> str:
        """One spelling per member spoken of: ``anna``, ``the dog`` (also for "the hound")."""
        if isinstance(self.noun, Name):
            return self.noun.word
        return f"{self.sort} {self.noun.words[0][0]}"


class Trait(NamedTuple):
    """A value on a scale, or its absence."""

    concept: Concept
    positive: bool

    @property
    def values(self) -> int:
        """Values that remain possible."""
        meaning = self.concept.meaning
        return meaning if self.positive else FULL[self.concept.group] & ~meaning


class State(NamedTuple):
    """``who`` has each of ``traits``; two traits only for a single member."""

    who: Who
    traits: tuple[Trait, ...]

    def facts(self) -> list[Fact]:
        """One fact per trait."""
        who = self.who
        facts: list[Fact] = []
        for trait in self.traits:
            scale = trait.concept.group
            if who.sort == "every":
                facts.append(Every(who.kinds, scale, trait.values))
            elif who.sort == "some":
                facts.append(Some(who.kinds, scale, trait.values))
            else:
                facts.append(Member(who.key, who.kinds, scale, trait.values))
        return facts


class Event(NamedTuple):
    """``who`` (name, the, some) did it to some ``thing``; or, not ``happened``, nobody of them."""

    who: Who
    verb: Concept
    thing: Concept
    colour: Concept | None
    place: Concept | None
    happened: bool

    def facts(self) -> list[Fact]:
        """The one fact it states."""
        who = self.who
        if who.sort == "some":
            agents = agents_of(who.kinds)
        else:
            agents = AGENTS[
                who.sort, who.noun.word if isinstance(who.noun, Name) else who.noun.words[0][0]
            ]
        return [
            Did(
                agents,
                self.verb.meaning,
                self.thing.meaning,
                self.colour.meaning if self.colour else ALL_COLOURS,
                self.place.meaning if self.place else ALL_PLACES,
                self.happened,
            )
        ]


Frame = State | Event

# --------------------------------------------------------------------------- saying them

_PROPER = {name.word for name in NAMES} | {"i"}


def sentence(words: Sequence[str]) -> str:
    """Words → "Anna bought a hat." with capitals and full stop."""
    text = " ".join(word.capitalize() if word in _PROPER else word for word in words)
    return text[0].upper() + text[1:].replace(" ,", ",") + "."


def article(word: str) -> str:
    """``a`` or ``an``."""
    return "an" if word[0] in "aeiou" else "a"


def say(frame: Frame, rng: Random) -> list[str]:
    """The words of a sentence for ``frame``; synonyms and word order are drawn from ``rng``."""
    return _say_state(frame, rng) if isinstance(frame, State) else _say_event(frame, rng)


def _words(concept: Concept, rng: Random, form: int = 0) -> str:
    return pick(rng, concept.words)[form]


def place_words(concept: Concept, rng: Random) -> list[str]:
    """``in the park``, or ``outdoors``."""
    word = _words(concept, rng)
    return [word] if word in ADVERBS else ["in", "the", word]


def trait_words(concept: Concept, rng: Random) -> list[str]:
    """What stands after "is"."""
    return place_words(concept, rng) if concept.group == "place" else [_words(concept, rng)]


def _say_state(state: State, rng: Random) -> list[str]:
    who, traits = state.who, list(state.traits)
    if who.sort in ("every", "some"):
        return _say_quantified(who, traits[0], rng)
    subject = [who.noun.word] if isinstance(who.noun, Name) else ["the", _words(who.noun, rng)]
    if len(traits) == 1:
        trait = traits[0]
        said = trait_words(trait.concept, rng)
        if not trait.positive and rng.random() < 0.15:
            return ["it", "is", "not", "true", "that", *subject, "is", *said]
        return [*subject, "is", *([] if trait.positive else ["not"]), *said]
    if rng.random() < 0.5:
        traits.reverse()
    first, second = (
        [*([] if trait.positive else ["not"]), *trait_words(trait.concept, rng)] for trait in traits
    )
    link = "and" if traits[0].positive == traits[1].positive else "but"
    return [*subject, "is", *first, link, *second]


def _say_quantified(who: Who, trait: Trait, rng: Random) -> list[str]:
    assert isinstance(who.noun, Concept)
    said = trait_words(trait.concept, rng)
    singular, plural = pick(rng, who.noun.words)
    pronoun = who.noun is PERSON
    if who.sort == "every" and trait.positive:
        if pronoun:
            return [pick(rng, ("everybody", "everyone")), "is", *said]
        return pick(rng, (["every", singular, "is"], ["all", plural, "are"])) + said
    if who.sort == "every":
        if pronoun:
            return [pick(rng, ("nobody", "noone")), "is", *said]
        return pick(rng, (["no", singular, "is"], ["no", plural, "are"])) + said
    if trait.positive:
        if pronoun:
            return [pick(rng, ("somebody", "someone")), "is", *said]
        ways = (["some", plural, "are"], [article(singular), singular, "is"])
        return pick(rng, ways) + said
    if pronoun:
        return ["not", pick(rng, ("everybody", "everyone")), "is", *said]
    refusals = (
        ["some", plural, "are", "not"],
        ["not", "every", singular, "is"],
        ["not", "all", plural, "are"],
    )
    return pick(rng, refusals) + said


def _say_event(event: Event, rng: Random) -> list[str]:
    who = event.who
    where = place_words(event.place, rng) if event.place else []
    base, past, participle = pick(rng, event.verb.words)
    colour = [_words(event.colour, rng)] if event.colour else []
    passive = rng.random() < 0.25
    anything = event.thing is ANY_OBJECT and not colour
    noun = [*colour, _words(event.thing, rng)]

    def thing(negative: bool) -> list[str]:
        if anything:
            return ["anything" if negative else "something"]
        return [pick(rng, ("any", article(noun[0]))) if negative else article(noun[0]), *noun]

    if isinstance(who.noun, Name):
        subject, none = [who.noun.word], None
    elif who.sort == "the":
        subject, none = ["the", _words(who.noun, rng)], None
    elif who.noun is PERSON:
        subject = [pick(rng, ("somebody", "someone"))]
        none = [pick(rng, ("nobody", "noone"))]
    else:
        word = _words(who.noun, rng)
        subject, none = [article(word), word], ["no", word]
    if event.happened:
        body = (
            [*thing(False), "was", participle, "by", *subject]
            if passive
            else [*subject, past, *thing(False)]
        )
    elif none is not None:
        body = [*none, past, *thing(True)]
    elif passive:
        body = ["nothing"] if anything else ["no", *noun]
        body += ["was", participle, "by", *subject]
    elif rng.random() < 0.3:
        body = [*subject, "never", past, *thing(True)]
    else:
        body = [*subject, "did", "not", base, *thing(True)]
    if where and where[0] == "in" and rng.random() < 0.2:
        return [*where, ",", *body]
    return [*body, *where]
