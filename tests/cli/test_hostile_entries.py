"""Entries of a stranger that fit their own hashes: every command ends in an answer or a message."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_bench import digests, mtl
from safetensors.numpy import load_file, save_file

from mtl.files import write_safetensors
from mtl.zoo import Manifest, Zoo, check_foreign, open_zoo
from mtl.zoo.check import file_table
from mtl.zoo.manifest import record

Change = Callable[[Path], None]


def reseal(folder: Path, **changes: Any) -> None:
    """Make the manifest, changed, agree with the files as they are."""
    value = {**json.loads((folder / "manifest.json").read_text()), **changes}
    # not from_dict: whoever attacks does not check what is written
    described = Manifest(**{k: v for k, v in value.items() if k not in {"digest", "files"}})
    whole = record(described, file_table(folder, "entry"))
    (folder / "manifest.json").write_text(json.dumps(whole))


def within(section: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        found = json.loads((folder / "manifest.json").read_text())[section]
        reseal(folder, **{section: {**found, **changes}})

    return change


def in_config(file: str, **changes: Any) -> Change:
    def change(folder: Path) -> None:
        found = json.loads((folder / file).read_text())
        found["config"].update(changes)
        (folder / file).write_text(json.dumps(found))
        reseal(folder)

    return change


def written(file: str, text: str) -> Change:
    def change(folder: Path) -> None:
        (folder / file).write_text(text)
        reseal(folder)

    return change


def tensors(file: str, edit: Callable[[dict[str, np.ndarray]], Any]) -> Change:
    def change(folder: Path) -> None:
        found = load_file(folder / file)
        edit(found)
        save_file(found, folder / file)
        reseal(folder)

    return change


def as_double(found: dict[str, np.ndarray]) -> None:
    found.update({name: value.astype(np.float64) * 1e300 for name, value in found.items()})


def empty_and_wide(found: dict[str, np.ndarray]) -> None:
    found["w"] = np.zeros((0, 2**30), np.float32)


HEAD, ADAPTER = "head_config.json", "adapter_config.json"
SETTINGS, RUN, DATA, TASK = "method_settings", "run_settings", "data", "task"
ESCAPE = "\x1b[2J\u202e\u200b"
ATTACKS: dict[str, Change] = {
    "a bottleneck of terabytes": within(SETTINGS, bottleneck=10**9),
    "a factor near zero": within(SETTINGS, reduction_factor=1e-9),
    "a factor that divides to infinity": within(SETTINGS, reduction_factor=5e-324),
    "a setting that is unknown": within(SETTINGS, evil=1),
    "a setting of another type": within(SETTINGS, bottleneck=[1]),
    "an activation that is an object": within(SETTINGS, activation={"relu": 1}),
    "a factor near zero, also in the config": in_config(ADAPTER, reduction_factor=1e-9),
    "a head of a billion layers": in_config(HEAD, layers=10**9),
    "a head of no layer": in_config(HEAD, layers=-1),
    "a head of petabytes": in_config(HEAD, num_labels=10**12),
    "a head of a type that is a list": in_config(HEAD, head_type=["a"]),
    "a head that is a list": written(HEAD, "[]"),
    "a head without config": written(HEAD, '{"config": null}'),
    "an adapter without config": written(ADAPTER, '{"config": null}'),
    "a batch of terabytes": within("training", eval_batch_size=10**12),
    "rows that are an object": within(RUN, max_train_samples={"a": 1}),
    "no run settings": lambda folder: reseal(folder, run_settings={}),
    "a task outside": within(TASK, id="../../x"),
    "a protocol outside": within(DATA, protocol="../x"),
    "splits that are a list": within(DATA, splits=[1]),
    "names that clear the screen": within(TASK, headline=ESCAPE),
    "metrics that clear the screen": lambda folder: reseal(
        folder, metrics={ESCAPE: {ESCAPE: {"value": 1e308, "stderr": -1e308, "n": 10**39}}}
    ),
    "a time that clears the screen": lambda folder: reseal(folder, created=ESCAPE * 100),
    "a command that clears the screen": lambda folder: reseal(folder, command=ESCAPE),
    "a seed of 36 digits": lambda folder: reseal(folder, seed=10**35),
    "a verification of something": lambda folder: reseal(folder, verified={"n": ESCAPE, "x": [1]}),
    "weights beyond fp32": tensors("adapter.safetensors", as_double),
    "an empty tensor of a billion columns": tensors("adapter.safetensors", empty_and_wide),
    "scores that are no numbers": tensors(
        "predictions.safetensors", lambda found: found["scores"].fill(np.nan)
    ),
    "answers of no class": tensors(
        "predictions.safetensors", lambda found: found["prediction"].fill(-(10**17))
    ),
}
REFUSED = {  # at the door already: (kind of the problem)
    "a head of a billion layers": "fit",
    "a head of no layer": "fit",
    "a head of petabytes": "fit",
    "a head that is a list": "config",
    "a head without config": "config",
    "an adapter without config": "config",
    "weights beyond fp32": "values",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_command_ends_well(name: str, stocked: Path) -> None:
    folder = next(stocked / ref for ref in digests(stocked) if "/mood/" in ref)
    other = next(ref for ref in digests(stocked) if "/same/" in ref)
    ref = folder.relative_to(stocked).as_posix()
    ATTACKS[name](folder)
    if name in REFUSED:
        assert REFUSED[name] in {problem.kind for problem in check_foreign(folder)}
        assert REFUSED[name] in {problem.kind for problem in open_zoo(stocked).fsck()}
    began = time.monotonic()
    for argv in (
        ["zoo", "fsck"],
        ["zoo", "ls"],
        ["zoo", "show", ref],
        ["zoo", "verify", ref, "--no-record", "--json"],
        ["zoo", "diff", ref, other, "--json"],
        ["compose", "--target", "same", "--sources", "mood", "--max-steps", "1"],
        ["report", "--suite", "mini"],
        ["graph", "build"],
    ):
        said = mtl(*argv)  # what is no MtlError would be raised here
        assert said.code in {0, 1, 2}, argv
        assert not {"\x1b", "\u202e", "\u200b"} & {*said.out, *said.err}, argv
        if "--json" in argv and said.out:
            assert not {"NaN", "Infinity"} & set(re.findall(r"\w+", said.out)), argv
    assert time.monotonic() - began < 60
    assert not list(stocked.parent.glob("x*"))


@pytest.mark.parametrize(
    "name", ["a bottleneck of terabytes", "a factor near zero", "an activation that is an object"]
)
def test_what_cannot_be_built_is_one_message(name: str, stocked: Path) -> None:
    folder = next(stocked / ref for ref in digests(stocked) if "/mood/" in ref)
    ATTACKS[name](folder)
    said = mtl("zoo", "verify", folder.relative_to(stocked).as_posix())
    assert said.code in {1, 2}
    assert said.err.startswith("error: ")
    wanted = "load_elements" if "activation" not in name else "Settings of pfeiffer"
    assert wanted in said.err


def test_shapes_of_empty_tensors_are_bounded(stocked: Path, monkeypatch: Any) -> None:
    zoo: Zoo = open_zoo(stocked)
    folder = next(e.folder for e in zoo.entries() if "/mood/" in e.ref)
    import torch

    write_safetensors(folder / "adapter.safetensors", {"w": torch.zeros(0, 3)})
    data = (folder / "adapter.safetensors").read_bytes()
    text = data[8:].rstrip().replace(b"[0,3]", b"[0,4611686018427387904]")
    (folder / "adapter.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    problems = [problem for problem in zoo.fsck() if problem.kind == "tensors"]
    assert "no shape that any file can hold" in problems[0].message
