"""Exact and near duplicates against comparing all pairs, and that they scale."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest

from mtl.checks.overlap import exact_matches, near_matches, normalise, similarity_of

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


def sentences(rng: random.Random, rows: int, words: int) -> list[tuple[str, ...]]:
    known = ["".join(rng.choices(ALPHABET, k=rng.randint(2, 9))) for _ in range(3000)]
    often = [1 / (place + 1) for place in range(len(known))]
    return [(" ".join(rng.choices(known, often, k=words)),) for _ in range(rows)]


def test_normalise() -> None:
    assert normalise("  The CAT,\tsees—a_bird!\n") == "the cat sees a bird"
    assert normalise("ﬁne ＡＢ Straße") == "fine ab strasse"


def test_similarity_by_hand() -> None:
    # "abcdefgh" has abcde bcdef cdefg defgh, "abcdefxy" shares the first two of its four
    assert similarity_of("abcdefgh", "abcdefxy") == pytest.approx(2 / 6)
    assert similarity_of("A cat.", "a  CAT") == 1.0
    assert similarity_of("abc", "abd") == 0.0


def test_exact_matches_are_of_whole_rows() -> None:
    others = [("a", "b"), ("c", "d"), ("a", "b")]
    found = exact_matches([("a", "x"), ("c", "d"), ("a", "b")], others)
    assert [(match.row, match.other) for match in found] == [(1, 1), (2, 0)]


def test_near_matches_are_those_of_all_pairs() -> None:
    """Planted changes of every size: what is found is exactly what is similar enough."""
    rng = random.Random(1)
    others = sentences(rng, 400, 18)
    rows = sentences(rng, 60, 18)
    for place in range(0, 60, 2):
        words = others[rng.randrange(400)][0].split()
        for _ in range(place // 15):
            words[rng.randrange(len(words))] = "changed"
        rows[place] = (" ".join(words).upper() + "!",)
    best = [max(similarity_of(row[0], other[0]) for other in others) for row in rows]
    assert sum(value >= 0.8 for value in best) >= 12
    assert sum(value < 0.8 for value in best) >= 20
    found = near_matches(rows, others, 0.8)
    assert [match.row for match in found] == [row for row, value in enumerate(best) if value >= 0.8]
    for match in found:
        assert match.similarity == pytest.approx(best[match.row])


def test_all_texts_of_a_pair_must_be_near() -> None:
    long = "every teacher in this town finds an old stone near the quiet river today"
    others = [(long, "some friend likes a small green apple very much")]
    assert near_matches(
        [(long + "!", "some friend liked a small green apple very much")], others, 0.7
    )
    assert not near_matches([(long, "no dog was ever seen in that house before")], others, 0.7)
    # the same texts in each other's place are another pair
    assert not near_matches([(others[0][1], long)], others, 0.5)


def test_short_texts_are_left_to_exact_matches() -> None:
    assert not near_matches([("yes it is",)], [("Yes, it is",)], 0.8)
    assert near_matches(
        [("yes it is, said the old man",)], [("Yes, it is! Said the old man",)], 0.8
    )
    assert near_matches([], [("a",)], 0.8) == near_matches([("a",)], [], 0.8) == []
    assert not near_matches(
        [("yes it is, said the old man",)], [("Yes, it is! Said the old man",)], 0
    )


def test_many_rows_that_share_most_of_their_text() -> None:
    """A template makes bands that hold everything; the work per row stays bounded."""
    others = [
        (f"the total of invoice number {n} is due at the end of the month",) for n in range(5000)
    ]
    started = time.perf_counter()
    found = near_matches(others[:1000], others, 0.8)
    assert len(found) == 1000
    assert time.perf_counter() - started < 20


def test_time_and_memory_grow_with_the_rows_only() -> None:
    rng = random.Random(2)
    others = sentences(rng, 20_000, 12)
    rows = sentences(rng, 2_000, 12)
    rows[7] = (others[19_000][0] + " indeed",)
    started = time.perf_counter()
    tracemalloc.start()
    found = near_matches(rows, others, 0.8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (7, 19_000) in {(match.row, match.other) for match in found}
    assert time.perf_counter() - started < 30  # all pairs would be 40 million comparisons
    assert peak < 300e6
