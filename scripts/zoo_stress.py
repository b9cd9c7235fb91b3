"""Many processes write, list, compare, remove and check one zoo at once; nothing may get lost.

    python scripts/zoo_stress.py                        8 processes for a minute
    python scripts/zoo_stress.py --seconds 10 --processes 4 --seed 3 --json

Every process picks among: store an entry (from few places, so that several often want the same
one), record a verification, list, load what was listed, remove, ``fsck``, and ``clean``. Allowed to
happen: an entry is gone that another process removed. Not allowed: an entry that is there and not
whole, any other finding of ``fsck``, any exception. In the end the zoo is clean, and what is in it
is what the processes' own records say could be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from zoo_bench import manifest, store, task  # noqa: E402

from mtl.errors import RequestError, ZooError  # noqa: E402
from mtl.zoo import Zoo, open_zoo  # noqa: E402
from mtl.zoo.names import MANIFEST  # noqa: E402

PLACES = 40
"""So few places that processes meet at them."""


class WrongError(Exception):
    """Something that must not happen."""


def one_store(zoo: Zoo, rng: random.Random) -> None:
    number = rng.randrange(PLACES)
    described = manifest(task=task(f"t{number % 5}"), seed=number, runhash=f"{number:016x}")
    # One place, one content: everybody who stores it stores the same.
    try:
        store(zoo, described, float(number * number))
    except ZooError as error:
        if "at once removed by another process" not in str(error):
            raise


def one_verification(zoo: Zoo, rng: random.Random) -> None:
    entries = zoo.entries()
    if not entries:
        return
    entry = rng.choice(entries)
    try:
        zoo.record_verified(entry, {"split": "test", "by": os.getpid()})
    except (ZooError, FileNotFoundError):
        still_whole(zoo, entry.ref)


def one_listing(zoo: Zoo, rng: random.Random) -> None:
    fresh = open_zoo(zoo.root)
    listed = fresh.summaries(task=f"t{rng.randrange(5)}")
    if len({summary.ref for summary in listed}) != len(listed):
        raise WrongError("an entry is listed twice")
    if fresh.problems:
        raise WrongError(f"a listing met {fresh.problems}")


def one_loading(zoo: Zoo, rng: random.Random) -> None:
    entries = zoo.entries()
    if not entries:
        return
    entry = rng.choice(entries)
    try:
        zoo.load_check(entry)
    except ZooError:
        still_whole(zoo, entry.ref)


def still_whole(zoo: Zoo, ref: str) -> None:
    """Something was missing: either the entry is gone, or (stored again) it is whole by now."""
    for _ in range(20):
        try:
            fresh = open_zoo(zoo.root)
            entry = fresh.get(ref)
            fresh.load_check(entry)
            return
        except RequestError:
            return  # gone
        except (ZooError, FileNotFoundError):
            time.sleep(0.05)  # removed and stored again while we looked
    raise WrongError(f"{ref} is there and not whole")


def one_removal(zoo: Zoo, rng: random.Random) -> None:
    entries = zoo.entries()
    if len(entries) < PLACES // 4:
        return
    with contextlib.suppress(RequestError):  # another process was first
        zoo.remove(rng.choice(entries).ref)


def one_fsck(zoo: Zoo, _: random.Random) -> None:
    for problem in open_zoo(zoo.root).fsck(jobs=1):
        raise WrongError(f"fsck found {problem}")


def one_clean(zoo: Zoo, _: random.Random) -> None:
    if removed := zoo.clean():
        raise WrongError(f"nobody was killed, and {removed} was cleaned away")


OPERATIONS = {
    one_store: 8, one_verification: 2, one_listing: 3, one_loading: 4, one_removal: 4, one_fsck: 1,
    one_clean: 1,
}  # fmt: skip


def work(root: str, seed: int, end: float, answers: Any) -> None:
    rng, done, wrong = random.Random(seed), Counter[str](), []
    zoo = open_zoo(root)
    kinds, weights = list(OPERATIONS), list(OPERATIONS.values())
    while time.monotonic() < end and not wrong:
        (operation,) = rng.choices(kinds, weights)
        try:
            operation(zoo, rng)
            done[operation.__name__.removeprefix("one_")] += 1
        except BaseException:
            wrong.append(f"{operation.__name__}: {traceback.format_exc()}")
    answers.put((dict(done), wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        os.environ["MTL_CACHE"] = f"{name}/cache"
        root = f"{name}/zoo"
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()
        end = time.monotonic() + options.seconds
        workers = [
            fork.Process(target=work, args=(root, options.seed * 1000 + n, end, answers))
            for n in range(options.processes)
        ]
        for worker in workers:
            worker.start()
        for _ in workers:
            done, failed = answers.get()
            total.update(done)
            wrong += failed
        for worker in workers:
            worker.join()
        zoo = open_zoo(root)
        problems = zoo.fsck()
        left = [str(p) for p in Path(root).rglob(".tmp-*")]
        entries = zoo.entries()
        whole = all((entry.folder / MANIFEST).is_file() for entry in entries)
        for entry in entries:
            zoo.load_check(entry)
    result = {
        "processes": options.processes,
        "seconds": options.seconds,
        "operations": dict(total),
        "entries left": len(entries),
        "fsck": [str(problem) for problem in problems],
        "temporaries left": left,
        "wrong": wrong,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{options.processes} processes, {options.seconds:g} s: {sum(total.values())} done")
        print(", ".join(f"{count} × {name}" for name, count in sorted(total.items())))
        print(f"{len(entries)} entries left, fsck: {len(problems)} problems, {len(left)} leftovers")
        for text in [*wrong, *result["fsck"], *left]:
            print(text)
    return 0 if whole and not (problems or left or wrong) else 1


if __name__ == "__main__":
    raise SystemExit(main())
