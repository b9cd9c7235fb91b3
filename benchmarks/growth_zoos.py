"""Zoos and suites of any size, made without training, for benchmarks/growth.py.

Entries are as small as entries get (a kilobyte of tensors), so what is measured is the zoo and not
hashing.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402
from zoo_bench import fill, manifest, predictions, task  # noqa: E402

from mtl.zoo import Entry, Zoo  # noqa: E402
from mtl.zoo.check import file_table  # noqa: E402
from mtl.zoo.manifest import Manifest, record  # noqa: E402
from mtl.zoo.store import base_slug  # noqa: E402

METHODS = ("pfeiffer", "houlsby", "lora", "adakron", "compacter")
TASKS = 20
DEMO = ("nli", "paraphrase", "similarity", "sentiment", "acceptability", "entail")
TARGET = "entail"
SEEDS = 3
"""Behind every row of a report."""


class Maker:
    """Writes entries as :meth:`Zoo.commit` does, without its syncing of every one."""

    def __init__(self, zoo: Zoo, scratch: Path) -> None:
        self.zoo = zoo
        self.plain, self.composed = scratch / "adapter", scratch / "composition"
        for folder in (self.plain, self.composed):
            folder.mkdir(parents=True)
        fill(self.plain)
        predictions(self.composed, [1, 0, 1, 1])
        self.written = 0

    def put(self, described: Manifest, files: Path | None = None) -> str:
        """Store an entry of this manifest, with ``files`` or tiny ones; its reference."""
        base, own = described.base, described.task["name"]
        slug = base_slug(base["id"], base["fingerprint"])
        ref = self.zoo.location(
            slug, described.suite, own, described.method, described.seed, described.runhash
        )
        folder = self.zoo.root / ref
        composed = described.kind == "composition"
        shutil.copytree(files or (self.composed if composed else self.plain), folder)
        values = np.full((2, 3), self.written, np.float32)  # no two weights are the same
        if files:
            pass
        elif composed:
            shape = (len(described.parents), base["hidden_size"])
            values = np.full(shape, 1 + self.written, np.float32)
            omega = {f"omega.{layer}": values for layer in range(base["layers"])}
            save_file(omega, folder / "composition.safetensors")
        else:
            save_file({"w": values}, folder / "adapter.safetensors")
        value = record(described, file_table(folder, ref))
        (folder / "manifest.json").write_text(json.dumps(value, indent=2))
        (folder / "README.md").write_text("a card\n")
        self.written += 1
        return ref


def made_up_score(rng: np.random.Generator) -> dict[str, Any]:
    """A test accuracy between 0.5 and 0.75, as a manifest has it."""
    value = 0.5 + float(rng.random()) / 4
    return {"accuracy": {"value": value, "stderr": 0.01, "n": 4, "caveat": None}}


def place(number: int) -> tuple[str, str, int]:
    """Task, method and seed of the entry ``number``; the demo's tasks come first."""
    tasks, methods = number % TASKS, number // TASKS % len(METHODS)
    name = DEMO[tasks] if tasks < len(DEMO) else f"task{tasks}"
    return name, METHODS[methods], number // (TASKS * len(METHODS))


def listed(maker: Maker, numbers: range, base: Mapping[str, Any], rows: Mapping[str, str]) -> None:
    """Adapters of ``numbers`` on ``base``, those of the demo's tasks sources for its target.

    Args:
        rows: fingerprints of the splits of the target's data.
    """
    rng = np.random.default_rng(numbers.start)
    for number in numbers:
        name, method, seed = place(number)
        suite = "demo" if name in DEMO else "toy"
        described = {**task(name), "id": f"{suite}/{name}", "suite": suite}
        data = manifest().data
        if name == TARGET and suite == "demo":
            data = {**data, "splits": dict(rows)}
        score = made_up_score(rng)
        maker.put(
            manifest(
                base=dict(base), task=described, suite=suite, data=data, method=method, seed=seed,
                runhash=f"{number:016x}", metrics={"test": score, "dev": score},
                training={**manifest().training, "baselines": {}},
                run_settings={"lr": 0.001, "max_train_samples": None},
            )
        )  # fmt: skip


