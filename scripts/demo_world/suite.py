"""The six tasks of the demo suite: what a row is, how many there are, which may not coincide."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from random import Random
from typing import Any

from demo_world.frames import Frame, State, pick, say, sentence
from demo_world.lexicon import (
    BLAME,
    DISLIKE,
    DISLIKED,
    LIKE,
    LIKED,
    NAMES,
    PRAISE,
    REVIEWED,
)
from demo_world.meaning import relation
from demo_world.scenes import random_frame, vary
from mtl.errors import unknown

SIZES: dict[str, dict[str, int]] = {
    "nli": {"train": 8000, "dev": 300, "test": 1200},
    "entail": {"train": 100, "dev": 300, "test": 2000},
    "paraphrase": {"train": 3000, "dev": 300, "test": 1000},
    "similarity": {"train": 3000, "dev": 300, "test": 1000},
    "sentiment": {"train": 1000, "dev": 300, "test": 1000},
    "acceptability": {"train": 3000, "dev": 300, "test": 1000},
}
"""Rows per task and split. ``entail`` is the low-resource target."""

TASKS = tuple(SIZES)
SPLITS = ("train", "dev", "test")
SEED = "a small world"

Row = dict[str, Any]
Fresh = Callable[[Row], bool]
"""Whether a row's text was not there before; it counts as there from then on."""


def generate(task: str, split: str) -> list[Row]:
    """The rows of a split.

    Pairs have ``premise``/``hypothesis`` (nli, entail) or ``sentence1``/``sentence2``; single
    sentences ``sentence``; all have ``label``: a name, or a float from 0 to 5 (similarity).
    No text (pair) stands in two splits of a task, and none of entail's test rows stands in the
    training rows of any task.

    Raises:
        RequestError: no such task or split.
    """
    if task not in SIZES:
        raise unknown("demo task", task, TASKS)
    if split not in SPLITS:
        raise unknown("demo split", split, SPLITS)
    return [dict(row) for row in _rows(task, split)]


@lru_cache(maxsize=32)
def _rows(task: str, split: str) -> tuple[Row, ...]:
    taken = {text_of(row) for other in SPLITS[: SPLITS.index(split)] for row in _rows(task, other)}
    if task == "entail" and split == "test":
        for other in TASKS:
            taken |= {text_of(row) for row in _rows(other, "train")}

    def fresh(row: Row) -> bool:
        text = text_of(row)
        if text in taken:
            return False
        taken.add(text)
        return True

    rows = _ROWS[task](Random(f"{SEED}/{task}/{split}"), fresh)
    return tuple(islice(rows, SIZES[task][split]))


def text_of(row: Row) -> tuple[str, ...]:
    """The texts of a row, without its label."""
    return tuple(value for key, value in row.items() if key != "label")


def _balanced(
    rng: Random, labels: tuple[str, ...], candidates: Iterator[tuple[Any, str, Row]]
) -> Iterator[Row]:
    """Rows so that every kind of hypothesis (the key) has every label equally often.

    What a hypothesis looks like (its subject, its polarity) then says nothing about the label.
    Candidates wait until their key has one of each label; these leave together.
    """
    waiting: dict[Any, dict[str, list[Row]]] = {}
    for key, label, row in candidates:
        found = waiting.setdefault(key, {name: [] for name in labels})
        if len(found[label]) < 4:
            found[label].append(row)
        if all(found.values()):
            together = [rows.pop() for rows in found.values()]
            while together:
                yield together.pop(int(rng.random() * len(together)))


def _shape(frame: Frame) -> tuple[Any, ...]:
    """What can be seen of a frame without its premise."""
    if isinstance(frame, State):
        trait = frame.traits[0]
        return (frame.who.sort, frame.who.group, trait.concept.group, trait.positive)
    return (
        "event",
        frame.who.sort,
        frame.happened,
        frame.verb.leaf,
        frame.thing.leaf,
        frame.colour is None,
        frame.place is None,
    )


def _pairs(rng: Random) -> Iterator[tuple[Frame, Frame, str]]:
    """Frames that have something to do with each other, and how the second follows."""
    while True:
        first = random_frame(rng)
        second = vary(rng, first, 1 if rng.random() < 0.65 else 2)
        yield first, second, relation(first.facts(), second.facts())


def _nli(rng: Random, fresh: Fresh) -> Iterator[Row]:
    labels = ("entailment", "neutral", "contradiction")
    return _balanced(rng, labels, _judged(rng, fresh, lambda found: found))


def _entail(rng: Random, fresh: Fresh) -> Iterator[Row]:
    def two_way(found: str) -> str:
        return found if found == "entailment" else "not_entailment"

    return _balanced(rng, ("entailment", "not_entailment"), _judged(rng, fresh, two_way))


def _judged(
    rng: Random, fresh: Fresh, name: Callable[[str], str]
) -> Iterator[tuple[Any, str, Row]]:
    for first, second, found in _pairs(rng):
        row = {"premise": sentence(say(first, rng)), "hypothesis": sentence(say(second, rng))}
        if fresh(row):
            yield _shape(second), name(found), {**row, "label": name(found)}


