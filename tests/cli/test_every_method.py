"""Every method of stage one, end to end: trains, is stored, loads in a new process, composes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cli_bench import ROOT, digests, leftovers, mtl, refused

from mtl.compose import COMPOSITIONS
from mtl.methods import METHODS, UNAVAILABLE
from mtl.zoo import open_zoo

TYPES = ["roberta", "bert", "xlm-roberta", "deberta-v2"]
SETTINGS: dict[str, list[str]] = {
    "adalora": ["target_rank=1", "rank=3"],
    "diff-pruning": ["finetune_epochs=1"],
}

AGAIN = """
import json, sys
import numpy as np
import torch
torch.set_num_threads(1)  # as many as trained: sums keep their order
from mtl.backbone import load_backbone
from mtl.engine import EvalSet, evaluate, open_device
from mtl.data import Passes, encode, load_data
from mtl.tasks import load_task
from mtl.runs import load
from mtl.zoo import open_zoo, read_predictions

zoo = open_zoo(sys.argv[1])
backbone = load_backbone(sys.argv[2])
spec = load_task("mini/mood")
data = load_data(spec, protocol="official")
test = EvalSet(spec, encode(data, "test", backbone.tokenizer))
found = {}
for entry in zoo.entries():
    attached = load(entry, zoo, backbone).attached
    again = evaluate(attached, test, open_device("fp32"), Passes(tokens=2048))
    stored = read_predictions(entry.folder)
    assert (again.row == stored.row).all()
    found[entry.manifest.method] = float(np.abs(again.logits - stored.scores).max())
print(json.dumps(found))
"""


@pytest.mark.parametrize("kind", TYPES)
def test_trains_is_stored_and_loads_in_a_new_process(
    kind: str, mini: Path, tiny: Callable[[str], str], tmp_path: Path
) -> None:
    wrong: dict[str, Any] = {}
    for method in METHODS.names():
        line = ["--suite", "mini", "--task", "mood", "--method", method, "--model", tiny(kind)]
        values = SETTINGS.get(method, [])
        if method.startswith("tensorized"):
            values = [*values, "rank=2"]
        said = mtl(
            "train", *line, "--epochs", "4", *(["--set", *values] if values else []), "--json"
        )
        if said.code:
            wrong[method] = said.err
            continue
        ref = said.json["runs"][0]["ref"]
        manifest = json.loads((mini / ref / "manifest.json").read_text())
        if manifest["verified"]["max_logit_difference"] > 1e-6:  # trained and loaded: order of sums
            wrong[method] = manifest["verified"]
        events = (tmp_path / "runs" / manifest["runhash"] / "events.jsonl").read_text()
        losses = [json.loads(text)["train_loss"] for text in events.splitlines()]
        if not min(losses[1:]) < losses[0]:  # pruning lifts it again
            wrong[method] = losses
    assert not wrong
    done = subprocess.run(
        [sys.executable, "-c", AGAIN, str(mini), tiny(kind)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sorted(found) == sorted(METHODS.names())
    assert {method: value for method, value in found.items() if value > 0} == {}
    assert not leftovers(mini)
    assert open_zoo(mini).fsck() == []


@pytest.mark.parametrize("name", [item.name for item in UNAVAILABLE])
def test_what_cannot_be_reproduced_says_why(name: str, mini: Path) -> None:
    refused(mtl("train", "--suite", "mini", "--method", name), name, "cannot be reproduced")
    refused(mtl("methods", "count", "--method", name), name, "cannot be reproduced")
    assert name in mtl("methods", "ls").out


def composing(sort: str) -> list[str]:
    return [name for name in METHODS.names() if METHODS.get(name).composes == sort]


@pytest.mark.parametrize("sort", ["bottleneck", "low_rank"])
def test_every_source_method_with_every_composition(sort: str, mini: Path) -> None:
    wrong: dict[str, Any] = {}
    for source in composing(sort):
        values = ["--set", *SETTINGS[source]] if source in SETTINGS else []
        line = ["--suite", "mini", "--task", "mood", "same", "--method", source, "--epochs", "1"]
        said = mtl("train", *line, *values)
        assert said.code == 0, said.err
        for method in COMPOSITIONS.names():
            line = ["--target", "same", "--sources", "mood", "same", "--source-method", source]
            own = ["--set", "embedder=base"] if method == "soup" else []
            said = mtl("compose", *line, "--method", method, "--epochs", "1", *own, "--json")
            if sort == "low_rank" and method in {"fusion", "soup"}:
                refused(said, method)
            elif method == "soup" and "adakron" in source:
                refused(said, "no plain bottlenecks", "--method average")
            elif said.code or said.json["runs"][0]["status"] != "done":
                wrong[f"{source} × {method}"] = said.err
    assert not wrong
    assert not leftovers(mini)
    assert open_zoo(mini).fsck() == []


@pytest.mark.parametrize("name", composing(""))
def test_what_does_not_compose_says_why(name: str, mini: Path) -> None:
    said = mtl("compose", "--target", "same", "--source-method", name)
    refused(said, f"method '{name}' cannot be composed", METHODS.get(name).refusal, "pfeiffer")


def test_sources_of_several_methods_in_one_composition(stocked: Path) -> None:
    for task, method, values in (
        ("mood", "adakron", ["bottleneck=16"]),
        ("shared", "pfeiffer", ["bottleneck=7", "activation=gelu"]),
    ):
        line = ["--suite", "mini", "--task", task, "--method", method, "--zoo", stocked]
        said = mtl("train", *line, "--seeds", "4", "--epochs", "1", "--set", *values)
        assert said.code == 0, said
    line = ["--target", "same", "--epochs", "1", "--source-seed", "4"]
    said = mtl("train", "--suite", "mini", "--task", "same", "--seeds", "4", "--epochs", "1")
    assert said.code == 0, said
    before = digests(stocked)
    for method in ("scalearn", "fusion"):
        sources = ["mood:adakron", "shared", "same"]
        said = mtl("compose", *line, "--method", method, "--sources", *sources, "--json")
        assert said.code == 0, said
        assert [ref.split("/")[3] for ref in said.json["sources"]] == [
            "adakron",
            "pfeiffer",
            "pfeiffer",
        ]
    assert before.items() <= digests(stocked).items()
    refused(mtl("compose", *line, "--sources", "mood:adakrn", "same"), "Did you mean 'adakron'")
    refused(mtl("compose", *line, "--sources", "mood:ia3", "same"), "cannot be composed")
