"""Pushed entries in stock ``adapters``: a process without mtl loads them and answers the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from cli_bench import mtl
from hub_bench import hub
from loopback_state import Hub

from mtl.backbone import adapter_files, heads, load_backbone
from mtl.hub import parse_repo, push, stock
from mtl.hub.stock import reader
from mtl.methods import METHODS
from mtl.zoo import open_zoo, read_predictions

__all__ = ["hub"]  # the fixture

STOCK = """
import json, sys
import torch
from adapters import AutoAdapterModel
from huggingface_hub import snapshot_download

jobs = json.load(open(sys.argv[1]))
tokens = {key: torch.tensor(value) for key, value in jobs.pop("tokens").items()}
base = jobs.pop("base")
for method, job in jobs.items():
    model = AutoAdapterModel.from_pretrained(base)
    folder = job["repo"]
    if job["path"] != ".":
        folder = snapshot_download(job["repo"]) + "/" + job["path"]
    info = {}
    try:
        name = model.load_adapter(folder, set_active=True, loading_info=info)
    except Exception as error:
        job["error"] = f"{type(error).__name__}: {error}"
        continue
    model.eval()
    with torch.no_grad():
        if method.startswith("unipelt"):  # its gates count padding there: one text at a time
            rows = zip(tokens["input_ids"], tokens["attention_mask"])
            logits = torch.cat([model(ids[real == 1][None]).logits for ids, real in rows])
        else:
            logits = model(**tokens).logits
    job.update(name=name, logits=logits.tolist(), labels=model.get_labels(),
               missing=info.get("missing_keys"), surplus=info.get("unexpected_keys"))
assert not [m for m in sys.modules if m == "mtl" or m.startswith("mtl.")]
json.dump(jobs, open(sys.argv[1], "w"))
"""
LOUD = ("adakron", "bitfit", "propetl")
"""Methods of each of our families that stock adapters does not know."""


def train(method: str, model: str) -> Any:
    line = ["--suite", "mini", "--task", "mood", "--method", method, "--model", model]
    said = mtl("train", *line, "--epochs", "1", "--json")
    assert said.code == 0, said.err
    return said.json["runs"][0]["ref"]


def test_pushed_entries_answer_the_same_in_stock_adapters(
    hub: Hub, mini: Path, suite_folder: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    model = tiny("roberta")
    backbone = load_backbone(model)
    zoo = open_zoo(mini)
    jobs: dict[str, Any] = {}
    for method in METHODS.names():
        entry = zoo.get(train(method, model)) if _library(method) or method in LOUD else None
        if entry is None:
            continue
        name = f"ada/{method.replace('+', 'p')}"
        (sent,) = push(zoo, [entry.ref], parse_repo(name), license="apache-2.0").entries
        card = hub.files(name)["README.md"].decode()
        assert (sent["reader"] == "adapters") == ("Stock `adapters` reads it" in card)
        assert (sent["reader"] == "mtl") == ("The package `mtl` reads it" in card)
        jobs[method] = {"repo": name, "path": sent["path"], "reader": sent["reader"]}
    both = [zoo.entries(method=method)[0].ref for method in ("pfeiffer", "compacter")]
    for sent in push(zoo, both, parse_repo("ada/both")).entries:
        jobs[sent["path"]] = {"repo": "ada/both", "path": sent["path"], "reader": sent["reader"]}

    rows = (suite_folder / "mood_test.jsonl").read_text().splitlines()
    texts = [json.loads(row)["text"] for row in rows]
    batch = backbone.tokenizer(texts, padding=True, return_tensors="pt")
    tokens = {key: batch[key].tolist() for key in ("input_ids", "attention_mask")}
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps({**jobs, "tokens": tokens, "base": model}))
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("MTL_")},
        "PYTHONPATH": "",
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "stock"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": "hf_ada",
    }
    done = subprocess.run(
        [sys.executable, "-c", STOCK, str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers = json.loads(path.read_text())
    assert {job["reader"] for job in answers.values()} == {"adapters", "mtl"}
    for name, job in answers.items():
        if job["reader"] == "mtl":
            assert "error" in job, name
            continue
        assert "error" not in job, (name, job)
        assert job["labels"] == ["sad", "happy"]
        assert not job["surplus"]
        method = name if name in METHODS.names() else name.split("/")[3]
        stored = read_predictions(zoo.entries(method=method)[0].folder)
        np.testing.assert_allclose(np.array(job["logits"]), stored.scores, atol=1e-5, err_msg=name)
        assert stored.scores.std() > 1e-3


def _library(name: str) -> bool:
    """Whether the method is one of those that adapters ships."""
    from mtl.methods.library import load_library

    found = METHODS.get(name)
    return getattr(found.load, "func", None) is load_library or name.startswith("compacter")


def test_names_of_files_are_those_of_the_backbone() -> None:
    assert stock.CONFIG_FILE == adapter_files.CONFIG_FILE
    assert stock.WEIGHTS_FILE == adapter_files.WEIGHTS_FILE
    assert stock.HEAD_WEIGHTS_FILE == heads.WEIGHTS_FILE


def test_the_reader_of_each_family(mini: Path, tiny: Callable[[str], str]) -> None:
    zoo = open_zoo(mini)
    for method, expected in (("ia3", "adapters"), ("adamix", "mtl"), ("full-ft", "mtl")):
        entry = zoo.get(train(method, tiny("bert")))
        assert reader(entry.folder, entry.manifest) == expected


def test_the_copies_hold_tensors_and_nothing_else(
    mini: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    import torch

    from mtl.files import read_safetensors
    from mtl.hub import write_stock_copies

    entry = open_zoo(mini).get(train("pfeiffer", tiny("roberta")))
    for turn in ("one", "two"):
        (tmp_path / turn).mkdir()
        names = write_stock_copies(entry.folder, tmp_path / turn)
    assert names == ["pytorch_adapter.bin", "pytorch_model_head.bin"]
    for name, source in zip(names, ["adapter", "model_head"], strict=True):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
        copy = torch.load(tmp_path / "one" / name, weights_only=True)
        tensors = read_safetensors(entry.folder / f"{source}.safetensors")[0]
        assert copy.keys() == tensors.keys()
        assert all(torch.equal(copy[key], tensors[key]) for key in tensors)