def adapters(maker: Maker, tasks: Sequence[str], backbone: Any) -> list[Entry]:
    """An adapter of each task that can be loaded and composed: drawn, never trained."""
    from mtl.methods import METHODS, attach

    method = METHODS.get("pfeiffer")
    settings = method.settings(**method.defaults)
    files = maker.plain.parent / "pfeiffer"
    files.mkdir()
    attach(backbone.encoder(), method, settings, "source").save(files, backbone.base.id)
    predictions(files, [1, 0, 1, 0])
    found = []
    for number, one in enumerate(tasks):
        home, name = one.split("/")
        described = manifest(
            base=backbone.base.to_dict(), suite=home, runhash=f"{number:016x}",
            task={**task(name), "id": one, "suite": home},
            method_settings=asdict(settings), run_settings={"max_train_samples": None},
        )  # fmt: skip
        found.append(maker.zoo.get(maker.put(described, files)))
    return found


def results(maker: Maker, numbers: range, tasks: int = 5) -> None:
    """Rows of a report: own adapters of ``tasks`` tasks, then compositions at other rates each."""
    rng = np.random.default_rng(numbers.start)
    for number in numbers:
        name, composed = f"task{number % tasks}", number >= tasks
        for seed in range(SEEDS):
            score = made_up_score(rng)
            changes: dict[str, Any] = {
                "task": task(name), "seed": seed, "runhash": f"{number:08x}{seed:08x}",
                "metrics": {"test": score, "dev": score},
                "training": {**manifest().training, "baselines": {}},
            }  # fmt: skip
            if composed:
                own, parent = number % tasks, (number + 1) % tasks
                changes |= {
                    "kind": "composition", "method": "scalearn", "placement": None,
                    "method_settings": {"per": "dim"}, "run_settings": {"lr": 1e-5 * number},
                    "parents": [
                        {
                            "ref": ref, "digest": known, "task": f"toy/task{source}",
                            "method": "pfeiffer", "seed": 0,
                        }
                        for source in (parent, own)
                        for ref, known in [_first(maker, source)]
                    ],
                }  # fmt: skip
            maker.put(manifest(**changes))


def _first(maker: Maker, number: int) -> tuple[str, str]:
    """Reference and digest of the own adapter of seed 0 of row ``number``."""
    found = manifest()
    slug = base_slug(found.base["id"], found.base["fingerprint"])
    ref = maker.zoo.location(slug, "toy", f"task{number}", "pfeiffer", 0, f"{number:08x}{0:08x}")
    stored = json.loads((maker.zoo.root / ref / "manifest.json").read_text())
    return ref, str(stored["digest"])


def suite(folder: Path, name: str, tasks: int) -> list[str]:
    """A suite of so many tasks over small files, below ``folder``; the ids of its tasks."""
    home = folder / name
    home.mkdir(parents=True)
    ids = [f"{name}/task{number:03d}" for number in range(tasks)]
    lines = ["text,label", *(f"row {row} of a file,{row % 2}" for row in range(40))]
    for number, one in enumerate(ids):
        for split in ("train", "validation", "test"):
            own = [*lines, f"row of task {number} {split},0", "and another,1"]
            (home / f"{number:03d}_{split}.csv").write_text("\n".join(own) + "\n")
        files = ", ".join(
            f"{split}: {number:03d}_{split}.csv" for split in ("train", "validation", "test")
        )
        (home / f"task{number:03d}.yaml").write_text(
            f"# python -m mtl.tasks check {one}\nid: {one}\ndata:\n  files: {{{files}}}\n"
            'kind: classification\ninputs: ["{text}"]\nlabels: [0, 1]\nmetrics: [accuracy]\n'
        )
    listing = "".join(f"  - {one}\n" for one in ids)
    (home / "suite.yaml").write_text(
        f"# python -m mtl.train --suite {name}\nname: {name}\ntasks:\n{listing}"
        "model: demo\nrecipe: none\nprotocol: official\n"
    )
    return ids
