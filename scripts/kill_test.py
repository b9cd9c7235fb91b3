"""SIGKILL both stages and a joint run on the demo suite, then compare with an unbroken run.

    python scripts/kill_test.py                  21 kills, some ten minutes on two cores
    python scripts/kill_test.py --kills 40 --seed 1 --commands joint --json

Each kill starts from the same zoo and fresh run folders. Three places, evenly over the three:

- ``checkpoint``: inside the writing of a resume point, at a random step of it (the temporary file
  opened, half of it written, whole but not yet renamed, renamed), after a random number of points;
- ``zoo``: inside the storing of the entry, spread evenly over everything it does to the disk;
- ``time``: at a random moment of the process's life, imports included.

The killed process is told where to die and sends itself SIGKILL there; no handler of ours runs.
After the kill the zoo holds whole entries only; after the rerun, the digest of the unbroken run.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "train": ["--suite", "demo", "--task", "entail", "--seeds", "0"],
    "compose": ["--suite", "demo", "--target", "entail", "--seeds", "0"],
    "joint": [
        *["--suite", "demo", "--method", "propetl-m", "--seeds", "0"],
        *["--set", "max_steps=60", "eval_every=20"],
    ],
}


# ------------------------------------------------------------------ in the process that dies


def die_at(place: str, number: int, count_file: str) -> None:
    """Watch what this process does to the disk; SIGKILL it at event ``number`` of ``place``.

    ``number`` 0 kills nothing: the events are counted into ``count_file``.
    """
    seen = {"events": 0, "halves": 0}
    stored = {"done": False}

    def about(event: str, arguments: tuple[Any, ...]) -> bool:
        paths = [os.fsdecode(item) for item in arguments[:2] if isinstance(item, str | bytes)]
        if place == "checkpoint":
            return any("point.safetensors" in path for path in paths)
        if stored["done"]:  # everything after the rename into place, until the command ends
            return bool(paths)
        inside = any("/.tmp-seed" in path for path in paths)
        stored["done"] = event == "os.rename" and inside and "/.tmp-" not in paths[-1]
        return inside

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in {"open", "os.mkdir", "os.rename", "os.chmod", "os.remove", "os.rmdir"} and (
            about(event, arguments)
        ):
            seen["events"] += 1
            if seen["events"] == number:
                os.kill(os.getpid(), signal.SIGKILL)

    if not number:
        atexit.register(lambda: Path(count_file).write_text(str(seen["events"])))
    if place == "half":
        _half_written(number)
    else:
        sys.addaudithook(hook)


def _half_written(number: int) -> None:
    """Die with half of the ``number``-th resume point in its temporary file."""
    make, opened, seen = tempfile.mkstemp, os.fdopen, {"points": 0, "now": False}

    def mkstemp(*args: Any, **kwargs: Any) -> Any:
        seen["now"] = "point.safetensors" in (kwargs.get("prefix") or "")
        seen["points"] += seen["now"]
        return make(*args, **kwargs)

    def fdopen(handle: int, *args: Any, **kwargs: Any) -> Any:
        stream = opened(handle, *args, **kwargs)
        if not (seen["now"] and seen["points"] == number):
            return stream

        class Half:
            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, data: bytes) -> None:
                stream.write(data[: len(data) // 2])
                stream.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        return Half()

    tempfile.mkstemp, os.fdopen = mkstemp, fdopen  # type: ignore[assignment]


def child(argv: list[str]) -> None:
    place, number, count_file, command, *line = argv
    if place != "time":
        die_at(place, int(number), count_file)
    from mtl.cli.main import entry

    sys.argv = ["mtl", command, *line]
    entry()


# ------------------------------------------------------------------ in the process that watches


def start(folder: Path, command: str, place: str = "time", number: int = 0) -> Any:
    line = [sys.executable, __file__, "--child", place, str(number), str(folder / "count")]
    environment = {
        "MTL_ZOO": str(folder / "zoo"),
        "MTL_RUNS": str(folder / "runs"),
        "MTL_CACHE": str(folder.parent / "cache"),
        "MTL_RESUME_SECONDS": "0",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.Popen(
        [*line, command, *COMMANDS[command], "--json"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(worker: Any) -> dict[str, Any]:
    out, err = worker.communicate()
    if worker.returncode:
        raise SystemExit(f"the command ended with {worker.returncode}:\n{out}{err[-3000:]}")
    return json.loads(out.splitlines()[-1])["runs"][0]


def digests(folder: Path) -> dict[str, str]:
    """Reference → digest of every entry, each checked byte by byte; anything damaged ends all."""
    from mtl.zoo import open_zoo

    zoo = open_zoo(folder / "zoo")
    found = zoo.entries()
    if zoo.problems:
        raise SystemExit(f"damaged entries after a kill: {zoo.problems}")
    for entry in found:
        zoo.load_check(entry)
    return {entry.ref: entry.digest for entry in found}


def fresh(base: Path, command: str) -> Path:
    """A folder with a copy of the zoo: the target's own source is what ``train`` has to make."""
    folder = base / "work"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base / "sources", folder / "zoo")
    if command == "train":
        for path in (folder / "zoo").glob("*/demo/entail"):
            shutil.rmtree(path)
    return folder


