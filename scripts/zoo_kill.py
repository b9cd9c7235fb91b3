"""SIGKILL processes that write, take in and remove entries; look at what they leave behind.

    python scripts/zoo_kill.py                  200 kills
    python scripts/zoo_kill.py --kills 50 --seed 1 --json

A process stores entries, takes in foreign ones (copied file by file into a staged folder, checked
at the door, committed: what a pull does once the bytes are there) and removes some, and keeps a
journal: a line before and a line after each. Half of the kills come at a random moment, half at a
random one of the process's own steps on the disk (open, mkdir, rename, remove, …), so that every
step is met. After each kill: what the journal says is stored is there, whole, with its digest; what
it says is removed is not; what was under way is there whole or not at all; ``fsck`` finds nothing
but leftovers of the killed process, and ``clean`` removes exactly those.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from zoo_bench import manifest, store, task  # noqa: E402

from mtl.zoo import Entry, Zoo, open_zoo  # noqa: E402
from mtl.zoo.intake import admit  # noqa: E402
from mtl.zoo.manifest import read_manifest  # noqa: E402

KEPT = 25
"""Entries above which the process rather removes than stores."""
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


# ------------------------------------------------------------------ in the process that dies


def work(root: Path, foreign: Path, first: int, seed: int, journal: int, event: int) -> NoReturn:
    """Operations without end; a line into ``journal`` before and after each."""
    rng, zoo, number = random.Random(seed), open_zoo(root), first

    def say(*words: str) -> None:
        os.write(journal, (" ".join(words) + "\n").encode())

    if event:
        die_at(event, root)
    while True:
        entries = zoo.entries()
        number += 1
        turn = rng.random()
        if entries and turn < (0.7 if len(entries) > KEPT else 0.4):
            entry = rng.choice(entries)
            say("begin", "remove", entry.ref)
            zoo.remove(entry.ref)
            say("removed", entry.ref)
        elif turn < 0.8:
            described = manifest(task=task(f"t{number % 4}"), seed=number, runhash=f"{number:016x}")
            say("begin", "store", f"seed{number}-")
            entry = store(zoo, described, rng.uniform(-1e6, 1e6))
            say("stored", entry.ref, entry.digest)
        else:
            say("begin", "store", "foreign")
            entry = take_in(zoo, rng.choice(sorted(foreign.iterdir())))
            say("stored", entry.ref, entry.digest)


def take_in(zoo: Zoo, folder: Path) -> Entry:
    """A foreign folder into the zoo, as a pull does it when the bytes are there."""
    recorded = read_manifest(folder / "manifest.json", folder.name)
    described = recorded.manifest
    ref = zoo.location(
        "tiny-abababab",
        described.suite,
        described.task["name"],
        described.method,
        described.seed,
        described.runhash,
    )
    with zoo.stage(ref) as staged:
        for path in sorted(folder.iterdir()):
            shutil.copyfile(path, staged / path.name)
        admit(staged, folder.name)
        return zoo.commit(staged, ref, described)


def die_at(event: int, root: Path) -> None:
    """SIGKILL this process at its ``event``-th step on the disk below ``root``."""
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if name in EVENTS and any(
            isinstance(item, str | bytes | Path) and os.fsdecode(item).startswith(str(root))
            for item in arguments[:2]
        ):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


# ------------------------------------------------------------------ in the process that watches


def kill_once(
    root: Path, foreign: Path, first: int, rng: random.Random, by_event: bool
) -> tuple[list[list[str]], str]:
    """Start a process, kill it; its journal, and what it was doing."""
    out, into = os.pipe()
    event = rng.randrange(1, 150) if by_event else 0
    seed = rng.randrange(1 << 30)
    child = os.fork()
    if not child:
        os.close(out)
        try:
            work(root, foreign, first, seed, into, event)
        except BaseException as error:
            os.write(into, f"failed {error!r}\n".encode())
        os._exit(1)
    os.close(into)
    if not by_event:
        time.sleep(rng.uniform(0.0, 0.6))
        os.kill(child, signal.SIGKILL)
    with os.fdopen(out, "rb") as stream:
        lines = [line.split() for line in stream.read().decode().splitlines()]
    _, status = os.waitpid(child, 0)
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the process ended by itself: {lines[-3:]}")
    doing = lines[-1][1] if lines and lines[-1][0] == "begin" else "between"
    return lines, doing


def check(root: Path, known: dict[str, str], lines: list[list[str]]) -> tuple[int, int]:
    """Compare the zoo with the journal; returns how many leftovers were found and cleaned.

    Args:
        known: reference → digest before; brought up to date.
    """
    sure = dict(known)
    for word, *rest in lines:
        if word == "stored":
            sure[rest[0]] = rest[1]
        elif word == "removed":
            sure.pop(rest[0], None)
    under_way = lines[-1][1:] if lines and lines[-1][0] == "begin" else []
    zoo = open_zoo(root)
    found = {entry.ref: entry for entry in zoo.entries()}
    if zoo.problems:
        raise SystemExit(f"after a kill: {zoo.problems}")
    for entry in found.values():
        zoo.load_check(entry)
    lost = sorted(sure.keys() - found.keys() - set(under_way[1:]))
    changed = [ref for ref in sure if ref in found and found[ref].digest != sure[ref]]
    new = sorted(found.keys() - sure.keys())
    expected = under_way[:1] == ["store"] and len(new) <= 1
    if lost or changed or (new and not expected):
        raise SystemExit(f"lost {lost}, changed {changed}, from nowhere {new}; {lines[-3:]}")
    problems = zoo.fsck()
    if wrong := [problem for problem in problems if problem.kind != "leftover"]:
        raise SystemExit(f"fsck after a kill: {wrong}")
    cleaned = zoo.clean()
    if (problems and not cleaned) or zoo.fsck() or list(root.rglob(".tmp-*")):
        raise SystemExit(f"clean left something: {problems}, {cleaned}, {zoo.fsck()}")
    known.clear()
    known.update({ref: entry.digest for ref, entry in found.items()})
    return len(problems), len(cleaned)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    options = parser.parse_args()
    rng, during, left, done = random.Random(options.seed), Counter[str](), 0, Counter[str]()
    known: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        os.environ["MTL_CACHE"] = f"{name}/cache"
        root, foreign = Path(name) / "zoo", Path(name) / "foreign"
        source = open_zoo(Path(name) / "source")
        for number in range(12):
            entry = store(
                source, manifest(seed=900_000 + number, runhash=f"f{number:015x}"), number
            )
            shutil.copytree(entry.folder, foreign / f"entry{number}")
        for turn in range(options.kills):
            lines, doing = kill_once(root, foreign, turn * 1000, rng, by_event=turn % 2 == 1)
            done.update(word for word, *_ in lines if word != "begin")
            during[doing] += 1
            left += check(root, known, lines)[0]
            if sys.stderr.isatty():
                print(f"\r{turn + 1}/{options.kills}", end="", file=sys.stderr)
    result = {
        "kills": options.kills,
        "while": dict(during),
        "finished between kills": dict(done),
        "leftovers cleaned": left,
        "entries in the end": len(known),
        "lost": 0,
    }
    if options.json:
        print(json.dumps(result))
    else:
        for what, value in result.items():
            print(f"{what}: {value}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
