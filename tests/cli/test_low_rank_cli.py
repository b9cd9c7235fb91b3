"""Low-rank methods through the command lines: resume, schedule, frozen head, mixed compositions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli_bench import digests, leftovers, mtl, refused

from mtl.files import read_safetensors
from mtl.methods.modules.adalora import Allocation
from mtl.methods.modules.sora import SoRA
from mtl.report import source_weights
from mtl.zoo import open_zoo

LINES: dict[str, list[str]] = {
    # 6 batches an epoch: 24 steps, allocation from step 3 to 15
    "adalora": ["--set", "rank=3", "target_rank=1", "interval=2", "lr=2e-2", "initial_warmup=3"],
    # stages of 12, 6 and 6 steps
    "sora": ["--set", "schedule_stages=3", "xi=0.01", "xi_max=0.05", "stage_epochs=1", "lr=2e-2"],
}
EPOCHS = {"adalora": "4", "sora": "2"}


class Killed(BaseException):
    """What a kill looks like from inside: nothing may catch it."""


def at_step(patch: pytest.MonkeyPatch, method: str, act: Callable[[Any, int], None]) -> None:
    """Call ``act(owner, step)`` after every optimiser step of ``method``."""
    owner: Any = Allocation if method == "adalora" else SoRA
    original = owner.after_step

    def after_step(self: Any, step: int) -> None:
        original(self, step)
        act(self, step)

    patch.setattr(owner, "after_step", after_step)


@pytest.mark.parametrize(
    ("method", "kills"), [("adalora", [1, 9, 15, 20]), ("sora", [2, 11, 12, 14, 20])]
)
def test_killed_and_resumed_is_an_unbroken_run(
    method: str, kills: list[int], mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in every phase of the allocation, and of the schedule: the entry has equal bytes."""
    line = ["--suite", "mini", "--task", "mood", "--method", method, "--epochs", EPOCHS[method]]
    line += LINES[method]
    whole = mtl("train", *line, "--runs", tmp_path / "whole", "--json")
    assert whole.code == 0, whole
    expected = digests(mini)
    shutil.rmtree(mini)
    monkeypatch.setenv("MTL_RESUME_SECONDS", "0")
    for kill in kills:

        def act(owner: Any, step: int, kill: int = kill) -> None:
            if step == kill:
                raise Killed

        with monkeypatch.context() as patch:
            at_step(patch, method, act)
            with pytest.raises(Killed):
                mtl("train", *line)
        assert digests(mini) == {}
    done = mtl("train", *line, "--json")
    assert done.code == 0, done
    assert digests(mini) == expected
    assert not leftovers(mini)