def _paraphrase(rng: Random, fresh: Fresh) -> Iterator[Row]:
    def candidates() -> Iterator[tuple[Any, str, Row]]:
        while True:
            first = random_frame(rng)
            second = first if rng.random() < 0.5 else vary(rng, first, 1)
            same = (
                relation(first.facts(), second.facts()) == "entailment"
                and relation(second.facts(), first.facts()) == "entailment"
            )
            label = "paraphrase" if same else "different"
            texts = sentence(say(first, rng)), sentence(say(second, rng))
            row = {"sentence1": texts[0], "sentence2": texts[1], "label": label}
            # the same words twice are too easy
            if texts[0] != texts[1] and fresh(row):
                yield _shape(second), label, row

    return _balanced(rng, ("paraphrase", "different"), candidates())


def _parts(frame: Frame) -> tuple[tuple[str, int], ...]:
    """What a frame is made of, as sets of leaves by role."""
    if isinstance(frame, State):
        return (
            ("who", frame.who.kinds),
            ("how", 1 << ("name", "the", "every", "some").index(frame.who.sort)),
            *((trait.concept.group, trait.values) for trait in frame.traits),
        )
    return (
        ("who", frame.who.kinds),
        ("happened", 1 + frame.happened),
        ("verb", frame.verb.meaning),
        ("thing", frame.thing.meaning),
        *((("colour", frame.colour.meaning),) if frame.colour else ()),
        *((("place", frame.place.meaning),) if frame.place else ()),
    )


def alike(first: Frame, second: Frame) -> float:
    """From 0 (nothing in common) to 5 (the same): mean overlap of the parts, by role.

    Two parts in the same role overlap by |A ∩ B| / |A ∪ B| of their leaves.
    """
    one, two = dict(_parts(first)), dict(_parts(second))
    total = 0.0
    for role in {**one, **two}:
        a, b = one.get(role, 0), two.get(role, 0)
        total += (a & b).bit_count() / max(1, (a | b).bit_count()) if a and b else 0.0
    return round(5 * total / len({**one, **two}), 1)


def _similarity(rng: Random, fresh: Fresh) -> Iterator[Row]:
    while True:
        first = random_frame(rng)
        changes = int(rng.random() * 5)
        second = vary(rng, first, changes) if changes < 4 else random_frame(rng)
        row = {
            "sentence1": sentence(say(first, rng)),
            "sentence2": sentence(say(second, rng)),
            "label": alike(first, second),
        }
        if fresh(row):
            yield row


def _review(rng: Random) -> tuple[list[str], bool]:
    """The words of an opinion, and whether it is a good one."""
    good = rng.random() < 0.5
    negated = rng.random() < 0.35
    thing = ["the", pick(rng, REVIEWED)]
    if rng.random() < 0.6:
        word = pick(rng, PRAISE if good != negated else BLAME)
        return [*thing, "was", *(["not"] if negated else []), word], good
    who = pick(rng, NAMES).word if rng.random() < 0.7 else "i"
    if negated:
        return [who, "did", "not", pick(rng, DISLIKE if good else LIKE), *thing], good
    return [who, pick(rng, LIKED if good else DISLIKED), *thing], good


def _sentiment(rng: Random, fresh: Fresh) -> Iterator[Row]:
    while True:
        words, good = _review(rng)
        if rng.random() < 0.5:
            # a second opinion of the same mind
            more, same = _review(rng)
            while same != good:
                more, same = _review(rng)
            words = [*words, "and", *more]
        row = {"sentence": sentence(words), "label": "positive" if good else "negative"}
        if fresh(row):
            yield row


def _corrupt(rng: Random, words: list[str]) -> list[str]:
    """The words with one mistake of order, number or completeness."""
    words = list(words)
    draw = rng.random()
    place = int(rng.random() * (len(words) - 1))
    if draw < 0.4:
        words[place], words[place + 1] = words[place + 1], words[place]
    elif draw < 0.65:
        del words[place]
    elif draw < 0.85:
        words.insert(place, words[place])
    else:
        swaps = {"is": "are", "are": "is", "a": "an", "an": "a", "was": "were", "did": "do"}
        spots = [index for index, word in enumerate(words) if word in swaps]
        if not spots:
            words[place], words[place + 1] = words[place + 1], words[place]
        else:
            spot = pick(rng, spots)
            words[spot] = swaps[words[spot]]
    return words


def _acceptability(rng: Random, fresh: Fresh) -> Iterator[Row]:
    while True:
        words = say(random_frame(rng), rng)
        good = rng.random() < 0.5
        said = words if good else _corrupt(rng, words)
        row = {"sentence": sentence(said), "label": "acceptable" if good else "unacceptable"}
        if (good or said != words) and fresh(row):
            yield row


_ROWS: dict[str, Callable[[Random, Fresh], Iterator[Row]]] = {
    "nli": _nli,
    "entail": _entail,
    "paraphrase": _paraphrase,
    "similarity": _similarity,
    "sentiment": _sentiment,
    "acceptability": _acceptability,
}
