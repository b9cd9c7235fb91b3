"""A mirror of SuperGLUE, HumSet and SQuAD in miniature: their real columns, our own words."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

NAMES = ["cat", "dog", "bird", "teacher", "friend"]
VERBS = ["sees", "likes", "finds", "brings"]
THINGS = ["tree", "house", "river", "apple", "stone", "door"]
SECTORS = ["Shelter", "Health", "WASH", "Education"]


def write_mirror(root: Path, *, train: int = 24, rest: int = 8) -> Path:
    """Write every data set below ``root`` as the Hub lays it out; returns ``root``."""
    for config, make in SUPERGLUE.items():
        for split, rows in (("train", train), ("validation", rest)):
            folder = root / "aps" / "super_glue" / config
            write(folder, split, [make(random.Random(f"{split}{row}"), row) for row in range(rows)])
    for split, rows in (("train", train), ("validation", rest), ("test", rest)):
        humset = [excerpt(random.Random(f"h{split}{row}"), row) for row in range(rows)]
        if split == "test":  # a label that no other split has
            humset[0]["sectors"] = ["Nutrition"]
        write(root / "nlp-thedeep" / "humset" / "1.0.0", split, humset)
    for split, rows in (("train", train), ("validation", rest)):
        questions = [question(random.Random(f"q{split}{row}"), row) for row in range(rows)]
        write(root / "rajpurkar" / "squad" / "plain_text", split, questions)
    return root


def write(folder: Path, split: str, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows])
    parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def sentence(draw: random.Random) -> str:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    return f"the {name} {draw.choice(VERBS)} the old {thing} today ."


def boolq(draw: random.Random, row: int) -> dict[str, Any]:
    return {"question": "is the dog in the house", "passage": sentence(draw), **end(row)}


def cb(draw: random.Random, row: int) -> dict[str, Any]:
    return {"premise": sentence(draw), "hypothesis": sentence(draw), **end(row, 3)}


def copa(draw: random.Random, row: int) -> dict[str, Any]:
    return {
        "premise": "the " + draw.choice(NAMES) + " is happy .",
        "choice1": sentence(draw),
        "choice2": "no " + draw.choice(THINGS),
        "question": ["cause", "effect"][row // 2 % 2],
        **end(row),
    }


def wic(draw: random.Random, row: int) -> dict[str, Any]:
    places = dict.fromkeys(("start1", "start2", "end1", "end2"), 0)
    texts = {"sentence1": sentence(draw), "sentence2": sentence(draw)}
    return {"word": draw.choice(THINGS), **texts, **places, **end(row)}


def wsc(draw: random.Random, row: int) -> dict[str, Any]:
    name = draw.choice(NAMES)
    return {
        "text": f"the {name} sees  the tree and  it is\tgreen .",
        "span1_index": 1,
        "span2_index": 6,
        "span1_text": f"the {name}",
        "span2_text": "it",
        **end(row),
    }


def multirc(draw: random.Random, row: int) -> dict[str, Any]:
    return {
        "paragraph": " ".join(sentence(random.Random(row // 4)) for _ in range(2)),
        "question": "is it the cat",
        "answer": draw.choice(NAMES),
        "idx": {"paragraph": row // 4, "question": row // 2, "answer": row},
        "label": row % 2,
    }


def record(draw: random.Random, row: int) -> dict[str, Any]:
    passage = random.Random(row // 2)
    entities = ["The Cat", "Old Dog", "Small Bird"]
    return {
        "passage": f"{sentence(passage)} {sentence(passage)}\n@highlight\n{sentence(passage)}",
        "query": "today @placeholder " + draw.choice(VERBS) + " the door",
        "entities": entities,
        "entity_spans": {"text": entities, "start": [0, 4, 9], "end": [1, 5, 10]},
        "answers": [draw.choice(entities)],
        "idx": {"passage": row // 2, "query": row},
    }


def end(row: int, classes: int = 2) -> dict[str, int]:
    return {"label": row % classes, "idx": row}


SUPERGLUE = {
    "boolq": boolq,
    "cb": cb,
    "copa": copa,
    "multirc": multirc,
    "record": record,
    "wic": wic,
    "wsc": wsc,
}


def excerpt(draw: random.Random, row: int) -> dict[str, Any]:
    chosen = draw.sample(SECTORS, draw.randint(0, 2))
    labels = dict.fromkeys(("sectors", "pillars_1d", "pillars_2d"), chosen)
    finer = {name: [f"{item}->a" for item in chosen] for name in ("subpillars_1d", "subpillars_2d")}
    about = {"entry_id": str(row), "lead_id": "1", "project_id": "2", "lang": "en", "n_tokens": 7}
    return {**about, "excerpt": sentence(draw), **labels, **finer}


def question(draw: random.Random, row: int) -> dict[str, Any]:
    thing = draw.choice(THINGS)
    before = " ".join(sentence(draw) for _ in range(draw.randint(0, 9)))
    context = f"{before} the friend finds a red {thing} in the river .".strip()
    begin = context.rindex(f"red {thing}")
    return {
        "id": f"q{row}",
        "title": "things",
        "context": context,
        "question": "  the friend finds a door in the river ?",
        "answers": {"text": [f"red {thing}", thing], "answer_start": [begin, begin + 4]},
    }
