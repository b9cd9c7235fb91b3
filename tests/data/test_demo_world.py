"""The demo world: the same everywhere, labels that follow from meaning, nothing leaked."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from demo_world import SIZES, TASKS, generate, vocabulary, world_text
from demo_world.meaning import Did, Every, Member, Some, negation, relation
from demo_world.suite import text_of
from demo_world.text import tokens

from mtl.data.origins import demo_files, read_parquet
from mtl.errors import RequestError

SPLITS = ("train", "dev", "test")
SCRIPTS = Path(__file__).parents[2] / "scripts"


DIGEST = "4a8f3c308ebe59937f6c02d76bcb49722506c05f4d40023df7e495e48a9cb9d8"
"""Of all rows. A change of it makes every stored demo result one on other data."""


def everything(order: Sequence[str] = TASKS) -> str:
    rows = {f"{task}/{split}": generate(task, split) for task in order for split in SPLITS}
    return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()


def test_the_rows_are_the_published_ones() -> None:
    assert everything() == DIGEST


def test_the_package_ships_exactly_the_rows_that_the_generator_makes() -> None:
    for task in TASKS:
        for split, path in demo_files(task).items():
            assert read_parquet([path]).to_pylist() == generate(task, split), (task, split)


@pytest.mark.parametrize("order", [TASKS[::-1], (*TASKS[2:], *TASKS[:2])], ids=lambda o: o[0])
def test_the_same_in_another_process_with_another_hash_seed_and_order(order: list[str]) -> None:
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]; "
        "import test_demo_world as t; print(t.everything(sys.argv[3:]))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, os.path.dirname(__file__), str(SCRIPTS), *order],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "12345"},
    )
    assert found.stdout.strip() == DIGEST


@pytest.mark.parametrize("task", TASKS)
def test_sizes_and_balance(task: str) -> None:
    for split in SPLITS:
        rows = generate(task, split)
        assert len(rows) == SIZES[task][split]
        if task == "similarity":
            assert all(0 <= row["label"] <= 5 for row in rows)
            continue
        counts = Counter(row["label"] for row in rows)
        assert min(counts.values()) > 0.8 * len(rows) / len(counts)
    assert SIZES[task]["test"] >= 1000
    assert SIZES["entail"]["train"] <= 200


def test_no_text_is_in_two_splits_nor_in_entails_test() -> None:
    for task in TASKS:
        texts = [text_of(row) for split in SPLITS for row in generate(task, split)]
        assert len(texts) == len(set(texts))
    tested = {text_of(row) for row in generate("entail", "test")}
    for task in TASKS:
        assert not tested & {text_of(row) for row in generate(task, "train")}


def test_the_hypothesis_alone_says_little() -> None:
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    for source, target, chance in (("nli", "nli", 1 / 3), ("entail", "entail", 1 / 2)):
        train, test = generate(source, "train"), generate(target, "test")
        model = make_pipeline(CountVectorizer(), LogisticRegression(max_iter=300))
        model.fit([row["hypothesis"] for row in train], [row["label"] for row in train])
        right = model.score([row["hypothesis"] for row in test], [row["label"] for row in test])
        assert right < chance + 0.06


def test_meaning() -> None:
    # size has the values tiny, small, -, big, huge: bits 1, 2, 4, 8, 16
    big, huge, small = 8 | 16, 16, 1 | 2
    dog = Member("the dog", 1, "size", huge)
    assert relation([dog], [Member("the dog", 1, "size", big)]) == "entailment"
    assert relation([Member("the dog", 1, "size", big)], [dog]) == "neutral"
    assert relation([dog], [Member("the dog", 1, "size", small)]) == "contradiction"
    assert relation([dog], [Some(1 | 2, "size", big)]) == "entailment"
    assert relation([dog], [Every(1, "size", big)]) == "neutral"
    assert relation([Every(1 | 2, "size", big)], [Every(1, "size", big)]) == "entailment"
    assert relation([Every(1, "size", big)], [dog]) == "neutral"
    assert relation([dog], [negation(dog)]) == "contradiction"
    bought = Did(1, 1, 1, 1, 1, happened=True)
    assert relation([bought], [Did(3, 3, 3, 3, 3, happened=True)]) == "entailment"
    assert relation([bought], [Did(3, 3, 3, 3, 3, happened=False)]) == "contradiction"
    assert relation([Did(3, 3, 1, 1, 1, happened=False)], [bought]) == "contradiction"
    assert relation([bought], [Did(2, 1, 1, 1, 1, happened=True)]) == "neutral"


def test_labels_say_what_sentences_mean() -> None:
    """Rows whose relation can be read off their words."""
    checked = 0
    for row in generate("nli", "train"):
        premise, hypothesis = row["premise"].rstrip("."), row["hypothesis"].rstrip(".")
        if hypothesis == premise:
            assert row["label"] == "entailment"
        elif hypothesis == premise.replace(" is ", " is not "):
            assert row["label"] == "contradiction"
        else:
            continue
        checked += 1
    assert checked > 50
    for row in generate("entail", "test"):
        if row["premise"] == row["hypothesis"]:
            assert row["label"] == "entailment"


def test_unknown_names() -> None:
    with pytest.raises(RequestError, match="entail"):
        generate("entailment", "train")
    with pytest.raises(RequestError, match="train"):
        generate("nli", "training")


def test_text_is_repeatable_and_its_words_are_known() -> None:
    first = list(world_text(500, seed=3))
    assert first == list(world_text(500, seed=3))
    assert first != list(world_text(500, seed=4))
    assert sum(second is not None for _, second in first) > 200
    known = set(vocabulary())
    for line, second in first:
        assert set(tokens(line)) | set(tokens(second or "")) <= known
