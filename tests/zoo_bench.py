"""Entries without a model: manifests and small files for tests of the zoo and the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mtl.backbone.identity import function_fingerprint
from mtl.zoo import SCHEMA_VERSION, Entry, Manifest, Zoo, open_zoo, write_predictions

RUNHASH = "0123456789abcdef"


def base(weights: str = "ab" * 32, **config: Any) -> dict[str, Any]:
    """The base of a manifest, as :class:`mtl.backbone.Base` describes it."""
    tokenizer = "cd" * 32
    return {
        "id": "tiny",
        "revision": None,
        "fingerprint": function_fingerprint(weights, "roberta", config, tokenizer),
        "type": "roberta",
        "hidden_size": 8,
        "layers": 2,
        "tokenizer": tokenizer,
        "weights": weights,
        "pooler": None,
        "config": config,
    }


MARK = base()["fingerprint"][:8]
"""What says which base it is, where there is little room."""


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "kind": "adapter",
        "weights": "adapters",
        "base": base(),
        "task": {
            "id": "toy/own",
            "suite": "toy",
            "name": "own",
            "kind": "classification",
            "labels": ["no", "yes"],
            "metrics": ["accuracy"],
            "headline": "accuracy",
            "num_outputs": 2,
        },
        "suite": "toy",
        "method": "pfeiffer",
        "method_settings": {"reduction_factor": 4.0},
        "run_settings": {"lr": 0.001},
        "seed": 0,
        "data": {
            "fingerprint": "ef" * 32,
            "protocol": "official",
            "sizes": {"train": 4, "dev": 4, "test": 4},
            "notes": [],
        },
        "head": {"design": "two_layer"},
        "placement": {"output_adapter": True},
        "metrics": {"test": {"accuracy": {"value": 0.5, "stderr": 0.25, "n": 4}}},
        "training": {
            "steps": 10,
            "epochs": 1.0,
            "best_step": 10,
            "seconds": 1.5,
            "device": "cpu",
            "precision": "fp32",
            "threads": 1,
            "trainable_parameters": 42,
            "stopped": "planned",
        },
        "versions": {"mtl": "0"},
        "parents": [],
        "runhash": RUNHASH,
        "command": "python -m mtl.train --suite toy",
        "verified": None,
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Manifest.from_dict({**values, **changes})


def fill(folder: Path, value: float = 1.0, **more: np.ndarray) -> None:
    """The files of an entry: a config, weights, predictions."""
    (folder / "adapter_config.json").write_text('{"config": {}}\n', encoding="utf-8")
    save_file({"w": np.full((2, 3), value, np.float32), **more}, folder / "adapter.safetensors")
    predictions(folder, [1, 0, 1, 0])


def predictions(folder: Path, answers: list[int], labels: tuple[int, ...] = (1, 0, 1, 1)) -> None:
    scores = np.eye(2, dtype=np.float32)[answers]
    write_predictions(
        folder, "predictions.safetensors", np.arange(len(answers)), labels, answers, scores
    )


def store(zoo: Zoo, described: Manifest, value: float = 1.0) -> Entry:
    ref = zoo.location(
        "tiny-abababab",
        described.suite,
        described.task["name"],
        described.method,
        described.seed,
        described.runhash,
    )
    with zoo.stage(ref) as folder:
        fill(folder, value)
        return zoo.commit(folder, ref, described)


def composition(zoo: Zoo, parents: list[Entry], omega: np.ndarray, **changes: Any) -> Entry:
    """A composition of ``parents`` with one omega per layer, (L,K,D)."""
    described = manifest(
        kind="composition",
        method="scalearn",
        method_settings={"per": "dim"},
        placement=None,
        parents=[
            {
                "ref": entry.ref,
                "digest": entry.digest,
                "task": entry.manifest.task["id"],
                "method": entry.manifest.method,
                "seed": entry.manifest.seed,
            }
            for entry in parents
        ],
        **changes,
    )
    ref = zoo.location("tiny-abababab", "toy", "own", "scalearn", described.seed, described.runhash)
    with zoo.stage(ref) as folder:
        save_file(
            {f"omega.{layer}": values for layer, values in enumerate(omega)},
            folder / "composition.safetensors",
        )
        predictions(folder, [1, 0, 1, 1])
        return zoo.commit(folder, ref, described)


def task(name: str) -> dict[str, Any]:
    return {**manifest().task, "id": f"toy/{name}", "name": name}


def digests(zoo: Zoo) -> dict[str, str]:
    return {entry.ref: entry.digest for entry in zoo.entries()}


def untouched(zoo: Zoo) -> bool:
    """Nothing of a zoo is there, no temporary either."""
    return not zoo.root.exists() or not [p for p in zoo.root.rglob("*") if p.name != ".lock"]


if __name__ == "__main__":  # a writer in a process of its own: root, seed, value, stop point
    import os
    import signal
    import sys

    root, seed, value, stop = sys.argv[1:5]
    described = manifest(seed=int(seed), runhash=f"{int(seed):016x}")
    if stop != "never":
        import mtl.zoo.commit as commit

        name = {"staged": None, "manifest": "os.rename"}[stop]
        zoo = open_zoo(root)
        ref = zoo.location("tiny-abababab", "toy", "own", "pfeiffer", int(seed), described.runhash)
        with zoo.stage(ref) as folder:
            fill(folder, float(value))
            if name is None:
                os.kill(os.getpid(), signal.SIGKILL)
            # every way a folder can be moved into place is the last thing that happens
            for function in ("rename", "replace"):
                real = getattr(os, function)

                def dies(source: Any, target: Any, _real: Any = real, **more: Any) -> Any:
                    if Path(source).is_dir():
                        os.kill(os.getpid(), signal.SIGKILL)
                    return _real(source, target, **more)

                setattr(os, function, dies)
            commit.store(folder, zoo.path(ref), zoo.root, ref, described)
        raise SystemExit("was not killed")
    store(open_zoo(root), described, float(value))
