"""Time and memory of ``mtl.tasks check``'s search for near duplicates.

    python benchmarks/leakage.py --train 100000 --test 10000

Texts are random sentences over 20,000 words of Zipf's frequencies; 1 test row in 20 is a training
row as it is, 1 in 20 one with words changed. The recall is over those whose similarity is at least
the threshold, computed exactly.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import time

from mtl.checks.overlap import exact_matches, near_matches, similarity_of


def sentences(rng: random.Random, rows: int, words: int) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (place + 1) for place in range(len(known))]
    pool = rng.choices(known, weights, k=rows * words)
    return [" ".join(pool[row * words : (row + 1) * words]) for row in range(rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=100_000)
    parser.add_argument("--test", type=int, default=10_000)
    parser.add_argument("--words", type=int, nargs=2, default=(20, 10), help="of the two texts")
    parser.add_argument("--near", type=float, default=0.8)
    options = parser.parse_args()
    rng = random.Random(0)
    first, second = options.words

    def pairs(rows: int) -> list[tuple[str, ...]]:
        return list(zip(sentences(rng, rows, first), sentences(rng, rows, second), strict=True))

    train, test = pairs(options.train), pairs(options.test)
    planted = {}
    for row in range(0, options.test, 10):
        source = rng.randrange(options.train)
        text, other = train[source]
        if row % 20:
            words = text.split()
            for _ in range(rng.randint(1, 2)):
                words[rng.randrange(len(words))] = "changed"
            text, other = " ".join(words).upper(), other + "!"
        test[row] = (text, other)
        planted[row] = min(map(similarity_of, test[row], train[source]))
    near = {row for row, value in planted.items() if value >= options.near}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    exact = exact_matches(test, train)
    hashed = time.perf_counter()
    found = near_matches(test, train, options.near)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows = {match.row for match in found}
    print(
        json.dumps(
            {
                "train": options.train,
                "test": options.test,
                "words": list(options.words),
                "exact": len(exact),
                "exact_seconds": round(hashed - started, 2),
                "near": len(found),
                "near_seconds": round(ended - hashed, 2),
                "recall": round(len(rows & near) / len(near), 4),
                "not_planted": len(rows - {*planted}),
                "added_mib": round((peak - before) / 1024),
                "peak_mib": round(peak / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
