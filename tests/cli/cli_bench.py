"""A tiny suite of three tasks and the command lines as functions, for the tests of this room."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
ANIMALS = ["cat", "dog", "bird"]
THINGS = ["tree", "house", "river", "apple", "stone", "door"]
TASKS = ["mini/same", "mini/mood", "mini/shared"]
TARGET = "mini/same"


@dataclass(frozen=True)
class Said:
    """What a command line answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON on standard output."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def mtl(command: str, *argv: object) -> Said:
    """``mtl COMMAND ARGV…`` in this process; a traceback fails the test."""
    from mtl.cli.main import dispatch

    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = dispatch(command, [str(item) for item in argv])
        except SystemExit as leave:  # how option parsers end
            code = leave.code if isinstance(leave.code, int) else 1
    return Said(code, out.getvalue(), err.getvalue())


def process(command: str, *argv: object, **environment: str) -> subprocess.Popen[str]:
    """``python -m mtl.COMMAND ARGV…`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"mtl.{command}", *map(str, argv)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(said: Said, *parts: str, code: int = 2) -> None:
    """One message on standard error that holds all ``parts``; nothing else anywhere."""
    assert said.code == code, said
    assert said.out == ""
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ")
    assert said.err.count("error: ") == 1
    for part in parts:
        assert part in said.err, (part, said.err)


def entries(zoo: Path) -> list[Path]:
    """Folders of entries, and of nothing else: temporaries would show."""
    return sorted(path.parent for path in zoo.rglob("manifest.json")) if zoo.is_dir() else []


def leftovers(zoo: Path) -> list[Path]:
    """What a writer left behind that is no entry."""
    from mtl.zoo.staging import is_temporary

    return [path for path in zoo.rglob("*") if is_temporary(path.name)]


def digests(zoo: Path) -> dict[str, str]:
    from mtl.zoo import open_zoo

    return {entry.ref: entry.digest for entry in open_zoo(zoo).entries()}


def manifest(zoo: Path, ref: str) -> Any:
    return json.loads((zoo / ref / "manifest.json").read_text())


def source(zoo: Path, task: str) -> Path:
    """The folder of the source of ``mini/<task>``."""
    (found,) = [path for path in entries(zoo) if f"/{task}/pfeiffer/" in str(path)]
    return found


def rows_of(suite: Path, name: str, split: str = "test") -> list[dict[str, Any]]:
    """The rows of a task as its file has them."""
    path = suite / f"{name}_{split}.jsonl"
    if path.is_file():
        return [json.loads(line) for line in path.read_text().splitlines()]
    head, *lines = (suite / f"{name}_{split}.csv").read_text().splitlines()
    return [dict(zip(head.split(","), line.split(","), strict=True)) for line in lines]


def composed(zoo: Path, method: str, *more: str) -> Any:
    """The composition of ``TARGET`` by ``method``, after a few steps."""
    from mtl.zoo import open_zoo

    line = ["--target", TARGET, "--max-steps", "6", "--method", method, *more]
    said = mtl("compose", *line)
    assert said.code == 0, said
    (entry,) = open_zoo(zoo).entries(kind="composition", method=method)
    return entry


def _rows(rng: random.Random, make: Callable[[random.Random], Mapping[str, Any]], n: int) -> Any:
    return [make(rng) for _ in range(n)]


def _same(rng: random.Random) -> dict[str, Any]:
    one = rng.choice(ANIMALS)
    other = one if rng.random() < 0.5 else rng.choice([name for name in ANIMALS if name != one])
    first = f"the {one} sees a {rng.choice(THINGS)}"
    return {"a": first, "b": f"some {other}", "label": "same" if one == other else "other"}


def _mood(rng: random.Random) -> dict[str, Any]:
    good = rng.random() < 0.5
    word = rng.choice(["happy", "good"] if good else ["sad", "bad"])
    return {"text": f"every {rng.choice(ANIMALS)} is {word} today", "label": int(good)}


def _shared(rng: random.Random) -> dict[str, Any]:
    one, other = rng.sample(THINGS, 3), rng.sample(THINGS, 3)
    return {"a": " ".join(one), "b": " ".join(other), "score": 1.0 * len({*one} & {*other})}


def write_suite(folder: Path) -> Path:
    """``mini``: a pair task in CSV, a single-text task and a regression in JSON lines."""
    rng = random.Random(3)
    sizes = {"train": 96, "dev": 32, "test": 40}
    (folder / "recipes").mkdir(parents=True)
    for split, n in sizes.items():
        rows = _rows(rng, _same, n)
        lines = ["a,b,label", *(f"{row['a']},{row['b']},{row['label']}" for row in rows)]
        (folder / f"same_{split}.csv").write_text("\n".join(lines) + "\n")
        for name, make in (("mood", _mood), ("shared", _shared)):
            text = "".join(json.dumps(row) + "\n" for row in _rows(rng, make, n))
            (folder / f"{name}_{split}.jsonl").write_text(text)
    for name, suffix, rest in (
        ("same", "csv", 'inputs: ["{a}", "{b}"]\nlabels: [other, same]\nmetrics: [accuracy, f1]\n'),
        ("mood", "jsonl", 'inputs: ["{text}"]\nlabels: [sad, happy]\nmetrics: [accuracy]\n'),
        ("shared", "jsonl", 'inputs: ["{a}", "{b}"]\nlabel_column: score\nmetrics: [pearson]\n'),
    ):
        files = ", ".join(f"{split}: {name}_{split}.{suffix}" for split in sizes)
        kind = "regression" if name == "shared" else "classification"
        (folder / f"{name}.yaml").write_text(
            f"# python -m mtl.tasks check mini/{name}\nid: mini/{name}\n"
            f"data: {{files: {{{files}}}}}\nkind: {kind}\n{rest}max_length: 32\n"
        )
    (folder / "suite.yaml").write_text(
        f"name: mini\ntasks: [{', '.join(TASKS)}]\nmodel: roberta-base\nrecipe: mini\n"
        f"protocol: official\ntarget: {TARGET}\n"
    )
    (folder / "recipes" / "mini.yaml").write_text(
        "defaults: {lr: 3.0e-3, epochs: 2, batch_size: 16, eval_batch_size: 64, patience: 0,\n"
        "  warmup: 0, weight_decay: 0, clip: 1, select: loss}\n"
        'methods:\n  "*": {}\n  pfeiffer: {reduction_factor: 4}\n'
    )
    return folder


def write_spans(folder: Path) -> Path:
    """``mini/spans``, a task whose rows are cut into windows; its file."""
    text = "the cat sees a dog"
    rows = [
        {"q": "who sees it", "c": text, "span": [0, 7], "answers": ["the cat"]},
        {"q": "what is seen", "c": text, "span": [13, 18], "answers": ["a dog"]},
    ]
    for split in ("train", "dev", "test"):
        lines = "".join(f"{json.dumps({**row, 'id': str(i)})}\n" for i, row in enumerate(rows * 4))
        (folder / f"spans_{split}.jsonl").write_text(lines)
    (folder / "spans.yaml").write_text(
        "id: mini/spans\ndata: {files: {train: spans_train.jsonl, dev: spans_dev.jsonl, "
        "test: spans_test.jsonl}}\nkind: span_extraction\ninputs: ['{q}', '{c}']\n"
        "label_column: span\nmetrics: [exact_match]\nmax_length: 32\n"
    )
    return folder / "spans.yaml"
