"""The text that the demo encoder is pretrained on, and its vocabulary."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from demo_world.frames import say, sentence
from demo_world.meaning import relation
from demo_world.scenes import random_frame, vary
from demo_world.suite import SPLITS, TASKS, _review, generate, text_of


def world_text(count: int, seed: int) -> Iterator[tuple[str, str | None]]:
    """``count`` lines of text: a sentence, or two about the same scene.

    Of two sentences, the second mostly says what the first says (in other words, or less of it),
    as texts do; sometimes it says something else. No line carries a label.
    """
    rng = Random(f"text/{seed}")
    for _ in range(count):
        draw = rng.random()
        if draw < 0.12:
            yield sentence(_review(rng)[0]), None
            continue
        first = random_frame(rng)
        said = sentence(say(first, rng))
        if draw < 0.25:
            yield said, None
            continue
        second = first
        if draw > 0.55:
            second = vary(rng, first, 1)
            for _ in range(8):
                if draw > 0.9 or relation(first.facts(), second.facts()) == "entailment":
                    break
                second = vary(rng, first, 1)
        other = sentence(say(second, rng))
        yield (said, other) if rng.random() < 0.5 else (other, said)


def vocabulary() -> list[str]:
    """Every token of the world, sorted: lower-case words, comma and full stop."""
    words = set()
    for first, second in world_text(60_000, seed=0):
        words |= set(tokens(first)) | set(tokens(second or ""))
    for task in TASKS:
        for split in SPLITS:
            for row in generate(task, split):
                for text in text_of(row):
                    words |= set(tokens(text))
    return sorted(words)


def tokens(text: str) -> list[str]:
    """Words, commas and full stops of a text, in lower case."""
    return re.findall(r"[a-z]+|[.,]", text.lower())
