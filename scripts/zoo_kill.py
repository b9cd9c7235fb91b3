"""SIGKILL processes that write, pull and remove entries; look at what they leave behind.

    python scripts/zoo_kill.py                  200 kills
    python scripts/zoo_kill.py --kills 50 --seed 1 --json

A process stores entries, pulls some from a Hub on loopback (the one of the tests, through the real
client) and removes some, and keeps a journal: a line before and a line after each. Half of the
kills come at a random moment, half at a random one of the process's own steps in the zoo (open,
mkdir, rename, remove, …). After each kill: what the journal says is stored is there, whole, with
its digest; what it says is removed is not; what was under way is there whole or not at all;
``fsck`` finds nothing but leftovers of the killed process, and ``clean`` removes exactly those.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from zoo_bench import manifest, store, task  # noqa: E402

from mtl.zoo import open_zoo  # noqa: E402

REPO = "ada/zoo"

KEPT = 25
"""Entries above which the process rather removes than stores."""
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree"}


# ------------------------------------------------------------------ in the process that dies


def work(
    root: Path, remote: Sequence[str], first: int, seed: int, journal: int, event: int
) -> NoReturn:
    """Operations without end; a line into ``journal`` before and after each."""
    from mtl.hub import parse_repo, pull

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
        elif turn < 0.65:
            described = manifest(task=task(f"t{number % 4}"), seed=number, runhash=f"{number:016x}")
            say("begin", "store", f"seed{number}-")
            entry = store(zoo, described, rng.uniform(-1e6, 1e6))
            say("stored", entry.ref, entry.digest)
        else:
            ref = rng.choice(remote)
            say("begin", "pull", ref)
            pull(zoo, parse_repo(REPO), [ref])
            entry = zoo.get(ref)
            say("pulled", entry.ref, entry.digest)


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


# ------------------------------------------------------------------ the Hub


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[list[str]]:
    """A Hub in a process of its own, with a repository of entries; gives their references."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    server = fork.Process(target=serve, args=(there, folder / "source"), daemon=True)
    server.start()
    try:
        url, refs = here.recv()
        point_at(url, folder)
        import mtl.hub.pulling  # once, and not after every fork  # noqa: F401

        yield refs
    finally:
        here.send("end")
        server.join()


def serve(pipe: Any, folder: Path) -> None:
    """Start the Hub, push the entries of a zoo to it, answer until told to end."""
    from loopback_hub import serving

    with serving() as found:
        point_at(found.url, folder)
        from mtl.hub import parse_repo, push

        source = open_zoo(folder)
        for number in range(12):
            described = manifest(
                seed=900_000 + number,
                runhash=f"f{number:015x}",
                verified={"split": "test", "n": 4, "max_logit_difference": 0.0},
            )
            store(source, described, 2.0**number)
        push(source, [], parse_repo(REPO))
        # The server prints a traceback for every client that was killed while it spoke.
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        pipe.send((found.url, [entry.ref for entry in source.entries()]))
        pipe.recv()


def point_at(url: str, folder: Path) -> None:
    """Before ``huggingface_hub`` is imported in this process: which Hub, which cache, who."""
    os.environ.update(
        {
            "HF_ENDPOINT": url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_CACHE": str(folder / "hf"),
            "HF_HOME": str(folder / "home"),
            "HF_TOKEN": "hf_ada",
            "MTL_CACHE": str(folder / "cache"),
        }
    )


# ------------------------------------------------------------------ in the process that watches


def kill_once(
    root: Path, remote: Sequence[str], first: int, rng: random.Random, by_event: bool
) -> tuple[list[list[str]], str]:
    """Start a process, kill it; its journal, and what it was doing."""
    out, into = os.pipe()
    event = rng.randrange(1, 150) if by_event else 0
    seed = rng.randrange(1 << 30)
    child = os.fork()
    if not child:
        os.close(out)
        try:
            work(root, remote, first, seed, into, event)
        except BaseException as error:
            os.write(into, f"failed {error!r}\n".encode())
        os._exit(1)
    os.close(into)
    if not by_event:
        time.sleep(rng.uniform(0.0, 1.0))
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
        if word in {"stored", "pulled"}:
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
    expected = under_way[:1] in (["store"], ["pull"]) and len(new) <= 1
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
    with tempfile.TemporaryDirectory() as name, hub(Path(name)) as remote:
        root = Path(name) / "zoo"
        for turn in range(options.kills):
            lines, doing = kill_once(root, remote, turn * 1000, rng, by_event=turn % 2 == 1)
            done.update(word for word, *_ in lines if word != "begin")
            during[doing] += 1
            left += check(root, known, lines)[0]
            if (turn + 1) % 20 == 0:
                print(f"{turn + 1}/{options.kills}: {dict(during)}", file=sys.stderr, flush=True)
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