def prepare(base: Path) -> None:
    print("training the six sources once", file=sys.stderr)
    environment = {
        **os.environ,
        "MTL_ZOO": str(base / "sources"),
        "MTL_RUNS": str(base / "runs"),
        "MTL_CACHE": str(base / "cache"),
        "HF_HUB_OFFLINE": "1",
        "MTL_QUIET": "1",
    }
    line = [sys.executable, "-m", "mtl.train", "--suite", "demo", "--seeds", "0"]
    subprocess.run(line, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)


def unbroken(base: Path, command: str) -> dict[str, Any]:
    """Digest, seconds and number of disk events of a run that nobody kills."""
    found: dict[str, Any] = {}
    for place in ("checkpoint", "zoo"):
        folder = fresh(base, command)
        before = time.monotonic()
        row = finish(start(folder, command, place))
        found["seconds"] = time.monotonic() - before
        found[place] = int((folder / "count").read_text())
        if found.setdefault("digest", row["digest"]) != row["digest"]:
            raise SystemExit(f"two unbroken runs of {command} have different digests")
        found["ref"] = row["ref"]
    return found


def plan(
    kills: int, rng: random.Random, whole: dict[str, dict[str, Any]]
) -> list[tuple[str, str, float]]:
    """(command, place, when) of every kill: 3 in 10 in checkpoints, 3 in the zoo, 4 by time."""
    each = max(3, round(kills / len(whole)))
    share = max(1, round(0.3 * each))
    chosen: list[tuple[str, str, float]] = []
    for command, facts in whole.items():
        points = facts["checkpoint"] // 5
        chosen.append((command, "half", rng.randint(1, max(points // 2, 1))))
        for _ in range(share - 1):
            chosen.append((command, "checkpoint", rng.randint(1, facts["checkpoint"])))
        for turn in range(share):  # the middle of equal parts of the whole write
            chosen.append((command, "zoo", 1 + int((turn + 0.5) / share * (facts["zoo"] - 1))))
        for _ in range(each - 2 * share):
            chosen.append((command, "time", rng.uniform(0.1, 0.95) * facts["seconds"]))
    return chosen


def kill_once(
    base: Path, command: str, place: str, when: float, whole: dict[str, Any]
) -> dict[str, Any]:
    while True:
        folder = fresh(base, command)
        before = digests(folder)
        worker = start(folder, command, place, 0 if place == "time" else int(when))
        if place == "time":
            try:
                worker.wait(timeout=when)
            except subprocess.TimeoutExpired:
                worker.kill()
        out, err = worker.communicate()
        if worker.returncode == -signal.SIGKILL:
            break
        if place != "time" or worker.returncode:
            raise SystemExit(f"{command} did not die at {place} {when}:\n{out}{err}")
        when *= 0.8  # it was faster than the unbroken run: earlier
    after = digests(folder)
    stored = after.pop(whole["ref"], None)
    if after != before or stored not in (None, whole["digest"]):
        raise SystemExit(f"the kill at {place} {when} changed the zoo: {before} → {after}")
    left = list((folder / "zoo").rglob(".tmp-*"))
    points = list((folder / "runs").rglob(".tmp-point*"))
    resumed = any((folder / "runs").rglob("point.safetensors"))
    row = finish(start(folder, command))
    return {
        "command": command,
        "place": place,
        "when": round(when, 2),
        "stored before": stored is not None,
        "left in zoo": len(left),
        "left in run": len(points),
        "resume point": resumed,
        "rerun": row["status"],
        "same digest": row["digest"] == whole["digest"] and row["ref"] == whole["ref"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument(
        "--commands", nargs="+", choices=list(COMMANDS), default=list(COMMANDS), help="only these"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true", help="one line of JSON on standard output")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        prepare(base)
        whole = {command: unbroken(base, command) for command in options.commands}
        chosen = plan(options.kills, random.Random(options.seed), whole)
        for number, (command, place, when) in enumerate(chosen, start=1):
            rows.append(kill_once(base, command, place, when, whole[command]))
            print(f"[{number}/{len(chosen)}] {rows[-1]}", file=sys.stderr)
    same = sum(row["same digest"] for row in rows)
    if options.json:
        print(json.dumps({"kills": rows, "unbroken": whole, "same": same}))
    else:
        from tabulate import tabulate

        print(tabulate(rows, headers="keys"))
        print(f"\n{len(rows)} kills, {same} reruns with the digest of the unbroken run.")
    return 0 if same == len(rows) else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        raise SystemExit(main())