def test_every_stage_of_sora_has_a_warm_up_of_its_own(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factors rest at the first step of each stage (rate 0) and move at all others."""
    seen: list[tuple[float, torch.Tensor]] = []
    at_step(
        monkeypatch,
        "sora",
        lambda owner, step: seen.append((owner.xi, owner.up[1].detach().clone())),
    )
    line = ["--suite", "mini", "--task", "mood", "--method", "sora", "--epochs", "2"]
    said = mtl("train", *line, *LINES["sora"], "warmup=0.5", "--json")
    assert said.code == 0, said
    assert [xi for xi, _ in seen] == pytest.approx([0.01] * 12 + [0.03] * 6 + [0.05] * 6)
    moved = [not torch.equal(a, b) for (_, a), (_, b) in pairwise(seen)]
    assert [step + 1 for step, value in enumerate(moved) if not value] == [12, 18]
    manifest = json.loads((mini / said.json["runs"][0]["ref"] / "manifest.json").read_text())
    (path,) = (tmp_path / "runs").glob(f"{manifest['runhash']}/events.jsonl")
    events = [json.loads(text) for text in path.read_text().splitlines()]
    assert [event["stage"] for event in events] == [0, 0, 1, 2]
    # what is stored is of the last stage, and sparse
    stored, _ = read_safetensors(mini / said.json["runs"][0]["ref"] / "adapter.safetensors")
    kept = sum(value.shape[0] for name, value in stored.items() if name.endswith(".A"))
    assert kept < 12 * 8


def test_sora_leaves_the_head_as_it_was_drawn(mini: Path) -> None:
    """``train_head=false``: the stored head is the drawn one, whatever the training."""
    heads = []
    for values in (["lr=1e-3"], ["lr=2e-2"]):
        line = ["--suite", "mini", "--task", "mood", "--method", "sora", "--epochs", "2"]
        said = mtl("train", *line, "--set", "train_head=false", *values, "--json")
        assert said.code == 0, said
        ref = said.json["runs"][0]["ref"]
        heads.append(read_safetensors(mini / ref / "model_head.safetensors")[0])
    trained = mtl("train", *line, "--set", *values, "--json")
    ref = trained.json["runs"][0]["ref"]
    heads.append(read_safetensors(mini / ref / "model_head.safetensors")[0])
    frozen = [all(torch.equal(heads[0][key], head[key]) for key in head) for head in heads]
    assert frozen == [True, True, False]


def test_sources_of_all_low_rank_methods_in_one_composition(mini: Path, tmp_path: Path) -> None:
    """LoRA, AdaLoRA and VeRA on the same modules; stored, verified, loaded again, drawn."""
    modules = "q,v,output"
    for task, method, values in (
        ("mood", "adalora", ["rank=3"]),
        ("shared", "vera", ["rank=16"]),
        ("same", "lora", ["rank=4"]),
    ):
        line = ["--suite", "mini", "--task", task, "--method", method, "--epochs", "2"]
        said = mtl("train", *line, "--set", f"modules={modules}", *values)
        assert said.code == 0, said
    before = digests(mini)
    line = ["--target", "same", "--sources", "mood:adalora", "shared:vera", "same:lora"]
    said = mtl("compose", *line, "--epochs", "2", "--seeds", "0", "1", "--json")
    assert said.code == 0, said
    assert [ref.split("/")[3] for ref in said.json["sources"]] == ["adalora", "vera", "lora"]
    assert before.items() <= digests(mini).items()
    entry = open_zoo(mini).get(said.json["runs"][0]["ref"])
    weights, names, layers = source_weights(entry)
    assert names == ["mood", "shared", "same"]
    assert sorted(layers) == sorted(f"{i}.{m}" for i in (0, 1) for m in modules.split(","))
    assert weights.shape == (3, 6)
    assert np.abs(weights - 2 / 3).max() < 0.2
    verified = mtl("zoo", "fsck")
    assert verified.code == 0, verified
    drawn = tmp_path / "map.png"
    report = mtl("report", "--target", "same", "--method", "scalearn", "--heatmap", drawn)
    assert report.code == 0, report
    assert drawn.stat().st_size > 1000


def test_what_low_rank_sources_cannot_do_says_why(stocked: Path) -> None:
    for modules in ("q,v", "k"):
        line = ["--suite", "mini", "--task", "mood", "--method", "lora", "--epochs", "1"]
        assert mtl("train", *line, "--set", f"modules={modules}", "--seeds", len(modules)).code == 0
    line = [
        "--suite",
        "mini",
        "--task",
        "same",
        "--method",
        "vera",
        "--epochs",
        "1",
        "--seeds",
        "1",
    ]
    assert mtl("train", *line).code == 0
    mixed = ["--target", "same", "--sources", "mood:lora", "same:pfeiffer"]
    refused(mtl("compose", *mixed), "'lora'", "'pfeiffer'", "different places")
    fused = ["--target", "same", "--sources", "mood", "--source-method", "lora"]
    refused(mtl("compose", *fused, "--method", "fusion"), "'fusion'", "'lora'", "query")
    other = ["--target", "same", "--sources", "mood:lora", "same:vera", "--source-seed", "1"]
    refused(mtl("compose", *other), "placements differ", "modules: k and q,v")
