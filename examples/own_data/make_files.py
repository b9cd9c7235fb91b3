"""Five small data files as people have them: python examples/own_data/make_files.py FOLDER

Written from word lists by a seeded generator, so they are the same wherever they are made.
"""

from __future__ import annotations

import csv
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

VERBS = ["open", "close", "send", "find", "check", "move", "clean", "paint", "sell", "copy"]
THINGS = ["door", "letter", "garden", "boat", "picture", "lamp"]
OPENINGS = ["please {}", "can you {}", "i want to {}", "help me to {}", "{} now", "time to {}"]
TOPICS = {
    "sport": ["the team won the game", "she runs every day"],
    "money": ["the price went up", "he paid the bank"],
    "food": ["the soup was hot", "they ate bread"],
    "weather": ["it rained all night", "the sun was bright"],
}
MOODS = {
    "angry": ["this is terrible", "i am very angry", "never again"],
    "calm": ["all is quiet", "a slow day", "nothing to report"],
    "happy": ["this is wonderful", "what a good day", "i love it"],
    "sad": ["i miss you", "a sad story", "we lost it all"],
}
WORDS = {1: "terrible", 2: "bad", 3: "fine", 4: "good", 5: "wonderful"}


def write(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def make(folder: Path) -> None:
    """Write all files into ``folder``; ``new.csv`` holds texts without labels."""
    rng = random.Random(7)
    folder.mkdir(parents=True, exist_ok=True)
    # 60 classes
    intents = [
        (f"{opening.format(f'{verb} the {thing}')}", f"{verb}_{thing}")
        for verb in VERBS
        for thing in THINGS
        for opening in OPENINGS
    ]
    rng.shuffle(intents)
    write(folder / "intents.csv", ["text", "intent"], intents)
    write(folder / "new.csv", ["text"], [[text.replace("the", "a")] for text, _ in intents[:40]])
    # a value: the mean of two marks
    marks = [(rng.randint(1, 5), rng.randint(1, 5), name) for name in THINGS for _ in range(40)]
    write(
        folder / "ratings.csv",
        ["text", "stars"],
        [
            (f"the {n} was {WORDS[a]} and {WORDS[b]} no {i}", (a + b) / 2)
            for i, (a, b, n) in enumerate(marks)
        ],
    )
    # sets of labels
    topics = [sorted(rng.sample(list(TOPICS), rng.randint(1, 2))) for _ in range(240)]
    write(
        folder / "topics.csv",
        ["text", "topics"],
        [
            (
                " and ".join([*(rng.choice(TOPICS[name]) for name in names), f"on day {i}"]),
                ";".join(names),
            )
            for i, names in enumerate(topics)
        ],
    )
    # sorted by class, as an export of a database often is
    write(
        folder / "moods.csv",
        ["text", "mood"],
        [
            (f"{rng.choice(texts)} says number {i}", mood)
            for mood, texts in MOODS.items()
            for i in range(60)
        ],
    )
    # 30 users of eight rows each, who write alike
    visits = []
    for user in range(30):
        habit = rng.choice(["well then", "so", "hm", "listen", "look"])
        for visit in range(8):
            mark = rng.choice([1, 5])
            visits.append(
                (
                    f"{habit} day {8 * user + visit} was {WORDS[mark]}",
                    f"u{user:02d}",
                    "again" if mark == 5 else "never",
                )
            )
    rng.shuffle(visits)
    write(folder / "visits.csv", ["text", "user", "back"], visits)


if __name__ == "__main__":
    make(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
